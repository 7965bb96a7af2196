// Deadlines: which work is overdue, and why. What is asked of replicas is begun and ended here;
// from how long each kind of work took at each replica it learns how long it may take.
//
//   deadlines.Begin({TaskKind::kForward, stage, replica, index}, now);
//   deadlines.End({TaskKind::kForward, stage, replica, index}, now);     // it is done: learns
//   for (const auto& late : deadlines.Overdue(now)) ...                  // ask, retry, fence
//
// The limit is median plus k deviations of this replica's own durations of that kind. Until it has
// done enough of them, it is twice the limit that all replicas of the stage together have, since
// this one may be slower; and until those are enough, the most allowed. Limits follow what is
// learnt while work is open.
//
// Nothing happens by itself: a verdict is a hint with a reason, the caller decides. A loop that
// slept must Extend before it asks.
//
// Sans-I/O; one thread. Iteration is in the order of tasks. Cost: O(log) to begin and end, linear
// in what is open for Overdue, NextDue and Extend.
#ifndef STARLING_RUNTIME_MEMBERSHIP_DEADLINES_H_
#define STARLING_RUNTIME_MEMBERSHIP_DEADLINES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/ids.h"
#include "runtime/base/learned_duration.h"

namespace starling {

enum class TaskKind : uint8_t { kForward, kBackward, kSeal, kReduce, kApply, kLoad };
const char* ToString(TaskKind kind);  // "forward", ...

struct Task {
  TaskKind kind = TaskKind::kForward;
  StageId stage{0};
  Incarnation replica;
  uint64_t item = 0;  // the microbatch's index for forward and backward; else a number of choice

  friend bool operator<(const Task& a, const Task& b) {
    return std::tie(a.kind, a.stage, a.replica, a.item) <
           std::tie(b.kind, b.stage, b.replica, b.item);
  }
  friend bool operator==(const Task& a, const Task& b) {
    return std::tie(a.kind, a.stage, a.replica, a.item) ==
           std::tie(b.kind, b.stage, b.replica, b.item);
  }
};

class Deadlines {
 public:
  struct Options {
    LimitBounds bounds{absl::Seconds(1), absl::Seconds(60), 8, 5};
    // While a stage still learns, and for a replica that did too little to be known.
    double unknown_factor = 2;
  };
  struct Late {
    Task task;
    absl::Duration waited;
    absl::Duration limit;
    // "microbatch 3 is overdue at stage 1: forward for 6.2 s at replica 1.4, which takes 0.9 s; the
    // stage takes 0.8 s (limit 2.7 s: median 0.9 s + 8 deviations)"
    std::string reason;
  };

  explicit Deadlines(Options options) : options_(options) {}

  // `task` is open from now on. One that is open already keeps its time.
  void Begin(const Task& task, absl::Time now);
  // It is done: what it took is learnt. Ignores one that is not open.
  void End(const Task& task, absl::Time now);
  // It is no longer wanted. That it was not done in that time is learnt about the replica, if it is
  // longer than usual: work that is always called off must not stay "overdue" by an old measure.
  void CallOff(const Task& task, absl::Time now);
  // Calls off all tasks, of every replica (a step ended, an era began), without learning anything.
  void Clear() { open_.clear(); }

  // The replica is gone: its tasks, and what was learnt about it, are forgotten. What its stage
  // learnt from it stays.
  void Forget(Incarnation replica);
  // All open work was begun that much later.
  void Extend(absl::Duration duration);

  // All open work beyond its limit, again and again until it ends.
  std::vector<Late> Overdue(absl::Time now) const;
  // When the next open work will be overdue, as known now; infinite future if none is open. May be
  // in the past.
  absl::Time NextDue() const;

  absl::Duration Limit(const Task& task) const;
  size_t open() const { return open_.size(); }

 private:
  using ReplicaKey = std::pair<Incarnation, TaskKind>;
  using StageKey = std::pair<StageId, TaskKind>;
  struct Known {
    LearnedDuration durations;
    absl::Duration limit;  // of `durations`, kept so that it is worked out once
  };

  LearnedLimit LimitWithReason(const Task& task) const;
  std::string Reason(const Task& task, absl::Duration waited) const;
  void Learn(Known* known, absl::Duration took);

  const Options options_;
  std::map<Task, absl::Time> open_;  // since when; moved forward by Extend
  std::map<ReplicaKey, Known> replicas_;
  std::map<StageKey, Known> stages_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_MEMBERSHIP_DEADLINES_H_
