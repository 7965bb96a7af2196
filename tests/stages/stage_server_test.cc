#include "stages/stage_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/stages/stage_server_harness.h"

namespace starling {
namespace {

using namespace stage_server_testing;  // NOLINT: its own harness
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// --- the way of a microbatch -----------------------------------------------------------

TEST_F(StageServerTest, MicrobatchGoesDownAndItsGradientUp) {
  Forward forward = Microbatch(Work(0));
  forward.first_sequence = 12;
  Pass(forward);
  EXPECT_EQ(compute_.forwards[0].first_sequence, 12u);
  EXPECT_TRUE(compute_.forwards[0].targets.empty()) << "the last stage alone needs them";
  ASSERT_THAT(links_.sent, SizeIs(1));
  EXPECT_EQ(links_.sent[0].to, kDown);
  EXPECT_EQ(links_.sent[0].forward.input.As<float>()[0], 1) << "its own output, not its input";
  EXPECT_FALSE(links_.sent[0].forward.targets.empty());
  GiveBack(Work(0));
  compute_.Finish();
  ASSERT_THAT(links_.returned, SizeIs(1));
  EXPECT_EQ(links_.returned[0].to, kUp);
  EXPECT_EQ(links_.returned[0].backward.gradient.As<float>()[0], 2);
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kAdded);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_GT(server_->load().service_s, 0);
}

TEST_F(StageServerTest, FirstStageAddsAndSendsNoGradientFurther) {
  Serve(0);
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  EXPECT_FALSE(compute_.backwards[0].want_input_gradient);
  compute_.Finish();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, LastStageTurnsRoundByItselfAndReportsTheLoss) {
  Serve(2);
  Take(Microbatch(Work(0)));
  EXPECT_FALSE(compute_.forwards[0].targets.empty());
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "backward 1/0"));
  EXPECT_THAT(links_.sent, IsEmpty());
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].loss_sum, 3.5);
  EXPECT_EQ(links_.notices[0].tokens, 7);
  EXPECT_THAT(links_.returned, SizeIs(1));
}

TEST_F(StageServerTest, DeviceRunsLowerStepsThenReplaysThenBackwardsThenForwards) {
  Pass(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));  // occupies the device
  Take(Microbatch(Work(0, 2)));
  Take(Microbatch(Work(2)));
  Take(Microbatch(Work(3)));
  GiveBack(Work(0));
  Take(Microbatch(Work(4), {1}));
  server_->OnVersion(Version{0});  // nothing new: step 2 stays held
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1", "forward 1/4",
                                             "backward 1/0", "forward 1/2", "forward 1/3"));
}

TEST_F(StageServerTest, EarlyWorkWaitsForItsVersion) {
  EXPECT_EQ(Take(Microbatch(Work(0, 2))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), IsEmpty());
  server_->OnVersion(Version{1});
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 2/0"));
  EXPECT_EQ(compute_.freed, Step{1});
}

TEST_F(StageServerTest, StaleWorkIsRefused) {
  server_->OnVersion(Version{1});
  EXPECT_EQ(Take(Microbatch(Work(0, 1))), absl::StatusCode::kAborted);
  Forward old_version = Microbatch(Work(0, 2));
  old_version.version = Version{0};
  EXPECT_EQ(Take(old_version), absl::StatusCode::kAborted);
  Forward old_step = Microbatch(Work(0, 1));
  old_step.version = Version{1};
  EXPECT_EQ(Take(old_step), absl::StatusCode::kAborted);
  EXPECT_EQ(server_->load().queued, 0u);
}

// Delayed commit: a microbatch of `step` on the version two before it.
Forward Delayed(WorkId work) {
  Forward forward = Microbatch(work);
  forward.version = Version{Value(work.id.step) - 2};
  return forward;
}

TEST_F(StageServerTest, WorkOfTheStepBeforeTheUpdateGoesOnOnTheOlderParameters) {
  keeps_older_ = true;
  Serve(1);
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(Take(Delayed(Work(0, 2))), absl::StatusCode::kOk);
  EXPECT_FALSE(compute_.forwards[1].older) << "nothing is newer than version 0 yet";
  compute_.FinishAll();
  links_.sent.back().accepted(absl::StatusCode::kOk);
  server_->OnVersion(Version{1});
  EXPECT_EQ(compute_.freed, Step{1});
  EXPECT_EQ(Take(Delayed(Work(1, 2))), absl::StatusCode::kOk);
  EXPECT_TRUE(compute_.forwards[2].older);
  EXPECT_EQ(Take(Delayed(Work(0, 3))), absl::StatusCode::kOk) << "of the step ahead";
  GiveBack(Work(0, 2));
  compute_.FinishAll();
  EXPECT_FALSE(compute_.forwards[3].older);
  EXPECT_EQ(compute_.backwards[1].work, Work(0, 2)) << "what was begun before is not lost";
}

