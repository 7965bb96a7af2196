// Parameter groups: what one round of a step sums, and whose replicas take part in it.
//
// Group s, for each stage s, is that stage's own parameters. After them come the ties: parameters
// that several stages hold a copy of (GPT-2's embedding, which is also its head). The gradient of a
// tie is the sum over all of its stages; every replica of each takes part in its round and applies
// the same result to its copy, so the copies keep the same bits (docs/decisions/0028).
#ifndef STARLING_RUNTIME_BASE_PARAMETER_GROUPS_H_
#define STARLING_RUNTIME_BASE_PARAMETER_GROUPS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/layout.h"

namespace starling {

struct ParameterGroup {
  std::vector<StageId> stages;  // in their order
  int64_t size = 0;             // elements of the group's run
};

// All groups of a model that is cut like this, by their numbers. The stages of a tie must hold the
// same tensors in it, and exactly one of them must be the one that stores each: else it aborts.
std::vector<ParameterGroup> ParameterGroups(const std::vector<StageLayout>& layouts);

// The part of a stage's flat run that belongs to a group: elements [begin, begin + count) are the
// group's run.
struct GroupRange {
  uint32_t group = 0;
  int64_t begin = 0;
  int64_t count = 0;
};

// Consecutive, covering the run of `stage`, which is one of `stages`.
std::vector<GroupRange> GroupRangesOf(const StageLayout& layout, StageId stage, uint32_t stages);

bool Concerns(const ParameterGroup& group, StageId stage);

// "stage 1", "the tie of stages 0 and 2".
std::string ToString(const ParameterGroup& group);

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_PARAMETER_GROUPS_H_
