// StageServer and boundaries that travel encoded: what it asks for, and that the device does not
// wait for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/stages/stage_server_harness.h"

namespace starling {
namespace {

using namespace stage_server_testing;  // NOLINT: its own harness
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class CodedBoundaryTest : public StageServerTest {
 protected:
  CodedBoundaryTest() {
    forward_ = {Encoding::kInt8, Rounding::kStochastic};
    backward_ = {Encoding::kF16, Rounding::kNearest};
    compute_.hold_codecs = true;
    Serve(1);
  }

  static Blob Coded(float value) { return EncodeBlob(Number(value), {Encoding::kF16}); }
  static Forward CodedMicrobatch(WorkId work) {
    Forward forward = Microbatch(work);
    forward.input = Coded(3);
    return forward;
  }
  // To where its gradient is on the device.
  void Return(WorkId work) {
    Take(Microbatch(work));
    compute_.Finish();
    compute_.FinishCodecs();
    links_.sent.back().accepted(absl::StatusCode::kOk);
    GiveBack(work);
  }
};

TEST_F(CodedBoundaryTest, TheDeviceTakesOthersWhileAnInputIsDecoded) {
  Take(CodedMicrobatch(Work(0)));
  EXPECT_THAT(compute_.posted(), IsEmpty());
  Take(Microbatch(Work(1)));
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/1"));
  compute_.FinishCodecs();
  Take(Microbatch(Work(2)));
  compute_.Finish();
  compute_.Finish();
  compute_.FinishCodecs();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/1", "forward 1/0", "forward 1/2"))
      << "in the order they came";
  EXPECT_FALSE(compute_.forwards[1].input.encoded());
  EXPECT_THAT(compute_.forwards[1].input.As<float>(), ElementsAre(3));
}

TEST_F(CodedBoundaryTest, TheDeviceGoesOnWhileAnOutputIsEncoded) {
  Take(Microbatch(Work(0)));
  Take(Microbatch(Work(1)));
  compute_.Finish();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1"));
  EXPECT_THAT(links_.sent, IsEmpty());
  compute_.FinishCodecs();
  ASSERT_THAT(links_.sent, SizeIs(1));
  EXPECT_EQ(links_.sent[0].forward.work, Work(0));
  EXPECT_EQ(links_.sent[0].forward.input.encoding(), Encoding::kInt8);
  EXPECT_EQ(server_->log_bytes(), links_.sent[0].forward.input.size_bytes() + 4) << "and targets";
}

TEST_F(CodedBoundaryTest, TheDeviceGetsNoFurtherAheadOfTheEncoderThanTwoOutputs) {
  for (uint32_t i = 0; i < 4; ++i) Take(Microbatch(Work(i)));
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1"));
  compute_.FinishCodec();
  EXPECT_THAT(compute_.posted(), SizeIs(3));
  compute_.FinishCodecs();
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), SizeIs(4));
}

TEST_F(CodedBoundaryTest, OnlyTheFirstTwoOfTheQueueAreDecodedAhead) {
  for (uint32_t i = 0; i < 4; ++i) Take(CodedMicrobatch(Work(i)));
  EXPECT_EQ(compute_.decodes, 2);
  compute_.FinishCodec();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0"));
  EXPECT_EQ(compute_.decodes, 3);
}

TEST_F(CodedBoundaryTest, AGradientIsDecodedBeforeInputsThatWaitedLonger) {
  Take(Microbatch(Work(9)));
  compute_.Finish();
  compute_.FinishCodecs();
  for (uint32_t i = 0; i < 4; ++i) Take(CodedMicrobatch(Work(i)));
  compute_.FinishCodec();  // the first of them is on the device, two are being decoded
  server_->OnBackward(kDown, {Work(9), Coded(5)});
  compute_.FinishCodec();
  EXPECT_EQ(compute_.decodes, 4);
  compute_.FinishCodecs();
  compute_.Finish();
  EXPECT_EQ(compute_.posted().back(), "backward 1/9");
}

TEST_F(CodedBoundaryTest, AGradientIsDecodedBeforeItsTurn) {
  Take(Microbatch(Work(0)));
  compute_.Finish();
  compute_.FinishCodecs();
  server_->OnBackward(kDown, {Work(0), Coded(5)});
  EXPECT_THAT(compute_.backwards, IsEmpty());
  compute_.FinishCodecs();
  ASSERT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_THAT(compute_.backwards[0].gradient.As<float>(), ElementsAre(5));
}

