// The sum of squares of a gradient, the same bits on every machine.
#ifndef STARLING_SYNC_SQUARE_NORM_H_
#define STARLING_SYNC_SQUARE_NORM_H_

#include "absl/types/span.h"

namespace starling {

// The sum of the squares of `values` in fp64, in one written order: element i of the leading
// multiple of 8 is added to accumulator i mod 8, the accumulators are added in pairs, and the
// remaining elements one after another. A square of an fp32 is exact in fp64, so only the order of
// the additions matters, and it is fixed here.
//
// Over a gradient in parts, the square norm is that of each part, added in the order of the parts:
// it depends on how the run was cut, which the round's plan says.
double SquareNorm(absl::Span<const float> values);

}  // namespace starling

#endif  // STARLING_SYNC_SQUARE_NORM_H_
