// StageServer: the boundary log, claims, contested work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/stages/stage_server_harness.h"

namespace starling {
namespace {

using namespace stage_server_testing;  // NOLINT: its own harness
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// --- the boundary log ------------------------------------------------------------------

TEST_F(StageServerTest, OutputIsSentAgainAndTheGradientAwaitedAfresh) {
  Pass(Microbatch(Work(0)));
  Promise({kDown});
  links_.next = kDown2;
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kOk);
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kOk) << "asked twice";
  ASSERT_THAT(links_.sent, SizeIs(2));
  const Forward& again = links_.sent[1].forward;
  EXPECT_EQ(links_.sent[1].to, kDown2);
  EXPECT_EQ(again.work, (WorkId{Work(0).id, kMended}));
  EXPECT_EQ(again.input.As<float>()[0], 1) << "its output, from the log";
  EXPECT_FALSE(again.targets.empty());
  EXPECT_THAT(again.add_at, ElementsAre(StageId{2}));
  EXPECT_TRUE(again.gradient_wanted);
  EXPECT_FALSE(again.contested);
  const FenceAck ack = Promise({kDown});
  EXPECT_EQ(ack.held[0].downstream, kDown2);
  EXPECT_EQ(ack.held[0].downstream_attempt, kMended);
  links_.sent[1].accepted(absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnBackward(kDown2, Gradient({Work(0).id, kMended})), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(compute_.forwards, SizeIs(1)) << "computed once";
  ASSERT_THAT(links_.returned, SizeIs(1));
  EXPECT_EQ(links_.returned[0].backward.work, Work(0)) << "upstream knows it by its old name";
}

TEST_F(StageServerTest, DoneWorkIsSentAgainWithoutAskingForAGradient) {
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kOk);
  ASSERT_THAT(links_.sent, SizeIs(2));
  EXPECT_FALSE(links_.sent[1].forward.gradient_wanted);
  links_.sent[1].accepted(absl::StatusCode::kOk);
  EXPECT_THAT(links_.finished, ElementsAre(kDown, kDown));
  EXPECT_EQ(compute_.backwards.size(), 1u);
}

TEST_F(StageServerTest, ResendOlderThanAFenceThatWasAnsweredIsRefused) {
  Pass(Microbatch(Work(0)));
  Promise({kDown});
  EXPECT_EQ(SendAgain(Again(Work(0)), 6), absl::StatusCode::kAborted);
  EXPECT_THAT(links_.sent, SizeIs(1));
}

TEST_F(StageServerTest, ResendOfWhatIsNotHereIsRefused) {
  Take(Microbatch(Work(1)));  // not computed yet
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kAborted);
  EXPECT_EQ(SendAgain(Again(Work(1))), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, WithoutABudgetNothingIsKeptAndEverythingCounted) {
  Serve(1, 8, 0);
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->counters().not_logged, 2u);
  EXPECT_EQ(server_->log_bytes(), 0u);
  const FenceAck ack = Promise({kDown});
  EXPECT_FALSE(ack.held[0].output_kept);
  EXPECT_FALSE(ack.held[0].gradient_kept);
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kAborted);
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, WhatIsKeptStaysWhenTheLogIsFullAndIsFreedByTheDecision) {
  Serve(1, 8, 12);  // output and targets of one microbatch, and a gradient
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->log_bytes(), 12u);
  Complete(Microbatch(Work(1)));
  const FenceAck ack = Promise({});
  EXPECT_TRUE(ack.held[0].output_kept && ack.held[0].gradient_kept);
  EXPECT_FALSE(ack.held[1].output_kept || ack.held[1].gradient_kept);
  server_->OnVersion(Version{1});
  EXPECT_EQ(server_->log_bytes(), 0u);
}

TEST_F(StageServerTest, EvaluationIsNotLogged) {
  Pass(Evaluation(0));
  EXPECT_EQ(server_->log_bytes(), 0u);
  EXPECT_EQ(server_->counters().not_logged, 0u);
}

// --- claims ----------------------------------------------------------------------------

TEST_F(StageServerTest, ClaimOfDoneWorkIsAnsweredFromTheLog) {
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  ASSERT_THAT(links_.returned, SizeIs(2));
  EXPECT_EQ(links_.returned[1].to, kUp2);
  EXPECT_EQ(links_.returned[1].backward.work, (WorkId{Work(0).id, kMended}));
  EXPECT_EQ(links_.returned[1].backward.gradient.As<float>()[0], 2);
  EXPECT_EQ(compute_.backwards.size(), 1u);
}

TEST_F(StageServerTest, ClaimOfOpenWorkGetsTheGradientBesideTheFirstToAsk) {
  Pass(Microbatch(Work(0)));
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  EXPECT_THAT(links_.returned, IsEmpty());
  GiveBack(Work(0));
  compute_.FinishAll();
  ASSERT_THAT(links_.returned, SizeIs(2));
  EXPECT_EQ(links_.returned[0].to, kUp);
  EXPECT_EQ(links_.returned[1].to, kUp2);
}

