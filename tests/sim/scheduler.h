// Scheduler: the virtual clock and the one queue of everything that will happen in the virtual
// world.
//
// Events run in the order of (time, sequence of scheduling), one at a time, so a run is a pure
// function of its seed. Each event belongs to a node: a crash drops what the node had pending
// (DropNode), a stall holds it back (Stall). Events of the world itself belong to kNobody.
//
// Single-threaded. Callbacks may schedule, cancel, drop and stall.
#ifndef STARLING_TESTS_SIM_SCHEDULER_H_
#define STARLING_TESTS_SIM_SCHEDULER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <queue>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"

namespace starling::sim {

enum class NodeId : uint32_t {};
constexpr NodeId kNobody{0xffffffff};

// What a stall does to an event: deliveries wait for its end, and come first there; timers and
// completions move by what the stall took; events of the world are not touched.
enum class EventKind : uint8_t { kTimer, kDelivery, kCompletion, kWorld };

struct EventInfo {
  absl::Time when;
  NodeId node = kNobody;
  const char* what = "";
};

struct RunLimits {
  std::function<bool()> until;  // looked at before every event; may be empty
  absl::Time deadline = absl::InfiniteFuture();
  uint64_t max_events = std::numeric_limits<uint64_t>::max();
};

// Why Run came back: the condition holds, the deadline came (the clock stands there), enough events
// ran, or nothing is left to do.
enum class RunEnd : uint8_t { kConditionHolds, kDeadline, kEventLimit, kIdle };
const char* ToString(RunEnd end);

class Scheduler {
 public:
  using EventId = uint64_t;  // never 0
  using Callback = std::function<void()>;

  absl::Time Now() const { return FromNanos(now_); }

  // Runs `callback` at `when`, or now if that has passed; never inline. At infinite future: never.
  // `what` must outlive the event (a literal).
  EventId At(absl::Time when, NodeId node, EventKind kind, const char* what, Callback callback);
  EventId After(absl::Duration delay, NodeId node, EventKind kind, const char* what,
                Callback callback);
  // Ignores 0 and events that have run.
  void Cancel(EventId id);
  // The event runs `delay` later than it would have. Ignores events that have run.
  void Postpone(EventId id, absl::Duration delay);
  // Forgets all pending events of `node`, and a stall.
  void DropNode(NodeId node);
  // ... and everyone's.
  void DropAll();
  // `node` runs nothing for `duration`.
  void Stall(NodeId node, absl::Duration duration);
  bool stalled(NodeId node) const;

  // The owner of the event that is running; kNobody outside Run.
  NodeId running() const { return running_; }
  uint64_t events_run() const { return events_run_; }
  size_t pending() const { return events_.size(); }

  // `before` sees each event just before it runs, `after` is called when it has, with
  // its owner.
  void SetObservers(std::function<void(const EventInfo&)> before,
                    std::function<void(NodeId)> after);

  RunEnd Run(const RunLimits& limits);

 private:
  struct Key {
    int64_t when;
    uint64_t id;
    bool operator>(const Key& other) const {
      return when != other.when ? when > other.when : id > other.id;
    }
  };
  struct Event {
    int64_t when = 0;
    NodeId node = kNobody;
    EventKind kind = EventKind::kWorld;
    const char* what = "";
    Callback callback;
  };

  static absl::Time FromNanos(int64_t nanos);
  static int64_t ToNanos(absl::Time time);
  // Moves the event to `when`; keys of its earlier times are skipped when they come up.
  void Rekey(uint64_t id, Event* event, int64_t when);
  // Drops keys without an event and puts back deliveries to stalled nodes; false if nothing is
  // left.
  bool FindNext(Key* next);
  void RunEvent(uint64_t id);

  int64_t now_ = 0;
  uint64_t last_id_ = 0;
  uint64_t events_run_ = 0;
  NodeId running_ = kNobody;
  std::priority_queue<Key, std::vector<Key>, std::greater<Key>> queue_;
  std::unordered_map<uint64_t, Event> events_;  // its order steers nothing
  std::unordered_map<uint32_t, int64_t> stalled_until_;
  std::function<void(const EventInfo&)> before_;
  std::function<void(NodeId)> after_;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SCHEDULER_H_
