// PlanRepair: how the path of one microbatch is mended, from what the live replicas say they hold.
//
// Forward is a pure function, so any live holder of the microbatch at a stage will do, whatever
// attempt it holds: one that kept its output can send it on again, one that keeps its gradient (or
// will have it) can be claimed from. The plan runs again, in stretches of consecutive stages, what
// no live replica has added or will add:
//
//   stage        0        1        2        3
//   held by      u        dead     d        e        u: output kept, waits for its gradient
//   plan                  [1, 2)                     from u, until d
//
// Where a log lacks what is needed, the stretch grows, up or down, by stages that only pass it
// through; with nothing kept at all it is the whole pipeline, begun by the trainer.
//
// Pure. It looks at one microbatch of a step; attempts are as the trainer issued them.
#ifndef STARLING_RUNTIME_TRAINER_PATH_REPAIR_H_
#define STARLING_RUNTIME_TRAINER_PATH_REPAIR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "runtime/wire/messages.h"

namespace starling {

// One attempt: to be computed at the stages [begin, end).
struct IssuedAttempt {
  AttemptId id;
  uint32_t begin = 0;
  uint32_t end = 0;
  std::vector<bool> adds;            // per stage
  std::optional<Splice> until;       // whose gradient the stage before `end` claims; else it is the
                                     // last
  std::optional<Incarnation> first;  // whom the trainer sent it to, if it did
  bool contested = false;
  bool landed = false;              // an answer has shown it where it begins
  uint32_t reached = 0;             // a replica of this stage has accepted it, as far as known
  bool begun = false;               // `reached` means something
  std::set<Incarnation> cancelled;  // holders that were told to forget it
  std::set<uint32_t> voided;        // stages whose addition does not count
  std::set<uint32_t> lost;          // stages already found lost
};

// A live replica's work at a stage.
struct Holding {
  Incarnation holder;
  uint32_t stage = 0;
  const HeldWork* work = nullptr;
};

// Who is alive, and who is not to be counted on. A replica in none of these is gone.
struct Liveness {
  std::map<Incarnation, uint32_t> answered;  // its stage
  std::vector<bool> noted;        // per stage: one that may be alive has said that it added it
  std::vector<bool> contested;    // per stage: someone replaced there may be alive
  std::set<Incarnation> doubted;  // so slow with this microbatch that others were asked to do it
  // Only asked about slow work:
  bool impatient = false;                  // what could have gone on by now and did not, will not
  std::set<Incarnation> stuck;             // answered, but get nothing done
  std::map<Incarnation, uint32_t> silent;  // did not answer; its stage
  bool again = false;                      // the gentlest way was tried
};

// A stretch to be computed again, [begin, end); empty: only a gradient to be claimed.
struct Stretch {
  std::optional<Holding> from;  // who sends its output on again; none: the trainer
  uint32_t begin = 0;
  uint32_t end = 0;
  std::vector<StageId> add_at;  // where it is added
  std::optional<Splice> until;  // none: to the last stage
  // Impatient: who may be alive and do the same.
  std::set<Incarnation> rivals;
};

struct RepairPlan {
  std::vector<Stretch> stretches;
  std::vector<Holding> cancels;  // wait for what never comes
  std::vector<Holding> avoided;  // impatient: what the stretches are to do in the place of these
  uint32_t lost_pairs = 0;       // stages whose work was begun by replicas that are gone
  // Someone was not yet where it matters when it answered: nothing is planned, ask everyone again.
  // (Nothing is planned either where a claim on its way is going to be refused: who makes it will
  // say so.)
  bool unclear = false;
  // Impatient: no replica could do better.
  bool hopeless = false;
};

// `attempts` in the order of issue; what is learnt of them (landed, reached, cancelled, lost) is
// written down.
RepairPlan PlanRepair(uint32_t stages, const std::vector<Holding>& holdings,
                      const Liveness& liveness, std::vector<IssuedAttempt>* attempts);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_PATH_REPAIR_H_