TEST_F(CodedBoundaryTest, AnAdditionIsToldAtOnceAndTheDeviceGoesOnWhileTheGradientIsEncoded) {
  Return(Work(0));
  Take(Microbatch(Work(1)));
  compute_.Finish();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "backward 1/0", "forward 1/1"));
  ASSERT_THAT(links_.notices, SizeIs(1));
  EXPECT_EQ(links_.notices[0].progress, Progress::kAdded);
  EXPECT_THAT(links_.returned, IsEmpty());
  compute_.FinishCodec();
  ASSERT_THAT(links_.returned, SizeIs(1));
  EXPECT_EQ(links_.returned[0].backward.gradient.encoding(), Encoding::kF16);
  EXPECT_EQ(server_->sent(Step{1}).backward, links_.returned[0].backward.gradient.size_bytes());
}

TEST_F(CodedBoundaryTest, ASecondGradientThatComesWhileTheFirstIsDecodedIsDropped) {
  Take(Microbatch(Work(0)));
  compute_.Finish();
  compute_.FinishCodecs();
  server_->OnBackward(kDown, {Work(0), Coded(5)});
  server_->OnBackward(kDown, {Work(0), Coded(6)});
  EXPECT_EQ(server_->counters().second_gradients, 1u);
  server_->OnCancel({{Work(0)}, 7});  // too late: it counts on its gradient
  compute_.FinishCodecs();
  ASSERT_THAT(compute_.backwards, SizeIs(1));
  EXPECT_THAT(compute_.backwards[0].gradient.As<float>(), ElementsAre(5));
}

TEST_F(CodedBoundaryTest, NobodyFencedGetsTheGradientThatIsBeingEncoded) {
  Return(Work(0));
  compute_.Finish();
  Promise({kUp});
  compute_.FinishCodecs();
  EXPECT_THAT(links_.returned, IsEmpty());
}

TEST_F(CodedBoundaryTest, ASealDoesNotWaitForTheGradientThatIsBeingEncoded) {
  Return(Work(0));
  compute_.Finish();
  size_t segments = 0;
  server_->OnSeal(Step{1}, [&](const auto& sealed) { segments = sealed->size(); });
  compute_.Finish();
  EXPECT_EQ(segments, 1u);
  compute_.FinishCodecs();
  EXPECT_THAT(links_.returned, SizeIs(1));
}

TEST_F(CodedBoundaryTest, EarlyWorkIsDecodedWhenItsVersionIsThere) {
  Forward early = CodedMicrobatch(Work(0, 2));
  Take(early);
  EXPECT_EQ(compute_.decodes, 0);
  server_->OnVersion(Version{1});
  compute_.FinishCodecs();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 2/0"));
}

TEST_F(CodedBoundaryTest, AClaimMadeWhileTheOutputIsBeingEncodedIsServedInTheEnd) {
  Take(Microbatch(Work(0)));
  compute_.Finish();
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  compute_.FinishCodecs();
  links_.sent.back().accepted(absl::StatusCode::kOk);
  GiveBack(Work(0));
  compute_.FinishAll();
  compute_.FinishCodecs();
  ASSERT_FALSE(links_.returned.empty());
  EXPECT_EQ(links_.returned.back().to, kUp2);
}

TEST_F(CodedBoundaryTest, AClaimIsServedThoughTheGradientIsBeingEncoded) {
  Return(Work(0));
  compute_.Finish();
  EXPECT_EQ(server_->OnClaim(kUp2, {Work(0), kMended}), absl::StatusCode::kOk);
  EXPECT_THAT(links_.returned, IsEmpty());
  compute_.FinishCodecs();
  ASSERT_THAT(links_.returned, SizeIs(2));
  EXPECT_EQ(links_.returned[1].to, kUp2);
  EXPECT_EQ(links_.returned[1].backward.work.attempt, kMended);
}

TEST_F(CodedBoundaryTest, AnOutputThatIsBeingEncodedIsNotThereYet) {
  Take(Microbatch(Work(0)));
  compute_.Finish();
  EXPECT_EQ(SendAgain(Again(Work(0))), absl::StatusCode::kAborted);
  const FenceAck ack = Promise({kDown2});
  ASSERT_THAT(ack.held, SizeIs(1));
  EXPECT_EQ(ack.held[0].state, HeldState::kOpen);
  EXPECT_FALSE(ack.held[0].output_kept);
  EXPECT_TRUE(ack.held[0].gradient_kept) << "it will be";
}

