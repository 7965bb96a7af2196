#include "runtime/base/ids.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace starling {
namespace {

// The point of strong ids: a number or another id is not taken for one.
static_assert(!std::is_convertible_v<StageId, uint32_t>);
static_assert(!std::is_convertible_v<uint32_t, StageId>);
static_assert(!std::is_convertible_v<Step, Version>);

// Expects `sorted` to be strictly ascending, and equality and inequality to agree with that.
template <typename T>
void ExpectStrictOrder(const std::vector<T>& sorted) {
  for (size_t i = 0; i < sorted.size(); ++i) {
    for (size_t j = 0; j < sorted.size(); ++j) {
      EXPECT_EQ(sorted[i] < sorted[j], i < j) << i << " " << j;
      EXPECT_EQ(sorted[i] == sorted[j], i == j) << i << " " << j;
      EXPECT_EQ(sorted[i] != sorted[j], i != j) << i << " " << j;
    }
  }
}

TEST(Ids, ValueAndNext) {
  EXPECT_EQ(Value(StageId{3}), 3u);
  EXPECT_EQ(Next(Step{41}), Step{42});
  EXPECT_LT(Epoch{1}, Next(Epoch{1}));
}

TEST(Ids, StepTakesTheVersionBeforeToTheVersionAfter) {
  EXPECT_EQ(VersionBefore(Step{1}), Version{0});
  EXPECT_EQ(VersionAfter(Step{1}), Version{1});
  EXPECT_EQ(VersionBefore(Next(Step{7})), VersionAfter(Step{7}));
}

TEST(Ids, IncarnationsOrderByEpochThenCounter) {
  ExpectStrictOrder<Incarnation>({{Epoch{1}, 0}, {Epoch{1}, 9}, {Epoch{2}, 0}, {Epoch{2}, 1}});
}

TEST(Ids, AttemptsOrderByIssuerThenCounter) {
  ExpectStrictOrder<AttemptId>(
      {{{Epoch{1}, 1}, 5}, {{Epoch{1}, 1}, 6}, {{Epoch{1}, 2}, 0}, {{Epoch{2}, 0}, 0}});
}

TEST(Ids, MicrobatchesOrderByStepThenKindThenIndex) {
  ExpectStrictOrder<MicrobatchId>({{Step{1}, WorkKind::kTrain, 8},
                                   {Step{1}, WorkKind::kEvaluate, 0},
                                   {Step{2}, WorkKind::kTrain, 0},
                                   {Step{2}, WorkKind::kTrain, 1}});
}

TEST(Ids, WorkOrdersByMicrobatchThenAttempt) {
  const MicrobatchId first{Step{1}, WorkKind::kTrain, 0};
  const MicrobatchId second{Step{1}, WorkKind::kTrain, 1};
  const AttemptId early{{Epoch{1}, 0}, 1};
  const AttemptId late{{Epoch{1}, 0}, 2};
  ExpectStrictOrder<WorkId>({{first, early}, {first, late}, {second, early}});
}

TEST(Ids, Text) {
  EXPECT_EQ(ToString(PeerId{0xab}), "00000000000000ab");
  EXPECT_EQ(ToString(StageId{7}), "7");
  EXPECT_EQ(ToString(Incarnation{Epoch{2}, 13}), "2.13");
  EXPECT_EQ(ToString(AttemptId{{Epoch{2}, 13}, 4}), "2.13#4");
  EXPECT_EQ(ToString(MicrobatchId{Step{12}, WorkKind::kTrain, 3}), "step 12 microbatch 3");
  EXPECT_EQ(ToString(MicrobatchId{Step{12}, WorkKind::kEvaluate, 3}), "step 12 evaluation 3");
  EXPECT_EQ(ToString(WorkId{{Step{12}, WorkKind::kTrain, 3}, {{Epoch{1}, 0}, 7}}),
            "step 12 microbatch 3 try 1.0#7");
}

}  // namespace
}  // namespace starling
