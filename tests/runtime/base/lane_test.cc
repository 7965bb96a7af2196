#include "runtime/base/lane.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>

namespace starling {
namespace {

constexpr Step kStep{12};
constexpr StageId kStage{2};
constexpr uint32_t kMicrobatches = 16;

TEST(Lane, TotalIsTheSumOfTheTermsInAnyOrder) {
  uint64_t backwards = 0;
  for (uint32_t index = kMicrobatches; index-- > 0;) backwards += LaneTerm(kStep, index, kStage);
  EXPECT_EQ(backwards, LaneTotal(kStep, kStage, kMicrobatches));
  EXPECT_EQ(LaneTotal(kStep, kStage, 0), 0u);
}

TEST(Lane, CountingAnyMicrobatchTwiceOrNeverChangesTheTotal) {
  const uint64_t total = LaneTotal(kStep, kStage, kMicrobatches);
  for (uint32_t index = 0; index < kMicrobatches; ++index) {
    EXPECT_NE(total + LaneTerm(kStep, index, kStage), total) << "twice: " << index;
    EXPECT_NE(total - LaneTerm(kStep, index, kStage), total) << "never: " << index;
  }
}

TEST(Lane, OneCountedInAnothersPlaceChangesTheTotal) {
  const uint64_t total = LaneTotal(kStep, kStage, kMicrobatches);
  for (uint32_t lost = 0; lost < kMicrobatches; ++lost) {
    for (uint32_t twice = 0; twice < kMicrobatches; ++twice) {
      if (lost == twice) continue;
      EXPECT_NE(total - LaneTerm(kStep, lost, kStage) + LaneTerm(kStep, twice, kStage), total);
    }
  }
}

TEST(Lane, TermsOfOtherStepsAndStagesAreOthers) {
  std::set<uint64_t> seen;
  for (uint64_t step = 1; step <= 20; ++step) {
    for (uint32_t stage = 0; stage < 5; ++stage) {
      for (uint32_t index = 0; index < kMicrobatches; ++index) {
        EXPECT_TRUE(seen.insert(LaneTerm(Step{step}, index, StageId{stage})).second);
      }
    }
  }
}

TEST(Lane, WorkOfTheWrongStepOrStageChangesTheTotal) {
  const uint64_t total = LaneTotal(kStep, kStage, kMicrobatches);
  const uint64_t without = total - LaneTerm(kStep, 3, kStage);
  EXPECT_NE(without + LaneTerm(Next(kStep), 3, kStage), total);
  EXPECT_NE(without + LaneTerm(kStep, 3, Next(kStage)), total);
}

}  // namespace
}  // namespace starling
