#include "sync/square_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "runtime/base/rng.h"

namespace starling {
namespace {

std::vector<float> Numbers(size_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values;
  for (size_t i = 0; i < count; ++i) values.push_back(static_cast<float>(rng.Unit() - 0.5) * 3);
  return values;
}

// The order of the header, one addition at a time. `volatile` keeps the compiler from regrouping.
double InWrittenOrder(const std::vector<float>& values) {
  volatile double sums[8] = {};
  const size_t even = values.size() / 8 * 8;
  for (size_t i = 0; i < even; ++i) {
    sums[i % 8] = sums[i % 8] + static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  const double left = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  const double right = (sums[4] + sums[5]) + (sums[6] + sums[7]);
  volatile double total = left + right;
  for (size_t i = even; i < values.size(); ++i) {
    total = total + static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  return total;
}

TEST(SquareNormTest, AddsInTheWrittenOrderToTheBit) {
  for (size_t count = 0; count < 300; ++count) {
    const std::vector<float> values = Numbers(count, count);
    EXPECT_EQ(SquareNorm(values), InWrittenOrder(values)) << count;
  }
}

TEST(SquareNormTest, OrderIsVisibleInTheBits) {
  // A plain running sum gives other bits, so the test above would notice another order.
  const std::vector<float> values = Numbers(4096, 1);
  double running = 0;
  for (float value : values) running += static_cast<double>(value) * value;
  EXPECT_NE(SquareNorm(values), running);
  EXPECT_NEAR(SquareNorm(values), running, 1e-9 * running);
}

TEST(SquareNormTest, KeepsSmallAndLargeValuesAndShowsNonFiniteOnes) {
  EXPECT_EQ(SquareNorm({1e-30f}), static_cast<double>(1e-30f) * 1e-30f);
  EXPECT_EQ(SquareNorm({3e38f}), static_cast<double>(3e38f) * 3e38f);
  EXPECT_TRUE(std::isnan(SquareNorm({1.0f, std::numeric_limits<float>::quiet_NaN()})));
  EXPECT_TRUE(std::isinf(SquareNorm({std::numeric_limits<float>::infinity(), 1.0f})));
}

}  // namespace
}  // namespace starling
