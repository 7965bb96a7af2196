// EventLoop: the reactor. One thread that waits for sockets, file descriptors, timers, signals and
// closures from other threads, and calls back for each.
//
//   EventLoop loop;
//   loop.Schedule(absl::Seconds(1), [&] { loop.Stop(); });
//   loop.Run();
//
// A turn of the loop: wait; run the posted closures; call back for what is readable, in the order
// it was added; run the timers that are due. Callbacks may add and remove anything, and destroy
// what they belong to.
//
// Threads: the thread that constructs it is the reactor thread; everything is called there, and
// every callback runs there, but Post() and Stop(), which any thread may call.
#ifndef STARLING_RUNTIME_REACTOR_EVENT_LOOP_H_
#define STARLING_RUNTIME_REACTOR_EVENT_LOOP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/base/rng.h"
#include "runtime/env/env.h"
#include "runtime/reactor/mailbox.h"
#include "runtime/reactor/poller.h"
#include "runtime/reactor/signal_pipe.h"

namespace starling {

class EventLoop final : public Env {
 public:
  enum class WatchId : uint64_t {};

  struct Options {
    size_t mailbox_bound = 65536;  // closures posted and not yet run
    std::optional<uint64_t> seed;  // of Random(); none: the system's entropy
    // A loop that comes to a due timer later than this has slept (it was stopped, or a callback
    // held it).
    absl::Duration slept_threshold = absl::Milliseconds(500);
    std::function<absl::Time()> clock;  // none: the system's monotonic clock
  };

  EventLoop() : EventLoop(Options()) {}
  explicit EventLoop(Options options);
  // Closures and timers that have not run are destroyed, each once.
  ~EventLoop() override;
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Env. Now() is taken before each callback and constant within it; outside of Run it is the
  // clock.
  absl::Time Now() const override;
  absl::Duration InThisCallback() const override;
  TimerId Schedule(absl::Duration delay, std::function<void()> callback) override;
  void Cancel(TimerId timer) override;
  uint64_t Random() override;

  // Runs `closure` on the reactor thread, in the order of the posts of one thread. Never blocks,
  // never inline. False, and the closure destroyed, if the mailbox is full or the loop is gone.
  bool Post(std::function<void()> closure);

  // Turns until Stop(). May be called again afterwards.
  void Run();
  // Turns until `done()`, which is asked between turns, or until `limit` has passed or Stop() was
  // called. Gives the last answer of `done`.
  bool RunUntil(const std::function<bool()>& done, absl::Duration limit);
  // Makes Run return after the callback that is running; a stop before Run makes it return at once.
  // What was readable or due stays so.
  void Stop();

  // Calls back in every turn in which the file descriptor (or the ZeroMQ socket) can be read. It
  // must stay open until it is removed, and be added once. Nothing may be sent on such a socket.
  WatchId AddReadable(int fd, std::function<void()> callback);
  WatchId AddReadableSocket(void* socket, std::function<void()> callback);
  void Remove(WatchId watch);

  // Calls back, between two other callbacks, when the process gets `signal`. The former disposition
  // comes back with the loop's end. Invalid argument: it cannot be caught, or is caught already.
  absl::Status AddSignal(int signal, std::function<void()> callback);

  // Called when the loop has slept past a timer by more than the threshold, with by how much; after
  // what the sockets held has been read, before any timer runs. Deadlines should move by that much:
  // while this peer slept, it could hear nobody.
  void SetSleptHandler(std::function<void(absl::Duration)> handler);

 private:
  struct Timer {
    TimerId id;
    std::function<void()> callback;
  };
  using TimerKey = std::pair<absl::Time, uint64_t>;  // due, order of scheduling

  void CheckThread() const;
  absl::Time NextDue() const;
  void Turn(absl::Time until);
  std::vector<WatchId> Poll(absl::Duration timeout);
  void Dispatch(const std::vector<WatchId>& ready);
  void RunPosted();
  void RunDueTimers();
  void WakeUpAfter(absl::Duration slept);
  void OnSignals();
  void Call(const std::function<void()>& callback);

  const Options options_;
  const std::thread::id thread_;
  Rng rng_;
  bool running_ = false;
  absl::Time now_;
  uint64_t next_sequence_ = 1;  // of timers and watches
  std::map<TimerKey, Timer> timers_;
  std::map<TimerId, TimerKey> timer_keys_;
  std::map<WatchId, std::shared_ptr<std::function<void()>>> watches_;
  std::function<void(absl::Duration)> slept_handler_;
  std::unique_ptr<SignalPipe> signals_;
  std::map<int, std::function<void()>> signal_callbacks_;
  std::deque<std::function<void()>> posted_;  // taken from the mailbox, not yet run

  // Shared with other threads.
  std::atomic<bool> stop_{false};
  Mailbox<std::function<void()>> mailbox_;
  Wakeup stop_wakeup_;

  Poller poller_;  // of the mailbox, of stops and of the watches
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_EVENT_LOOP_H_
