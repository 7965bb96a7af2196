// Which state of a stage is the right one, from the hashes that its replicas report (invariant I2).
// Pure.
#ifndef STARLING_RUNTIME_TRAINER_STATE_JUDGE_H_
#define STARLING_RUNTIME_TRAINER_STATE_JUDGE_H_

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/base/ids.h"

namespace starling {

struct StateVerdict {
  std::optional<Hash128> right;    // none: they differ and no hash is in the majority
  std::vector<Incarnation> wrong;  // who reported another one; everyone where none is right
};

// `known`: the hash that was found right before for this version. Without one the majority counts.
// Empty while some of `members` have not reported, unless a hash is known: then those that have are
// judged.
std::optional<StateVerdict> JudgeStates(const std::optional<Hash128>& known,
                                        const std::map<Incarnation, Hash128>& reported,
                                        const std::set<Incarnation>& members);

// The value that most of these have; none if two share the most, or there are none.
std::optional<Hash128> MajorityOf(const std::vector<Hash128>& hashes);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_STATE_JUDGE_H_
