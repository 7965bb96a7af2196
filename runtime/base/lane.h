// The integer lane: a checksum of *what was added*, carried with every gradient sum.
//
// Beside each segment's gradient travels the sum mod 2^64 of LaneTerm(step, index, stage) over the
// microbatches in it, added in the same statement as the gradient. The total over a round must be
// LaneTotal(step, stage, microbatches): a microbatch counted twice or never changes it.
#ifndef STARLING_RUNTIME_BASE_LANE_H_
#define STARLING_RUNTIME_BASE_LANE_H_

#include <cstdint>

#include "runtime/base/ids.h"
#include "runtime/base/rng.h"

namespace starling {

constexpr uint64_t LaneTerm(Step step, uint32_t index, StageId stage) {
  return MixAll(0x6c616e65ULL, Value(step), index, Value(stage));
}

constexpr uint64_t LaneTotal(Step step, StageId stage, uint32_t microbatches) {
  uint64_t total = 0;
  for (uint32_t index = 0; index < microbatches; ++index) total += LaneTerm(step, index, stage);
  return total;
}

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_LANE_H_