TEST_F(StageServerTest, AfterASkipTheOlderParametersAreTheNewestOnes) {
  keeps_older_ = true;
  Serve(1);
  server_->OnVersion(Version{1}, /*updated=*/false);
  EXPECT_EQ(Take(Delayed(Work(0, 2))), absl::StatusCode::kOk);
  EXPECT_FALSE(compute_.forwards[0].older);
}

TEST_F(StageServerTest, WhoHasJustLoadedHasNoOlderParameters) {
  keeps_older_ = true;
  Serve(1);
  server_->Reset(Version{1});
  EXPECT_EQ(Take(Delayed(Work(0, 2))), absl::StatusCode::kAborted);
  EXPECT_EQ(Take(Microbatch(Work(0, 2))), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, SegmentsAndFencesOfTwoOpenStepsAreApart) {
  keeps_older_ = true;
  Serve(1);
  server_->OnVersion(Version{1});
  Forward contested = Delayed(Work(0, 3));
  contested.contested = true;
  Complete(contested);
  Complete(Delayed(Work(0, 2)));
  Fence fence;
  fence.step = Step{3};
  fence.number = 9;
  EXPECT_THAT(server_->OnFence(fence).held, SizeIs(1)) << "of that step alone";
  EXPECT_EQ(SendAgain(Again(Work(0, 2)), 1), absl::StatusCode::kOk)
      << "fences of one step do not make orders of another stale";
  server_->OnSeal(Step{2}, [](absl::StatusOr<std::vector<SegmentSummary>>) {});
  server_->OnVersion(Version{2});
  std::vector<SegmentSummary> sealed;
  server_->OnSeal(Step{3}, [&](absl::StatusOr<std::vector<SegmentSummary>> segments) {
    for (const SegmentSummary& segment : *segments) {
      if (segment.id == compute_.backwards[0].segment) sealed.push_back(segment);
    }
  });
  compute_.FinishAll();
  ASSERT_FALSE(sealed.empty());
  EXPECT_TRUE(sealed[0].contested) << "the update between does not make it a main segment";
}

TEST_F(StageServerTest, SlotBoundAnswersBusyAndDoneWorkFreesTheSlot) {
  Serve(1, 2);
  Pass(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  EXPECT_EQ(Take(Microbatch(Work(2))), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Take(Microbatch(Work(1))), absl::StatusCode::kOk) << "it has that one already";
  GiveBack(Work(0));
  compute_.FinishAll();
  EXPECT_EQ(Take(Microbatch(Work(3))), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, RefusedOfferThatComesAgainStaysRefused) {
  Serve(1, 1);
  Pass(Microbatch(Work(0)));
  Forward forward = Microbatch(Work(1));
  EXPECT_EQ(Take(forward), absl::StatusCode::kResourceExhausted);
  GiveBack(Work(0));
  compute_.FinishAll();
  EXPECT_EQ(Take(forward), absl::StatusCode::kResourceExhausted)
      << "its sender has gone elsewhere since";
  forward.offer = 1;
  EXPECT_EQ(Take(forward), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, WorkOfALaterStepRefusesNoneOfAnEarlierOne) {
  Serve(1, 1);
  EXPECT_EQ(Take(Microbatch(Work(0, 2))), absl::StatusCode::kOk);
  EXPECT_EQ(Take(Microbatch(Work(1, 2))), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
}

// --- repeated and lost messages --------------------------------------------------------

TEST_F(StageServerTest, RepeatedForwardIsComputedOnce) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), SizeIs(1));
  EXPECT_THAT(links_.sent, SizeIs(1));
}

TEST_F(StageServerTest, RepeatedGradientIsAddedOnce) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  GiveBack(Work(0));
  compute_.FinishAll();
  GiveBack(Work(0));
  EXPECT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, GradientThatOvertakesTheAcceptanceIsAddedOnce) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  GiveBack(Work(0));
  links_.sent[0].accepted(absl::StatusCode::kOk);
  compute_.FinishAll();
  EXPECT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
}

TEST_F(StageServerTest, GradientFromSomeoneElseIsRefused) {
  Pass(Microbatch(Work(0)));
  EXPECT_EQ(server_->OnBackward(kDown2, Gradient(Work(0))), absl::StatusCode::kAborted);
  EXPECT_THAT(compute_.backwards, IsEmpty());
}

