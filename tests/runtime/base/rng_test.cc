#include "runtime/base/rng.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <vector>

namespace starling {
namespace {

// Data order, dropout and version 0 depend on these: other values would be another run.
TEST(Rng, Mix64IsSplitMix64) {
  // The first outputs of SplitMix64 seeded with 0.
  EXPECT_EQ(Mix64(0), 0xe220a8397b1dcdafULL);
  EXPECT_EQ(Mix64(0x9e3779b97f4a7c15ULL), 0x6e789e6aa1b965f4ULL);
}

TEST(Rng, MixAllDependsOnOrderAndCount) {
  EXPECT_NE(MixAll(1, 2), MixAll(2, 1));
  EXPECT_NE(MixAll(1, 2, 0), MixAll(1, 2));
  EXPECT_NE(MixAll(0, 1), MixAll(1, 0));
  EXPECT_EQ(MixAll(7), Mix64(7));
}

TEST(Rng, MixAllOfSmallKeysDoesNotCollide) {
  std::set<uint64_t> seen;
  for (uint64_t a = 0; a < 30; ++a) {
    for (uint64_t b = 0; b < 30; ++b) {
      for (uint64_t c = 0; c < 30; ++c) EXPECT_TRUE(seen.insert(MixAll(a, b, c)).second);
    }
  }
}

TEST(Rng, ToUnitStaysBelowOne) {
  EXPECT_EQ(ToUnit(0), 0.0);
  EXPECT_LT(ToUnit(~uint64_t{0}), 1.0);
  EXPECT_EQ(ToUnit(uint64_t{1} << 63), 0.5);
}

TEST(Rng, SameSeedGivesTheSameStreamAndAnotherSeedAnother) {
  Rng one(5);
  Rng same(5);
  Rng other(6);
  int equal_to_other = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t value = one.Next();
    EXPECT_EQ(value, same.Next());
    equal_to_other += value == other.Next();
  }
  EXPECT_EQ(equal_to_other, 0);
}

TEST(Rng, StreamsOfNeighbouringSeedsShareNoValues) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Rng rng(seed);
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(seen.insert(rng.Next()).second) << "seed " << seed << " draw " << i;
    }
  }
}

TEST(Rng, BelowIsUniformAndInRange) {
  Rng rng(1);
  std::vector<int> counts(10);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t value = rng.Below(10);
    ASSERT_LT(value, 10u);
    ++counts[value];
  }
  // Standard deviation of each count is 30.
  for (const int count : counts) EXPECT_NEAR(count, 1000, 180);
  EXPECT_EQ(rng.Below(0), 0u);
  EXPECT_EQ(rng.Below(1), 0u);
}

TEST(Rng, UnitHasTheMeanAndVarianceOfAUniform) {
  Rng rng(2);
  double sum = 0;
  double squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double value = rng.Unit();
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.012);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 0.012);
}

TEST(Rng, ChanceOfZeroNeverAndOfOneAlways) {
  Rng rng(3);
  int hits = 0;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(rng.Chance(0));
    EXPECT_TRUE(rng.Chance(1));
    hits += rng.Chance(0.25);
  }
  EXPECT_NEAR(hits, 250, 85);
}

}  // namespace
}  // namespace starling
