// What a restarted trainer can go on with: for each stage, who of those that reported serves at the
// newest decided version, or can come to it by finishing that decision.
//
// Pure. The newest decision was on disk before any Apply of it left, and before a decision every
// member held its whole result: so a replica is at the decided version, or one before it with the
// result in hand, or has missed something and loads. No other decision is ever taken for that step.
#ifndef STARLING_RUNTIME_TRAINER_RETURN_PLAN_H_
#define STARLING_RUNTIME_TRAINER_RETURN_PLAN_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/parameter_groups.h"
#include "runtime/wire/messages.h"

namespace starling {

// What a run has decided before this trainer, for going on from the replicas that hold it.
struct LiveState {
  Decision newest;                        // the newest step's record, in the newest era
  std::map<Incarnation, Member> members;  // after the newest record
  std::set<Incarnation> dead;             // members known to be gone
  uint64_t skipped = 0;                   // decided steps since the checkpoint that were skips
  bool reported = false;                  // the newest step is in metrics.jsonl
  // By stage: the hash of the newest version, where it is known. A replica with another one loads.
  std::map<StageId, Hash128> hashes;
};

// Who reported, and with what.
struct Returnee {
  Incarnation incarnation;
  StageId stage{0};
  std::optional<StateName> held;
  std::vector<HeldResult> results;
};

struct ReturnPlan {
  std::set<Incarnation> serve;     // at the decided version, or about to be
  uint32_t finish = 0;             // of them, those that have the decision still to apply
  std::optional<StageId> missing;  // a stage that nobody can serve: its state is lost
  std::string reason;              // why, in words
};

// Of replicas of a stage that hold different states of the decided version those with the known
// hash count, or else the majority; the others must load. Where neither tells who is right, nobody
// is. Who is to finish needs the results of all of `groups` that concern its stage.
ReturnPlan PlanReturn(const LiveState& live, uint32_t stages,
                      const std::vector<ParameterGroup>& groups,
                      const std::vector<Returnee>& returnees);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_RETURN_PLAN_H_
