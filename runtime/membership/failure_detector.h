// FailureDetector: who has been silent for too long. Sans-I/O: it is told what was heard and the
// time, and judges nobody by itself.
//
//   detector.OnHeard(sender, env->Now());                 // for every message of a current member
//   for (const auto& suspect : detector.Overdue(env->Now())) Fence(suspect.incarnation,
//   suspect.reason);
//
// The limit is each one's own: from its longest silence in each period of a heartbeat it learns how
// regular that one is, and allows the median plus k deviations, within bounds. A short silence
// between the many messages of a busy step teaches nothing: between them only heartbeats are
// promised, so the least limit is a number of heartbeats.
//
// A loop that slept (the process was stopped, the machine swapped) must first read its sockets, and
// Extend the deadlines by what it slept, before it asks for suspects: the silence was its own. A
// lost connection is no matter of time: whoever sees it need not ask here.
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
#include "runtime/base/learned_duration.h"

namespace starling {

class FailureDetector {
 public:
  struct Options {
    absl::Duration dead_after = absl::Seconds(20);  // of silence, at most
    absl::Duration heartbeat = absl::Seconds(1);    // the pause between heartbeats
    int least_heartbeats = 4;  // missed, before anyone is suspected; unless dead_after is less
    double deviations = 8;     // above the median
    size_t enough = 8;         // heartbeats heard before what was learnt counts
  };
  struct Suspect {
    Incarnation incarnation;
    absl::Duration silence;
    // "silent for 6.4 s; usually heard every 1.2 s (limit 5.8 s: median 1.2 s + 8 deviations)"
    std::string reason;
  };

  explicit FailureDetector(Options options) : options_(options) {}

  // Begins to watch `incarnation`, or notes a sign of life. Only for current members: a late
  // message of a forgotten one would bring it back.
  void OnHeard(Incarnation incarnation, absl::Time now);

  // Stops watching (fenced, left). Ignores one it does not watch.
  void Forget(Incarnation incarnation);

  // Everyone gets `duration` more before they are overdue, and learns nothing from it.
  void Extend(absl::Duration duration);

  // All who are overdue, again and again until heard or forgotten.
  std::vector<Suspect> Overdue(absl::Time now) const;

  // How long `incarnation` may be silent; the most allowed for one that is not watched.
  absl::Duration Limit(Incarnation incarnation) const;

  size_t watched() const { return watched_.size(); }

 private:
  struct Watched {
    absl::Time heard;                // moved forward by Extend
    absl::Time period_began;         // as well
    absl::Duration longest_silence;  // in this period
    LearnedDuration silences;        // the longest one of each period
  };

  LimitBounds bounds() const;

  const Options options_;
  std::map<Incarnation, Watched> watched_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_MEMBERSHIP_FAILURE_DETECTOR_H_
