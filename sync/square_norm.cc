#include "sync/square_norm.h"

#include <cstddef>

namespace starling {

double SquareNorm(absl::Span<const float> values) {
  constexpr size_t kLanes = 8;
  double sums[kLanes] = {};
  const size_t even = values.size() / kLanes * kLanes;
  for (size_t i = 0; i < even; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      sums[lane] += value * value;
    }
  }
  double total =
      ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  for (size_t i = even; i < values.size(); ++i) {
    const double value = values[i];
    total += value * value;
  }
  return total;
}

}  // namespace starling