TEST_F(StageServerTest, GradientOfUnknownWorkIsHarmless) {
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(Work(3))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), IsEmpty());
}

TEST_F(StageServerTest, BusyReceiverIsReplacedByAnother) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  links_.next = kDown2;
  links_.sent[0].accepted(absl::StatusCode::kResourceExhausted);
  ASSERT_THAT(links_.sent, SizeIs(2));
  EXPECT_EQ(links_.sent[1].to, kDown2);
  EXPECT_EQ(links_.sent[1].forward.input.As<float>()[0], 1);
  EXPECT_EQ(links_.sent[1].forward.offer, 1u);
  EXPECT_THAT(compute_.forwards, SizeIs(1)) << "not computed again";
  links_.sent[1].accepted(absl::StatusCode::kOk);
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(Work(0))), absl::StatusCode::kAborted);
}

TEST_F(StageServerTest, StaleRefusalAndLackOfReceiversWaitForRetrySends) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  links_.sent[0].accepted(absl::StatusCode::kAborted);
  EXPECT_THAT(links_.sent, SizeIs(1));
  links_.next = std::nullopt;
  server_->RetrySends();
  EXPECT_THAT(links_.sent, SizeIs(1));
  links_.next = kDown2;
  server_->RetrySends();
  server_->RetrySends();
  ASSERT_THAT(links_.sent, SizeIs(2)) << "offered once, not with each retry";
  EXPECT_EQ(links_.sent[1].to, kDown2);
}

// --- fences and cancels ----------------------------------------------------------------

TEST_F(StageServerTest, FenceIsAnsweredWithEverythingAcceptedInTheStep) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));  // its gradient is here: it will be added
  Take(Microbatch(Work(1)), kUp2);
  Take(Microbatch(Work(0, 2)));
  const FenceAck ack = Promise({kUp2});
  EXPECT_EQ(ack.number, 7u);
  ASSERT_THAT(ack.held, SizeIs(2)) << "the one of step 2 is not asked for";
  EXPECT_EQ(ack.held[0].work, Work(0));
  EXPECT_EQ(ack.held[0].state, HeldState::kAdded);
  EXPECT_EQ(ack.held[0].upstream, kUp);
  EXPECT_EQ(ack.held[0].downstream, kDown);
  EXPECT_TRUE(ack.held[0].output_kept);
  EXPECT_TRUE(ack.held[0].gradient_kept);
  EXPECT_EQ(ack.held[1].state, HeldState::kOpen);
  EXPECT_EQ(ack.held[1].upstream, kUp2);
  EXPECT_EQ(ack.held[1].downstream, std::nullopt);
  EXPECT_FALSE(ack.held[1].output_kept);
  EXPECT_TRUE(ack.held[1].gradient_kept) << "it will be";
}

TEST_F(StageServerTest, DoneWorkIsReportedUntilTheStepIsOver) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  compute_.FinishAll();
  ASSERT_THAT(Promise({kUp2}).held, SizeIs(1));
  EXPECT_EQ(Promise({kUp2}).held[0].state, HeldState::kDone);
  server_->OnVersion(Version{1});
  EXPECT_THAT(Promise({kUp2}).held, IsEmpty());
}

TEST_F(StageServerTest, NothingIsTakenFromTheFenced) {
  Pass(Microbatch(Work(0)));
  Promise({kUp2, kDown});
  EXPECT_EQ(Take(Microbatch(Work(1)), kUp2), absl::StatusCode::kAborted);
  EXPECT_EQ(server_->OnBackward(kDown, Gradient(Work(0))), absl::StatusCode::kAborted);
  EXPECT_THAT(compute_.backwards, IsEmpty());
  EXPECT_EQ(Take(Microbatch(Work(1)), kUp), absl::StatusCode::kOk);
}

TEST_F(StageServerTest, NoGradientGoesToTheFenced) {
  Pass(Microbatch(Work(0)));
  Promise({kUp});
  GiveBack(Work(0));
  compute_.FinishAll();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(links_.notices, SizeIs(1)) << "its own gradient counts all the same";
}

TEST_F(StageServerTest, WhatWasReportedAsSentToTheFencedIsNotSentElsewhere) {
  Take(Microbatch(Work(0)));
  compute_.FinishAll();
  EXPECT_EQ(Promise({kDown}).held[0].downstream, kDown);
  links_.next = kDown2;
  links_.sent[0].accepted(absl::StatusCode::kResourceExhausted);  // late
  server_->RetrySends();
  EXPECT_THAT(links_.sent, SizeIs(1));
}

