#include "sync/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace starling {
namespace {

using ::testing::HasSubstr;

Incarnation Inc(uint32_t counter) { return {Epoch{1}, counter}; }

RoundPlan GoodPlan() {
  RoundPlan plan;
  plan.id = {Epoch{1}, Step{3}, 0, 1};
  plan.members = {{Inc(1), {{SegmentId{0}, {}}}}, {Inc(2), {{SegmentId{0}, {}}}}, {Inc(3), {}}};
  plan.parts = EqualParts(100, 3);
  return plan;
}

void ExpectRefused(const RoundPlan& plan, const char* why, int64_t size = 100,
                   Incarnation self = Inc(2)) {
  const absl::Status status = CheckPlan(plan, size, self);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

TEST(EqualPartsTest, CoverTheRunInAlignedPartsThatDifferByOneBlockAtMost) {
  for (int64_t size : {1, 15, 16, 17, 32, 100, 160, 1000, 4099}) {
    for (uint32_t owners : {1u, 2u, 3u, 5u, 64u}) {
      const std::vector<RoundPart> parts = EqualParts(size, owners);
      int64_t next = 0;
      for (size_t i = 0; i < parts.size(); ++i) {
        EXPECT_EQ(parts[i].begin, next);
        EXPECT_EQ(parts[i].owner, i);  // one each, as small as they are
        EXPECT_GT(parts[i].count, 0);
        if (i + 1 < parts.size()) {
          EXPECT_EQ(parts[i].count % kPartAlignment, 0);
        }
        EXPECT_LT(parts[0].count - parts[i].count, 2 * kPartAlignment);
        next += parts[i].count;
      }
      EXPECT_EQ(next, size) << size << " over " << owners;
    }
  }
}

TEST(EqualPartsTest, OwnersForWhomNothingIsLeftHaveNoPart) {
  EXPECT_EQ(EqualParts(20, 5).size(), 2u);
  EXPECT_EQ(EqualParts(16, 5).size(), 1u);
  EXPECT_TRUE(EqualParts(0, 5).empty());
}

TEST(EqualPartsTest, LargeRunsAreCutSmallerAndDealtOutInTurn) {
  const int64_t size = 10 * kPartElements + 17;
  for (uint32_t owners : {1u, 2u, 3u}) {
    const std::vector<RoundPart> parts = EqualParts(size, owners);
    EXPECT_EQ(parts.size() % owners, 0u);
    EXPECT_GE(parts.size(), 11u);
    EXPECT_LE(parts.size(), 10 + 2 * owners);
    int64_t next = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(parts[i].begin, next);
      EXPECT_EQ(parts[i].owner, i % owners);
      EXPECT_LE(parts[i].count, kPartElements + kPartAlignment);
      next += parts[i].count;
    }
    EXPECT_EQ(next, size);
  }
}

TEST(EqualPartsTest, NumberOfPartsOfAnOwnerIsBounded) {
  const std::vector<RoundPart> parts = EqualParts(1000 * kMostPartsOfOwner * kPartElements, 2);
  EXPECT_EQ(parts.size(), static_cast<size_t>(2 * kMostPartsOfOwner));
}

TEST(CheckPlanTest, AcceptsAGoodPlanAndSeveralPartsOfOneOwner) {
  RoundPlan plan = GoodPlan();
  EXPECT_TRUE(CheckPlan(plan, 100, Inc(2)).ok());
  EXPECT_TRUE(CheckPlan(plan, 100, Inc(3)).ok());  // contributes nothing, owns a part
  plan.parts = {{0, 10, 2}, {10, 60, 0}, {70, 30, 2}};
  EXPECT_TRUE(CheckPlan(plan, 100, Inc(1)).ok());
}

TEST(CheckPlanTest, RefusesPartsThatDoNotCoverTheRun) {
  RoundPlan plan = GoodPlan();
  ExpectRefused(plan, "cover 100 of 101", 101);
  ExpectRefused(plan, "within 99", 99);
  ExpectRefused(plan, "no elements", 0);
  plan.parts.pop_back();
  ExpectRefused(plan, "cover");
  plan.parts = {{0, 50, 0}, {60, 40, 1}};
  ExpectRefused(plan, "part 1");
  plan.parts = {{0, 60, 0}, {50, 50, 1}};
  ExpectRefused(plan, "part 1");
  plan.parts = {{0, 100, 0}, {100, 0, 1}};
  ExpectRefused(plan, "part 1");
  plan.parts = {{0, 50, 0}, {50, std::numeric_limits<int64_t>::max(), 1}};
  ExpectRefused(plan, "part 1");
  plan.parts = {{0, 50, 0}, {50, -50, 1}, {0, 100, 0}};
  ExpectRefused(plan, "part 1");
  plan.parts.clear();
  ExpectRefused(plan, "cover 0 of 100");
}

TEST(CheckPlanTest, RefusesOwnersAndMembersThatMakeNoSense) {
  RoundPlan plan = GoodPlan();
  plan.parts[1].owner = 3;
  ExpectRefused(plan, "owned by member 3 of 3");
  plan = GoodPlan();
  plan.members[2].incarnation = Inc(1);
  ExpectRefused(plan, "twice");
  ExpectRefused(GoodPlan(), "no member", 100, Inc(4));
  plan = GoodPlan();
  for (RoundMemberPlan& member : plan.members) member.segments.clear();
  ExpectRefused(plan, "contributes");
  plan = GoodPlan();
  plan.members[0].segments.push_back({SegmentId{0}, {}});
  ExpectRefused(plan, "segment 0 of member 1.1 is summed twice");
}

TEST(CheckPlanTest, RefusesEncodingsAndScalesThatAreNotForRounds) {
  RoundPlan plan = GoodPlan();
  plan.encoding = Encoding::kBF16;
  plan.scale_exponent = -12;
  EXPECT_TRUE(CheckPlan(plan, 100, Inc(1)).ok());
  plan.encoding = Encoding::kInt8;
  ExpectRefused(plan, "int8");
  plan.encoding = Encoding::kF16;
  for (const int32_t exponent : {-63, 63, std::numeric_limits<int32_t>::min()}) {
    plan.scale_exponent = exponent;
    ExpectRefused(plan, "2^");
  }
}

TEST(MeanExponent, IsThatOfThePowerOfTwoNextAboveOneOverTheTokens) {
  EXPECT_EQ(MeanExponent(1), 0);
  EXPECT_EQ(MeanExponent(2), -1);
  EXPECT_EQ(MeanExponent(3), -1);
  EXPECT_EQ(MeanExponent(4096), -12);
  EXPECT_EQ(MeanExponent(8191), -12);
  EXPECT_EQ(MeanExponent(std::numeric_limits<int64_t>::max()), -62);
}

RoundPlan PlanOf(std::vector<uint32_t> members, std::vector<RoundPart> parts) {
  RoundPlan plan;
  for (uint32_t counter : members) plan.members.push_back({{Epoch{1}, counter}, {}});
  plan.parts = std::move(parts);
  return plan;
}

TEST(KeepParts, PartsOfTheLivingStayWhereTheyAre) {
  const RoundPlan before = PlanOf({1, 2, 3}, {{0, 32, 0}, {32, 32, 1}, {64, 16, 2}});
  const std::vector<RoundPart> parts = KeepParts(before, PlanOf({2, 3}, {}).members);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[1].owner, 0u);
  EXPECT_EQ(parts[2].owner, 1u);
  EXPECT_EQ(parts[0].owner, 1u);  // the lost part goes to who has least
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].begin, before.parts[i].begin);
    EXPECT_EQ(parts[i].count, before.parts[i].count);
  }
}

TEST(KeepParts, NewcomerGetsNothingUnlessSomethingIsLeftOver) {
  const RoundPlan before = PlanOf({1, 2}, {{0, 32, 0}, {32, 32, 1}});
  for (const RoundPart& part : KeepParts(before, PlanOf({1, 2, 3}, {}).members)) {
    EXPECT_NE(part.owner, 2u);
  }
  EXPECT_EQ(KeepParts(before, PlanOf({2, 3}, {}).members)[0].owner, 1u);
}

}  // namespace
}  // namespace starling
