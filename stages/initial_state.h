// Version 0 of a stage's state, from our own counter-based generator.
//
// Every element is a pure function of (seed, tensor name, place in the tensor), so a model starts
// from the same numbers however it is cut. Logarithm and cosine come from the C library and are
// rounded to fp32 afterwards; still, one process makes version 0 for everyone, and the others get
// its bytes.
#ifndef STARLING_STAGES_INITIAL_STATE_H_
#define STARLING_STAGES_INITIAL_STATE_H_

#include <cstdint>

#include "runtime/base/blob.h"
#include "runtime/base/layout.h"

namespace starling {

// f32 [kStatePlanes * layout.size]: parameters, then both moments, which are zero, as are all gaps.
Blob InitialState(const StageLayout& layout, uint64_t seed);

}  // namespace starling

#endif  // STARLING_STAGES_INITIAL_STATE_H_