TEST_F(StageServerTest, CancelFreesOnlyWhatHasNoGradient) {
  Pass(Microbatch(Work(0)));
  Pass(Microbatch(Work(1)));
  GiveBack(Work(1));          // on the device
  Take(Microbatch(Work(2)));  // queued
  server_->OnCancel({{Work(0), Work(1), Work(2), Work(9)}});
  EXPECT_THAT(compute_.dropped, ElementsAre(0, 2));
  EXPECT_EQ(server_->load().queued, 1u);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1", "backward 1/1"));
  GiveBack(Work(0));
  EXPECT_THAT(compute_.backwards, SizeIs(1)) << "its gradient, late, is dropped";
}

TEST_F(StageServerTest, WorkCancelledOnTheDeviceGoesNowhere) {
  Take(Microbatch(Work(0)));
  server_->OnCancel({{Work(0)}});
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, IsEmpty());
  EXPECT_THAT(compute_.dropped, testing::Contains(0));
  Take(Microbatch(Work(1)));
  EXPECT_EQ(compute_.waiting(), 1u) << "the device goes on";
}

TEST_F(StageServerTest, CancelledWorkThatArrivesLaterIsNotTakenUp) {
  server_->OnCancel({{Work(0)}});
  EXPECT_EQ(Take(Microbatch(Work(0))), absl::StatusCode::kOk);
  EXPECT_THAT(compute_.posted(), IsEmpty());
  EXPECT_THAT(Promise({kUp2}).held, IsEmpty());
}

TEST_F(StageServerTest, CancelOlderThanAFenceThatWasAnsweredIsIgnored) {
  Pass(Microbatch(Work(0)));
  Promise({});
  server_->OnCancel({{Work(0)}, 6});
  EXPECT_EQ(server_->load().queued, 1u);
  server_->OnCancel({{Work(0)}, 7});
  EXPECT_EQ(server_->load().queued, 0u);
}

// --- segments --------------------------------------------------------------------------

TEST_F(StageServerTest, SealTakesEffectBetweenTwoBackwards) {
  for (uint32_t index : {0u, 1u, 2u}) Pass(Microbatch(Work(index)));
  GiveBack(Work(0));
  GiveBack(Work(1));
  bool sealed = false;
  server_->OnSeal(Step{1}, [&](absl::StatusOr<std::vector<SegmentSummary>>) { sealed = true; });
  EXPECT_FALSE(sealed);
  compute_.FinishAll();
  EXPECT_TRUE(sealed);
  GiveBack(Work(2));
  ASSERT_THAT(compute_.backwards, SizeIs(3));
  EXPECT_EQ(compute_.backwards[0].segment, SegmentId{0});
  EXPECT_EQ(compute_.backwards[1].segment, SegmentId{1}) << "late work, a new segment";
  EXPECT_EQ(compute_.backwards[2].segment, SegmentId{1});
  EXPECT_THAT(std::vector<std::string>(compute_.posted().begin() + 3, compute_.posted().end()),
              ElementsAre("backward 1/0", "seal 1", "backward 1/1", "backward 1/2"));
}

TEST_F(StageServerTest, NextStepBeginsWithTheFirstSegment) {
  server_->OnSeal(Step{1}, [](absl::StatusOr<std::vector<SegmentSummary>>) {});
  compute_.FinishAll();
  server_->OnVersion(Version{1});
  Pass(Microbatch(Work(0, 2)));
  GiveBack(Work(0, 2));
  EXPECT_EQ(compute_.backwards[0].segment, SegmentId{0});
}

// --- evaluation ------------------------------------------------------------------------

TEST_F(StageServerTest, EvaluationPassesWithoutBeingHeld) {
  Pass(Evaluation(0));
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  EXPECT_THAT(Promise({kUp2}).held, IsEmpty());
}

TEST_F(StageServerTest, LastStageReportsAnEvaluationAndRunsNoBackward) {
  Serve(2);
  Take(Evaluation(0));
  compute_.FinishAll();
  EXPECT_THAT(compute_.backwards, IsEmpty());
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kEvaluated);
  EXPECT_EQ(links_.notices[0].loss_sum, 3.5);
  EXPECT_EQ(server_->load().queued, 0u);
}

TEST_F(StageServerTest, EvaluationOnItsWayToTheFencedIsForgotten) {
  Take(Evaluation(0));
  compute_.FinishAll();
  Promise({kDown});
  EXPECT_EQ(server_->load().queued, 0u);
}

// --- stage masks -----------------------------------------------------------------------

