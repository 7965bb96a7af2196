#include "runtime/trainer/return_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Hash128 kHash{1, 1};
constexpr Hash128 kOther{2, 2};

// Two stages, each with parameters of its own.
const std::vector<ParameterGroup> kGroups = {{{StageId{0}}, 16}, {{StageId{1}}, 16}};

Incarnation Replica(uint32_t counter) { return {Epoch{2}, counter}; }

// Step 5 of era 3, by the trainer of epoch 1: round 2 of each of two stages.
LiveState Newest() {
  LiveState live;
  Decision& newest = live.newest;
  newest.epoch = Epoch{1};
  newest.era = Era{3};
  newest.step = Step{5};
  for (uint32_t stage : {0u, 1u}) {
    GroupOutcome group;
    group.round = {Epoch{1}, Step{5}, stage, 2};
    group.result_hash = kHash;
    newest.groups.push_back(group);
  }
  return live;
}

Returnee At(uint32_t counter, uint32_t stage, uint64_t version, Hash128 hash = kHash) {
  Returnee returnee;
  returnee.incarnation = Replica(counter);
  returnee.stage = StageId{stage};
  returnee.held = StateName{Era{3}, Version{version}, hash};
  return returnee;
}

// One version behind, with the result of a round.
Returnee Holding(uint32_t counter, uint32_t stage, uint32_t round, Hash128 hash) {
  Returnee returnee = At(counter, stage, 4);
  returnee.results = {{{Epoch{1}, Step{5}, stage, round}, hash}};
  return returnee;
}

TEST(ReturnPlan, ReplicasAtTheVersionServeAndThoseWithTheResultFinish) {
  const ReturnPlan plan =
      PlanReturn(Newest(), 2, kGroups,
                 {At(1, 0, 5), Holding(2, 0, 2, kHash), Holding(3, 1, 2, kHash), At(4, 1, 4)});
  EXPECT_FALSE(plan.missing);
  EXPECT_THAT(plan.serve, ElementsAre(Replica(1), Replica(2), Replica(3)));
  EXPECT_EQ(plan.finish, 2u);
}

TEST(ReturnPlan, ResultOfAnotherRoundOrOtherBitsDoNotFinish) {
  for (const Returnee& returnee : {Holding(1, 0, 1, kHash), Holding(1, 0, 2, kOther)}) {
    const ReturnPlan plan = PlanReturn(Newest(), 1, kGroups, {returnee});
    EXPECT_EQ(plan.missing, StageId{0});
    EXPECT_THAT(plan.serve, IsEmpty());
  }
}

TEST(ReturnPlan, WhoHasTheResultOfItsStageAndNotOfItsTieDoesNotFinish) {
  std::vector<ParameterGroup> groups = kGroups;
  groups.push_back({{StageId{0}, StageId{1}}, 16});
  LiveState live = Newest();
  GroupOutcome tie;
  tie.round = {Epoch{1}, Step{5}, 2, 2};
  tie.result_hash = kOther;
  live.newest.groups.push_back(tie);
  Returnee half = Holding(1, 0, 2, kHash);
  EXPECT_EQ(PlanReturn(live, 1, groups, {half}).missing, StageId{0});
  half.results.push_back({tie.round, kHash});
  EXPECT_EQ(PlanReturn(live, 1, groups, {half}).missing, StageId{0});
  half.results.back().hash = kOther;
  EXPECT_THAT(PlanReturn(live, 1, groups, {half}).serve, ElementsAre(Replica(1)));
}

TEST(ReturnPlan, SkipNeedsNoResult) {
  LiveState live = Newest();
  live.newest.skip = true;
  EXPECT_THAT(PlanReturn(live, 1, kGroups, {At(1, 0, 4)}).serve, ElementsAre(Replica(1)));
}

TEST(ReturnPlan, StageWithoutTheVersionIsNamedWithTheReason) {
  Returnee empty;
  empty.incarnation = Replica(2);
  empty.stage = StageId{1};
  const ReturnPlan plan = PlanReturn(Newest(), 2, kGroups, {At(1, 0, 5), empty, At(3, 1, 3)});
  EXPECT_EQ(plan.missing, StageId{1});
  EXPECT_THAT(plan.reason, HasSubstr("no replica of stage 1 has version 5"));
  EXPECT_THAT(plan.reason, HasSubstr("2 reported"));
  EXPECT_THAT(PlanReturn(Newest(), 2, kGroups, {At(1, 0, 5)}).reason, HasSubstr("none reported"));
}

TEST(ReturnPlan, StateOfAnotherEraDoesNotCount) {
  Returnee old = At(1, 0, 5);
  old.held->era = Era{2};
  EXPECT_EQ(PlanReturn(Newest(), 1, kGroups, {old}).missing, StageId{0});
}

TEST(ReturnPlan, OfDifferentStatesTheMajorityServes) {
  EXPECT_THAT(
      PlanReturn(Newest(), 1, kGroups, {At(1, 0, 5, kOther), At(2, 0, 5), At(3, 0, 5)}).serve,
      ElementsAre(Replica(2), Replica(3)));
}

TEST(ReturnPlan, OfTwoThatDifferNobodyServesUnlessTheHashIsKnown) {
  LiveState live = Newest();
  const std::vector<Returnee> two = {At(1, 0, 5, kOther), At(2, 0, 5)};
  const ReturnPlan plan = PlanReturn(live, 1, kGroups, two);
  EXPECT_EQ(plan.missing, StageId{0});
  EXPECT_THAT(plan.reason, HasSubstr("differ"));
  live.hashes[StageId{0}] = kHash;
  EXPECT_THAT(PlanReturn(live, 1, kGroups, two).serve, ElementsAre(Replica(2)));
  live.hashes[StageId{0}] = Hash128{9, 9};
  EXPECT_EQ(PlanReturn(live, 1, kGroups, two).missing, StageId{0});
}

}  // namespace
}  // namespace starling