TEST_F(StageServerTest, ClaimMakesAGradientThatNobodyWanted) {
  Forward forward = Microbatch(Work(0));
  forward.gradient_wanted = false;
  Pass(forward);
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  GiveBack(Work(0));
  EXPECT_TRUE(compute_.backwards[0].want_input_gradient);
}

TEST_F(StageServerTest, ClaimThatComesTooLateOrOfTheUnknownIsRefused) {
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
  Forward forward = Microbatch(Work(0));
  forward.gradient_wanted = false;
  Pass(forward);
  GiveBack(Work(0));  // on the device, without a gradient of its input
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
  compute_.FinishAll();
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, ClaimOfTheFencedIsRefused) {
  Complete(Microbatch(Work(0)));
  Promise({kUp2});
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kAborted);
}

Splice Until(Incarnation holder) { return {StageId{2}, holder, Work(0).attempt}; }

TEST_F(StageServerTest, StageBeforeASpliceClaimsInsteadOfSending) {
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  EXPECT_EQ(Take(forward), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, IsEmpty());
  ASSERT_THAT(links_.claims, SizeIs(1));
  EXPECT_EQ(links_.claims[0].to, kDown);
  EXPECT_EQ(links_.claims[0].claim.work, Work(0));
  EXPECT_EQ(links_.claims[0].claim.as, kMended);
  const HeldWork held = Promise({}).held[0];
  EXPECT_TRUE(held.claims);
  EXPECT_EQ(held.downstream, kDown);
  EXPECT_EQ(held.downstream_attempt, Work(0).attempt);
  links_.claims[0].answered(absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(forward.work)), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, RefusedClaimIsReportedAndCanBeMended) {
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  Take(forward);
  compute_.FinishAll();
  links_.claims[0].answered(absl::StatusCode::kAborted);
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kUnclaimed);
  EXPECT_EQ(Promise({}).held[0].state, HeldState::kUnclaimed);
  ResendWork again{forward.work, {kTrainer, 78}, {}, Until(kDown2), false};
  EXPECT_EQ(SendAgain(again), absl::StatusCode::kOk);
  ASSERT_THAT(links_.claims, SizeIs(2));
  EXPECT_EQ(links_.claims[1].to, kDown2);
  EXPECT_EQ(Promise({}).held[0].state, HeldState::kOpen);
}

TEST_F(StageServerTest, ClaimOfOneThatIsFencedMeanwhileIsReportedAtOnce) {
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  Take(forward);
  Promise({kDown});
  compute_.FinishAll();
  EXPECT_THAT(links_.claims, IsEmpty());
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kUnclaimed);
}

TEST_F(StageServerTest, ClaimOfAHolderThatNoViewNamesYetWaitsForRetrySends) {
  links_.knows_holders = false;
  Forward forward = Microbatch({Work(0).id, kMended}, {1});
  forward.until = Until(kDown);
  Take(forward);
  compute_.FinishAll();
  links_.knows_holders = true;
  server_->RetrySends();
  EXPECT_THAT(links_.claims, SizeIs(1));
}

// --- contested work --------------------------------------------------------------------

TEST_F(StageServerTest, GradientOfTheSlowOneAndOfItsCopyIsAddedOnce) {
  Pass(Microbatch(Work(0)));
  links_.next = kDown2;
  ResendWork again = Again(Work(0));
  again.contested = true;
  EXPECT_EQ(SendAgain(again), absl::StatusCode::kOk);
  EXPECT_TRUE(links_.sent[1].forward.contested);
  EXPECT_EQ(links_.avoided, kDown);
  GiveBack(Work(0));  // the slow one after all
  EXPECT_EQ(server_->OnBackward(kDown2, Gradient({Work(0).id, kMended})), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_EQ(server_->counters().second_gradients, 1u);
}

TEST_F(StageServerTest, EachContestedMicrobatchHasASegmentOfItsOwn) {
  for (uint32_t index : {0u, 1u, 2u, 3u}) {
    Forward forward = Microbatch(
        Work(index), index % 2 == 1 ? std::vector<uint32_t>{1, 2} : std::vector<uint32_t>{});
    forward.contested = index % 2 == 1;
    Pass(forward);
    GiveBack(Work(index));
    compute_.FinishAll();
  }
  std::vector<SegmentSummary> sealed;
  server_->OnSeal(Step{1}, [&](absl::StatusOr<std::vector<SegmentSummary>> s) { sealed = *s; });
  compute_.FinishAll();
  ASSERT_THAT(sealed, SizeIs(4));
  EXPECT_EQ(sealed[0].id, sealed[2].id);
  EXPECT_NE(sealed[1].id, sealed[3].id);
  EXPECT_NE(sealed[0].id, sealed[1].id);
  EXPECT_THAT((std::vector<bool>{sealed[0].contested, sealed[1].contested, sealed[3].contested}),
              ElementsAre(false, true, true));
}

TEST_F(StageServerTest, AtTheBoundContestedWorkIsRefusedAsBusyAndOtherWorkIsNot) {
  for (uint32_t index : {0u, 1u, 2u}) {
    Forward forward = Microbatch(Work(index), {1});
    forward.contested = true;
    EXPECT_EQ(Take(forward),
              index < 2 ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(Take(Microbatch(Work(3))), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace starling
