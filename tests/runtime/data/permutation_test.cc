#include "runtime/data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace starling {
namespace {

TEST(Permutation, EveryNumberComesOnce) {
  for (uint64_t size : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097}) {
    for (uint64_t key : {0, 1, 99}) {
      const Permutation permutation(size, key);
      std::vector<int> seen(size, 0);
      for (uint64_t place = 0; place < size; ++place) {
        const uint64_t value = permutation.At(place);
        ASSERT_LT(value, size);
        ++seen[value];
      }
      for (uint64_t value = 0; value < size; ++value) EXPECT_EQ(seen[value], 1) << size;
    }
  }
}

TEST(Permutation, AnotherKeyGivesAnotherOrder) {
  const Permutation a(1000, 1);
  const Permutation b(1000, 2);
  int equal = 0;
  for (uint64_t place = 0; place < 1000; ++place) equal += a.At(place) == b.At(place) ? 1 : 0;
  EXPECT_LT(equal, 20);  // one is expected by chance
}

// Neighbours must not stay neighbours, nor the order rise: a batch must be spread over the text.
TEST(Permutation, OrderLooksRandom) {
  const uint64_t size = 10007;
  const Permutation permutation(size, 5);
  uint64_t rises = 0;
  double distance = 0;
  for (uint64_t place = 1; place < size; ++place) {
    const auto a = static_cast<double>(permutation.At(place - 1));
    const auto b = static_cast<double>(permutation.At(place));
    rises += b > a ? 1 : 0;
    distance += std::abs(a - b);
  }
  EXPECT_NEAR(static_cast<double>(rises) / size, 0.5, 0.03);
  EXPECT_NEAR(distance / size / size, 1.0 / 3, 0.02);
}

TEST(Permutation, LargeRangesWork) {
  const uint64_t size = (uint64_t{1} << 61) + 12345;
  const Permutation permutation(size, 7);
  EXPECT_LT(permutation.At(size - 1), size);
  EXPECT_NE(permutation.At(0), permutation.At(1));
}

// Resumed runs rely on the order: it must not change between builds.
TEST(Permutation, OrderIsFixedForever) {
  const Permutation permutation(10, 42);
  std::vector<uint64_t> order;
  for (uint64_t place = 0; place < 10; ++place) order.push_back(permutation.At(place));
  EXPECT_EQ(order, (std::vector<uint64_t>{4, 5, 1, 2, 8, 3, 6, 7, 9, 0}));
}

}  // namespace
}  // namespace starling
