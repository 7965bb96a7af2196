#include "stages/dropout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace starling {
namespace {

constexpr int64_t kElements = 4096;

DropoutKey Key(uint64_t first_sequence) {
  DropoutKey key;
  key.seed = 9;
  key.step = Step{4};
  key.first_sequence = first_sequence;
  key.layer = 2;
  key.site = DropoutSite::kMlp;
  return key;
}

std::vector<float> Mask(const DropoutKey& key, int64_t sequences, double probability = 0.25) {
  std::vector<float> mask(static_cast<size_t>(sequences * kElements));
  FillDropoutMask(key, probability, kElements, absl::MakeSpan(mask));
  return mask;
}

TEST(DropoutTest, MaskDoesNotDependOnTheCutIntoMicrobatches) {
  const std::vector<float> whole = Mask(Key(10), 3);
  for (int64_t sequence = 0; sequence < 3; ++sequence) {
    const std::vector<float> one = Mask(Key(10 + static_cast<uint64_t>(sequence)), 1);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), whole.begin() + sequence * kElements));
  }
}

TEST(DropoutTest, EveryPartOfTheKeyMatters) {
  const std::vector<float> mask = Mask(Key(0), 1);
  DropoutKey other = Key(0);
  other.seed = 10;
  EXPECT_NE(mask, Mask(other, 1));
  other = Key(0);
  other.step = Step{5};
  EXPECT_NE(mask, Mask(other, 1));
  other = Key(1);
  EXPECT_NE(mask, Mask(other, 1));
  other = Key(0);
  other.layer = 3;
  EXPECT_NE(mask, Mask(other, 1));
  other = Key(0);
  other.site = DropoutSite::kAttention;
  EXPECT_NE(mask, Mask(other, 1));
}

TEST(DropoutTest, DropsTheShareAskedForAndScalesTheRest) {
  const std::vector<float> mask = Mask(Key(0), 16);
  double dropped = 0;
  for (float value : mask) {
    ASSERT_TRUE(value == 0.0f || value == static_cast<float>(1 / 0.75));
    dropped += value == 0.0f;
  }
  const double n = static_cast<double>(mask.size());
  EXPECT_NEAR(dropped / n, 0.25, 5 * std::sqrt(0.25 * 0.75 / n));
}

TEST(DropoutTest, ProbabilityZeroKeepsEverything) {
  for (float value : Mask(Key(0), 1, 0.0)) ASSERT_EQ(value, 1.0f);
}

}  // namespace
}  // namespace starling