TEST_F(StageServerTest, StageOutsideTheMaskPassesTheGradientOnAndAddsNothing) {
  Pass(Microbatch(Work(0), {0, 2}));
  GiveBack(Work(0));
  EXPECT_EQ(compute_.backwards[0].segment, std::nullopt);
  EXPECT_TRUE(compute_.backwards[0].want_input_gradient);
  compute_.FinishAll();
  EXPECT_THAT(links_.returned, SizeIs(1));
  EXPECT_THAT(links_.notices, IsEmpty());
}

TEST_F(StageServerTest, GradientGoesUpOnlyWhereItIsWanted) {
  Forward forward = Microbatch(Work(0), {1});
  forward.gradient_wanted = false;
  Pass(forward);
  EXPECT_TRUE(links_.sent[0].forward.gradient_wanted) << "here it is needed";
  GiveBack(Work(0));
  EXPECT_EQ(compute_.backwards[0].segment, SegmentId{0});
  EXPECT_FALSE(compute_.backwards[0].want_input_gradient);
  compute_.FinishAll();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(links_.notices, SizeIs(1));
}

TEST_F(StageServerTest, StageThatNeedsNoGradientIsDoneWhenTheNextHasAccepted) {
  Forward forward = Microbatch(Work(0), {2});
  forward.gradient_wanted = false;
  Pass(forward);
  EXPECT_FALSE(links_.sent[0].forward.gradient_wanted);
  EXPECT_THAT(compute_.dropped, ElementsAre(0));
  EXPECT_THAT(compute_.backwards, IsEmpty());
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_THAT(links_.finished, ElementsAre(kDown));
  EXPECT_FALSE(Promise({}).held[0].gradient_kept);
}

TEST_F(StageServerTest, LastStageOutsideTheMaskStillMakesTheGradient) {
  Serve(2);
  Take(Microbatch(Work(0), {1}));
  compute_.FinishAll();
  ASSERT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_EQ(compute_.backwards[0].segment, std::nullopt);
  EXPECT_THAT(links_.returned, SizeIs(1));
  EXPECT_THAT(links_.notices, IsEmpty());
}

// --- the device, and new beginnings ----------------------------------------------------

TEST_F(StageServerTest, DeviceFailureIsReportedOnceAndNothingMoreIsRun) {
  Take(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  compute_.FailNext(absl::InternalError("out of memory"));
  Take(Microbatch(Work(2)));
  ASSERT_THAT(links_.failures, SizeIs(1));
  EXPECT_EQ(links_.failures[0].code(), absl::StatusCode::kInternal);
  EXPECT_EQ(compute_.waiting(), 0u);
}

TEST_F(StageServerTest, FailureInBackwardAddsAndReportsNothing) {
  Pass(Microbatch(Work(0)));
  GiveBack(Work(0));
  compute_.FailNext(absl::InternalError("device lost"));
  EXPECT_THAT(links_.failures, SizeIs(1));
  EXPECT_THAT(links_.notices, IsEmpty());
  EXPECT_THAT(links_.returned, IsEmpty());
}

TEST_F(StageServerTest, ShuttingDownIsNoFailure) {
  Take(Microbatch(Work(0)));
  compute_.FailNext(absl::CancelledError("shutting down"));
  EXPECT_THAT(links_.failures, IsEmpty());
}

TEST_F(StageServerTest, ResetForgetsEverythingAndIgnoresEarlierCompletions) {
  Pass(Microbatch(Work(0)));
  Promise({kUp2});
  Take(Microbatch(Work(1)));
  server_->Reset(Version{4});
  EXPECT_EQ(server_->version(), Version{4});
  EXPECT_EQ(server_->load().queued, 0u);
  EXPECT_EQ(Take(Microbatch(Work(0, 5)), kUp2), absl::StatusCode::kOk);
  compute_.Finish();  // microbatch 1 of before
  links_.sent[0].accepted(absl::StatusCode::kOk);
  EXPECT_THAT(links_.sent, SizeIs(1)) << "what was before the reset goes nowhere";
  compute_.Finish();
  ASSERT_THAT(links_.sent, SizeIs(2));
  EXPECT_EQ(links_.sent[1].forward.work, Work(0, 5));
}

TEST_F(StageServerTest, CompletionsAfterItIsGoneAreHarmless) {
  Take(Microbatch(Work(0)));
  server_.reset();
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, IsEmpty());
}

TEST_F(StageServerTest, DecisionForgetsTheStepWhateverIsStillUnderWay) {
  Pass(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  Take(Microbatch(Work(2)));
  server_->OnVersion(Version{1});
  EXPECT_EQ(server_->load().queued, 0u);
  compute_.FinishAll();
  EXPECT_THAT(links_.sent, SizeIs(1));
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1"));
  Pass(Microbatch(Work(0, 2)));
}

}  // namespace
}  // namespace starling
