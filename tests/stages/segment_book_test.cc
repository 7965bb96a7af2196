#include "stages/segment_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr StageId kStage{2};
constexpr Step kStep{5};
constexpr SegmentId kMain{0};
constexpr SegmentId kLate{1};

SegmentEntry Entry(uint32_t index, uint32_t attempt = 0) {
  SegmentEntry entry;
  entry.index = index;
  entry.attempt = AttemptId{Incarnation{Epoch{1}, 0}, attempt};
  return entry;
}

class SegmentBookTest : public ::testing::Test {
 protected:
  absl::Status Add(SegmentId segment, const SegmentEntry& entry, int amount = 1) {
    return book_.Add(kStep, segment, entry, [amount](int& sum) {
      sum += amount;
      return absl::OkStatus();
    });
  }

  SegmentBook<int> book_{kStage, [] { return 0; }};
};

TEST_F(SegmentBookTest, ListLaneAndSumGrowTogether) {
  ASSERT_TRUE(Add(kMain, Entry(3), 10).ok());
  ASSERT_TRUE(Add(kMain, Entry(1), 20).ok());
  const auto summaries = book_.Seal(kStep);
  ASSERT_EQ(summaries.size(), 1u);
  EXPECT_EQ(summaries[0].id, kMain);
  EXPECT_THAT(summaries[0].entries, ElementsAre(Entry(3), Entry(1)));
  EXPECT_EQ(summaries[0].lane, LaneTerm(kStep, 3, kStage) + LaneTerm(kStep, 1, kStage));
  EXPECT_EQ(summaries[0].list_hash, ListHash({Entry(3), Entry(1)}));
  EXPECT_FALSE(summaries[0].spoiled);
  const auto frozen = book_.Frozen(kStep, {kMain});
  ASSERT_TRUE(frozen.ok());
  EXPECT_EQ((*frozen)[0]->sum, 30);
}

TEST_F(SegmentBookTest, SealedSegmentRefusesLateWorkAndANewOneTakesIt) {
  ASSERT_TRUE(Add(kMain, Entry(0)).ok());
  book_.Seal(kStep);
  EXPECT_EQ(Add(kMain, Entry(1)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Add(kLate, Entry(1)).ok());
  EXPECT_TRUE(book_.IsFrozen(kStep, kMain));
  EXPECT_FALSE(book_.IsFrozen(kStep, kLate));
  const auto again = book_.Seal(kStep);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_THAT(again[0].entries, ElementsAre(Entry(0)));
  EXPECT_THAT(again[1].entries, ElementsAre(Entry(1)));
}

TEST_F(SegmentBookTest, FailedAdditionSpoilsTheSegmentAndIsNotListed) {
  ASSERT_TRUE(Add(kMain, Entry(0)).ok());
  const absl::Status failed = book_.Add(kStep, kMain, Entry(1), [](int& sum) {
    sum += 1;
    return absl::InternalError("broke half-way");
  });
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  const auto summaries = book_.Seal(kStep);
  EXPECT_TRUE(summaries[0].spoiled);
  EXPECT_THAT(summaries[0].entries, ElementsAre(Entry(0)));
}

TEST_F(SegmentBookTest, OnlySealedSegmentsCanBeRead) {
  ASSERT_TRUE(Add(kMain, Entry(0)).ok());
  EXPECT_EQ(book_.Frozen(kStep, {kMain}).status().code(), absl::StatusCode::kFailedPrecondition);
  book_.Seal(kStep);
  EXPECT_EQ(book_.Frozen(kStep, {kLate}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(book_.Frozen(kStep, {}).ok());
}

TEST_F(SegmentBookTest, FreeingForgetsEarlierStepsOnly) {
  ASSERT_TRUE(Add(kMain, Entry(0)).ok());
  auto add = [](int&) { return absl::OkStatus(); };
  ASSERT_TRUE(book_.Add(Next(kStep), kMain, Entry(4), add).ok());
  book_.FreeThrough(kStep);
  EXPECT_THAT(book_.Seal(kStep), IsEmpty());
  EXPECT_EQ(book_.Seal(Next(kStep)).size(), 1u);
}

TEST(ListHashTest, DependsOnOrderIndexAndAttemptButNotOnLoss) {
  const Hash128 hash = ListHash({Entry(1), Entry(2)});
  EXPECT_NE(hash, ListHash({Entry(2), Entry(1)}));
  EXPECT_NE(hash, ListHash({Entry(1), Entry(2, 1)}));
  EXPECT_NE(hash, ListHash({Entry(1)}));
  SegmentEntry with_loss = Entry(1);
  with_loss.loss_sum = 3.0;
  EXPECT_EQ(hash, ListHash({with_loss, Entry(2)}));
}

}  // namespace
}  // namespace starling
