#include "runtime/trainer/path_repair.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace starling {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint32_t kStages = 4;
constexpr AttemptId kAttempt{Incarnation{Epoch{1}, 0}, 7};

Incarnation Replica(uint32_t counter) { return {Epoch{1}, counter}; }

// Stages 0 to 2 hold the microbatch in one unbroken chain, with no room in their logs: nobody but
// the last of them can send it on again, and nobody but it has a gradient to be claimed. It was
// added at stage 1 before, by an attempt that is over. Stage 3 has died.
class BrokenBehindAChainTest : public ::testing::Test {
 protected:
  BrokenBehindAChainTest() {
    IssuedAttempt attempt;
    attempt.id = kAttempt;
    attempt.end = kStages;
    attempt.adds = {true, false, true, true};
    attempt.begun = true;
    attempt.reached = 3;
    attempts_.push_back(attempt);
    for (uint32_t stage = 0; stage < 3; ++stage) {
      works_[stage].work = {{Step{1}, WorkKind::kTrain, 0}, kAttempt};
      works_[stage].downstream = Replica(stage + 2);
      works_[stage].downstream_attempt = kAttempt;
      works_[stage].accepted = true;
      holdings_.push_back({Replica(stage + 1), stage, &works_[stage]});
      liveness_.answered[Replica(stage + 1)] = stage;
    }
    works_[2].output_kept = works_[2].gradient_kept = true;
    liveness_.noted = {false, true, false, false};
    liveness_.contested.assign(kStages, false);
  }

  HeldWork works_[3];
  std::vector<Holding> holdings_;
  Liveness liveness_;
  std::vector<IssuedAttempt> attempts_;
};

TEST_F(BrokenBehindAChainTest, OnlyWhatDiedIsRunAgainAndWhoIsHelpedIsNotReplaced) {
  const RepairPlan plan = PlanRepair(kStages, holdings_, liveness_, &attempts_);
  ASSERT_THAT(plan.stretches, SizeIs(1));
  EXPECT_EQ(plan.stretches[0].begin, 3u);
  EXPECT_EQ(plan.stretches[0].end, 4u);
  ASSERT_TRUE(plan.stretches[0].from);
  EXPECT_EQ(plan.stretches[0].from->holder, Replica(3));
  EXPECT_THAT(plan.cancels, IsEmpty());
  EXPECT_EQ(plan.lost_pairs, 1u);
}

TEST_F(BrokenBehindAChainTest, NothingIsKeptAnywhereAndTheWholePipelineRunsItAgainOnce) {
  works_[2].output_kept = works_[2].gradient_kept = false;
  const RepairPlan plan = PlanRepair(kStages, holdings_, liveness_, &attempts_);
  ASSERT_THAT(plan.stretches, SizeIs(1));
  EXPECT_EQ(plan.stretches[0].begin, 0u);
  EXPECT_EQ(plan.stretches[0].end, 4u);
  EXPECT_FALSE(plan.stretches[0].from);
  EXPECT_THAT(plan.stretches[0].add_at, testing::ElementsAre(StageId{0}, StageId{2}, StageId{3}));
  EXPECT_THAT(plan.cancels, SizeIs(3)) << "what waits in vain would be added beside it";
}

}  // namespace
}  // namespace starling
