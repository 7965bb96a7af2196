// FailureDetector: who has been silent for too long. Sans-I/O: it is told what was heard and the
// time, and judges nobody by itself.
//
//   detector.OnHeard(sender, env->Now());                 // for every message of a current member
//   for (const auto& suspect : detector.Overdue(env->Now())) Fence(suspect.incarnation,
//   suspect.reason);
//
// A loop that slept (the process was stopped, the machine swapped) must first read its sockets, and
// Extend the deadlines by what it slept, before it asks for suspects: the silence was its own.
//
// Threads: one. Iteration is in the order of incarnations.
#ifndef STARLING_RUNTIME_MEMBERSHIP_FAILURE_DETECTOR_H_
#define STARLING_RUNTIME_MEMBERSHIP_FAILURE_DETECTOR_H_

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/ids.h"

namespace starling {

class FailureDetector {
 public:
  struct Options {
    absl::Duration dead_after = absl::Seconds(20);  // of silence
  };
  struct Suspect {
    Incarnation incarnation;
    std::string reason;  // "no heartbeat for 20.3 s (limit 20 s)"
  };

  explicit FailureDetector(Options options) : options_(options) {}

  // Begins to watch `incarnation`, or notes a sign of life. Only for current members: a late
  // message of a forgotten one would bring it back.
  void OnHeard(Incarnation incarnation, absl::Time now);

  // Stops watching (fenced, left). Ignores one it does not watch.
  void Forget(Incarnation incarnation);

  // Everyone gets `duration` more before they are overdue.
  void Extend(absl::Duration duration);

  // All who are overdue, again and again until heard or forgotten.
  std::vector<Suspect> Overdue(absl::Time now) const;

  size_t watched() const { return heard_.size(); }

 private:
  // How long `incarnation` may be silent. One limit for all; a limit learnt from each one's
  // heartbeats belongs here.
  absl::Duration Limit(Incarnation incarnation) const;

  const Options options_;
  std::map<Incarnation, absl::Time> heard_;  // moved forward by Extend
};

}  // namespace starling

#endif  // STARLING_RUNTIME_MEMBERSHIP_FAILURE_DETECTOR_H_