TEST_F(CodedBoundaryTest, WhatIsCancelledWhileItIsCodedGoesNoFurther) {
  Take(CodedMicrobatch(Work(0)));
  Take(Microbatch(Work(1)));
  compute_.Finish();
  server_->OnCancel({{Work(0), Work(1)}, 7});
  compute_.FinishCodecs();
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/1"));
  EXPECT_THAT(links_.sent, IsEmpty());
  EXPECT_THAT(compute_.dropped, ElementsAre(0, 1));
}

TEST_F(CodedBoundaryTest, WhatIsBeingCodedWhenItsStepIsOverIsForgotten) {
  Return(Work(0));
  compute_.Finish();
  Take(CodedMicrobatch(Work(1)));
  server_->OnVersion(Version{1});
  compute_.FinishCodecs();
  EXPECT_THAT(links_.returned, IsEmpty());
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "backward 1/0"));
  EXPECT_EQ(server_->log_bytes(), 0u);
}

TEST_F(CodedBoundaryTest, AResetForgetsWhatIsBeingCoded) {
  Take(Microbatch(Work(0)));
  compute_.Finish();
  Take(CodedMicrobatch(Work(1)));
  server_->Reset(Version{0});
  Take(CodedMicrobatch(Work(1)));  // once more, in the new life
  compute_.FinishCodecs();
  EXPECT_THAT(links_.sent, IsEmpty());
  EXPECT_THAT(compute_.posted(), ElementsAre("forward 1/0", "forward 1/1"));
}

TEST_F(CodedBoundaryTest, NothingIsRunBehindACodecThatFailed) {
  Take(Microbatch(Work(2)));
  Take(CodedMicrobatch(Work(0)));
  Take(CodedMicrobatch(Work(1)));
  compute_.codec_failure = absl::ResourceExhaustedError("too much at once");
  compute_.FinishCodecs();
  EXPECT_THAT(links_.failures, SizeIs(1)) << "one for all";
  Take(Microbatch(Work(3)));
  compute_.FinishAll();
  EXPECT_THAT(compute_.posted(), SizeIs(1)) << "what was on the device";
  server_->Reset(Version{0});
  Take(Microbatch(Work(3)));
  EXPECT_THAT(compute_.posted(), SizeIs(2));
}

// The same key whoever computes it and under whatever name; another one for all else.
TEST_F(CodedBoundaryTest, KeyOfTheRoundingNamesTheMicrobatchAndNotTheAttempt) {
  compute_.hold_codecs = false;
  Complete(Microbatch(Work(0)));
  Complete(Microbatch(Work(1)));
  Complete(Microbatch(Work(0, 1, 2), {1}));
  ASSERT_THAT(compute_.codings, SizeIs(6)) << "output and gradient of each";
  const Coding forward = compute_.codings[0];
  const Coding backward = compute_.codings[1];
  EXPECT_EQ(forward.encoding, Encoding::kInt8);
  EXPECT_EQ(forward.rounding, Rounding::kStochastic);
  EXPECT_EQ(backward.encoding, Encoding::kF16);
  EXPECT_EQ(compute_.codings[4].key, forward.key);
  EXPECT_EQ(compute_.codings[5].key, backward.key);
  std::set<uint64_t> keys = {forward.key, backward.key, compute_.codings[2].key,
                             compute_.codings[3].key};
  server_->OnVersion(Version{1});
  Complete(Microbatch(Work(0, 2)));
  keys.insert(compute_.codings[6].key);
  Serve(0);
  Complete(Microbatch(Work(0)));
  keys.insert(compute_.codings[8].key);
  EXPECT_THAT(keys, SizeIs(6));
}

TEST_F(CodedBoundaryTest, BytesOfBoundariesSentAreCountedByStep) {
  compute_.hold_codecs = false;
  Complete(Microbatch(Work(0)));
  EXPECT_EQ(server_->sent(Step{1}).forward, 5u);
  EXPECT_EQ(server_->sent(Step{1}).backward, 2u);
  Complete(Microbatch(Work(1)));
  EXPECT_EQ(server_->sent(Step{1}).forward, 10u);
  Take(Evaluation(5));
  compute_.FinishAll();
  EXPECT_EQ(server_->sent(Step{1}).forward, 10u) << "evaluations do not count";
  server_->OnVersion(Version{1});
  EXPECT_EQ(server_->sent(Step{1}).forward, 0u);
  EXPECT_EQ(server_->sent(Step{1}).backward, 0u);
}

}  // namespace
}  // namespace starling
