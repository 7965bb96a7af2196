// Journal: the truth about a virtual run, written where it happens, whatever the processes believe.
//
// It knows which replica really added which microbatch to which segment, and every state a replica
// really had. Checkers compare decisions and answers with it. Nothing in it steers the run.
#ifndef STARLING_TESTS_SIM_JOURNAL_H_
#define STARLING_TESTS_SIM_JOURNAL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "tests/sim/scheduler.h"

namespace starling::sim {

// Whose numbers: a life of a node, and which of the executors it made.
struct ReplicaName {
  NodeId node = kNobody;
  uint32_t life = 0;
  uint32_t executor = 0;
  StageId stage{0};

  friend bool operator==(const ReplicaName& a, const ReplicaName& b) {
    return a.node == b.node && a.life == b.life && a.executor == b.executor && a.stage == b.stage;
  }
};
std::string ToString(const ReplicaName& name);

// One gradient added to a segment. A load begins new segments: `load` counts them.
struct Addition {
  ReplicaName replica;
  uint32_t load = 0;
  Step step{0};
  SegmentId segment{0};
  uint32_t index = 0;
  AttemptId attempt;
  int times = 1;         // how often it is really in the sum; 1 unless a mistake was planted
  uint64_t digest = 0;   // what was added; the same for all who computed it right
  uint32_t updates = 0;  // of the parameters it was computed on
  absl::Time when;
};

// A state a replica has come to.
struct StateSeen {
  ReplicaName replica;
  bool loaded = false;   // else by an update
  uint32_t updates = 0;  // since version 0
  Hash128 hash;          // of everything, as the replica reports it
  Hash128 tensors;       // of what does not depend on the order of additions
  Hash128 tied;          // of what the stage shares with others
  Hash128 gradient;      // of the sum that an update applied, as one run of bytes
  absl::Time when;
};

class Journal {
 public:
  void Record(Addition addition);
  void Record(StateSeen state);
  // The replica has forgotten its segments of the steps up to `through`.
  void Freed(const ReplicaName& replica, Step through);
  // It is the newest executor of its process: those before it are gone with their segments.
  void Replaced(const ReplicaName& newest);

  const std::vector<Addition>& additions() const { return additions_; }
  const std::vector<StateSeen>& states() const { return states_; }

  // What is really in one segment, in order of addition.
  std::vector<Addition> InSegment(const ReplicaName& replica, uint32_t load, Step step,
                                  SegmentId segment) const;
  std::vector<Addition> Of(Step step, StageId stage) const;
  // Keeps memory bounded in long runs.
  void ForgetThrough(Step step);
  void ForgetStatesBefore(uint32_t updates);

 private:
  std::vector<Addition> additions_;
  std::vector<StateSeen> states_;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_JOURNAL_H_
