#include "runtime/trainer/bottleneck.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace starling {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A pipeline of stages that compute `pass_s` per microbatch, and what of the step is left they are
// idle: as the arithmetic in bottleneck.h has it.
TimePicture Pipeline(const std::vector<double>& pass_s, double microbatches, double step_s,
                     uint32_t replicas = 1) {
  TimePicture picture;
  picture.microbatches = microbatches;
  picture.in_flight = 2.0 * static_cast<double>(pass_s.size()) * replicas;
  uint32_t counter = 1;
  for (uint32_t stage = 0; stage < pass_s.size(); ++stage) {
    for (uint32_t r = 0; r < replicas; ++r) {
      MeanTimes times;
      times.replica = {Epoch{1}, counter++};
      times.stage = StageId{stage};
      times.microbatches = microbatches / replicas;
      times[StepPart::kForward] = times.microbatches * pass_s[stage] / 3;
      times[StepPart::kBackward] = times.microbatches * pass_s[stage] * 2 / 3;
      times[StepPart::kApplying] = 0.01 * step_s;
      times[StepPart::kDeciding] = 0.02 * step_s;
      times[StepPart::kInput] = step_s - times.total_s();
      picture.replicas.push_back(times);
    }
  }
  return picture;
}

Bottleneck Gravest(const TimePicture& picture) { return FindBottlenecks(picture).front(); }

// Moves a share of the step from waiting for input to `part`, everywhere.
void Spend(TimePicture* picture, StepPart part, double share) {
  for (MeanTimes& times : picture->replicas) {
    const double seconds = share * times.total_s();
    times[part] += seconds;
    times[StepPart::kInput] -= seconds;
  }
}

TEST(BottleneckTest, NobodyHasToldItsTimes) {
  EXPECT_EQ(Gravest(TimePicture()).cause, Cause::kUnknown);
  TimePicture picture;
  picture.replicas.emplace_back();
  EXPECT_EQ(Gravest(picture).cause, Cause::kUnknown);
}

TEST(BottleneckTest, BalancedRunBlamesNobody) {
  for (uint32_t replicas : {1u, 2u, 3u}) {
    // 64 microbatches of 10 ms, three stages: 2 x 10 ms to fill and drain.
    const double compute_s = 0.64 / replicas;
    const auto found =
        FindBottlenecks(Pipeline({0.010, 0.010, 0.010}, 64, 1.06 * (compute_s + 0.02), replicas));
    ASSERT_EQ(found.size(), 1u) << found[0].reason;
    EXPECT_EQ(found[0].cause, Cause::kComputing) << found[0].reason;
    EXPECT_EQ(found[0].speedup, 1);
  }
}

TEST(BottleneckTest, SmallDifferencesBetweenStagesBlameNobody) {
  EXPECT_EQ(Gravest(Pipeline({0.0100, 0.0105, 0.0095}, 64, 0.72)).cause, Cause::kComputing);
}

TEST(BottleneckTest, OneStageIsOneMachine) {
  const Bottleneck found = Gravest(Pipeline({0.010}, 64, 0.68));
  EXPECT_EQ(found.cause, Cause::kComputing);
  EXPECT_THAT(found.reason, HasSubstr("its only stage computes 94 %"));
}

TEST(BottleneckTest, StageThatComputesMoreThanTheOthersIsNamed) {
  const Bottleneck found = Gravest(Pipeline({0.004, 0.010, 0.004}, 64, 0.68));
  EXPECT_EQ(found.cause, Cause::kStage);
  EXPECT_EQ(found.stage, StageId{1});
  EXPECT_THAT(found.reason, HasSubstr("stage 1 limits this run: its replica computes 94 % of the "
                                      "step, those of the other stages 38 % on average"));
  EXPECT_THAT(found.advice, HasSubstr("swarm.cuts"));
  // One more replica: 47 % there; better cuts: 56 % everywhere. 1 / (1 - (0.94 - 0.47)).
  EXPECT_NEAR(found.speedup, 1.89, 0.02);
}

TEST(BottleneckTest, BetterCutsMayBringMoreThanOneMoreReplica) {
  // One more replica leaves the next stage with 78 %, even cuts would leave 51 % everywhere.
  const Bottleneck found = Gravest(Pipeline({0.010, 0.012, 0.002, 0.002}, 64, 0.82));
  EXPECT_EQ(found.stage, StageId{1});
  EXPECT_NEAR(found.share, 0.937 - 0.507, 0.01);
}

TEST(BottleneckTest, SlowReplicaThatItsSiblingsWaitForIsNamed) {
  TimePicture picture = Pipeline({0.010, 0.010}, 64, 0.5, 2);
  MeanTimes& slow = picture.replicas[3];
  slow[StepPart::kBackward] = 0.40;
  slow[StepPart::kForward] = 0.05;
  slow[StepPart::kInput] = 0.5 - 0.45 - 0.015;
  slow.microbatches = 12;
  const Bottleneck found = Gravest(picture);
  EXPECT_EQ(found.cause, Cause::kReplica) << found.reason;
  EXPECT_EQ(found.stage, StageId{1});
  EXPECT_THAT(found.reason, HasSubstr("replica 1.4 of stage 1 is slow: 38 ms per microbatch, its "
                                      "siblings 10 ms"));
}

TEST(BottleneckTest, SlowReplicaThatHoldsNobodyUpIsNotBlamed) {
  TimePicture picture = Pipeline({0.010, 0.010}, 64, 0.36, 2);
  picture.replicas[3].microbatches = 10;  // at three times the price, just as busy
  picture.replicas[2].microbatches = 54;
  EXPECT_EQ(Gravest(picture).cause, Cause::kComputing);
}

TEST(BottleneckTest, ShortStepsWaitForThePipelineToFill) {
  // Four microbatches through four stages: 3 of 7 turns are empty.
  const Bottleneck found = Gravest(Pipeline({0.1, 0.1, 0.1, 0.1}, 4, 0.73));
  EXPECT_EQ(found.cause, Cause::kFewMicrobatches) << found.reason;
  EXPECT_NEAR(found.share, 0.3 / 0.73, 0.02);
  EXPECT_THAT(found.reason, HasSubstr("first of 4 microbatches go through 4 stages"));
  EXPECT_THAT(found.advice, HasSubstr("train.global_batch"));
}

TEST(BottleneckTest, SmallWindowIsNamedWithTheOneThatIsNeeded) {
  TimePicture picture = Pipeline({0.1, 0.1, 0.1, 0.1}, 32, 6.5);
  picture.in_flight = 2;
  const Bottleneck found = Gravest(picture);
  EXPECT_EQ(found.cause, Cause::kWindow) << found.reason;
  EXPECT_THAT(found.advice, HasSubstr("A swarm.window of 4 or more"));
}

TEST(BottleneckTest, SlowLinksAreNamedWithWhatWasSeenOfThem) {
  // A microbatch is 3 x 10 ms computed on and 2 x 100 ms on the way; six are in flight.
  TimePicture picture = Pipeline({0.010, 0.010, 0.010}, 60, 10 * 0.23);
  for (MeanTimes& times : picture.replicas) {
    times.sending_s = Value(times.stage) < 2 ? 0.1 : 0;
  }
  picture.boundary_bytes = 1e6;
  const Bottleneck found = Gravest(picture);
  EXPECT_EQ(found.cause, Cause::kLinks) << found.reason;
  EXPECT_THAT(found.reason, HasSubstr("100 ms until an output of stage 0 has arrived (1.0 MB each, "
                                      "so 10.0 MB/s or the distance)"));
  EXPECT_THAT(found.advice, HasSubstr("Boundaries in int8 (codec.forward, codec.backward) would "
                                      "be a quarter of the bytes."));
  EXPECT_THAT(found.advice, HasSubstr("With 23 microbatches in flight, now 6 (swarm.window), "));

  picture.boundaries = Encoding::kInt8;
  EXPECT_THAT(Gravest(picture).advice, Not(HasSubstr("codec.")));
  picture.boundaries = Encoding::kRaw;
  picture.boundary_bytes = 100;  // it is the distance, then
  EXPECT_THAT(Gravest(picture).advice, Not(HasSubstr("codec.")));
}

TEST(BottleneckTest, WaitingThatNothingExplainsIsSaidToBeThat) {
  EXPECT_EQ(Gravest(Pipeline({0.010, 0.010}, 64, 2.0)).cause, Cause::kWaiting);
  EXPECT_EQ(Gravest(Pipeline({0.010, 0.010}, 64, 0.77)).cause, Cause::kComputing)
      << "a sixth of the step, as passes of uneven length make it";
}

TEST(BottleneckTest, OutputsThatNobodyTakesPointAtTheNextStage) {
  TimePicture picture = Pipeline({0.005, 0.005}, 64, 0.68);
  MeanTimes& first = picture.replicas[0];
  first[StepPart::kSlot] = 0.30;
  first[StepPart::kInput] -= 0.30;
  first[StepPart::kForward] += 0.02;
  picture.replicas[1][StepPart::kForward] += first[StepPart::kInput];  // it is always at work
  picture.replicas[1][StepPart::kInput] = 0.02;
  const auto found = FindBottlenecks(picture);
  const auto slots = std::find_if(found.begin(), found.end(),
                                  [](const auto& b) { return b.cause == Cause::kSlots; });
  ASSERT_NE(slots, found.end());
  EXPECT_EQ(slots->stage, StageId{1});
}

TEST(BottleneckTest, EndOfTheStepIsNamedAndNarrowerRoundsOnlyWhereTheyTravel) {
  TimePicture picture = Pipeline({0.004, 0.004}, 64, 0.72, 2);
  Spend(&picture, StepPart::kReducing, 0.25);
  Spend(&picture, StepPart::kDeciding, 0.30);
  const Bottleneck found = Gravest(picture);
  EXPECT_EQ(found.cause, Cause::kRound) << found.reason;
  EXPECT_NEAR(found.share, 0.57, 0.01);
  EXPECT_THAT(found.advice, HasSubstr("codec.round = \"bf16\""));
  picture.round = Encoding::kBF16;
  EXPECT_THAT(Gravest(picture).advice, Not(HasSubstr("codec.round")));

  TimePicture alone = Pipeline({0.004, 0.004}, 64, 0.72, 1);
  Spend(&alone, StepPart::kReducing, 0.55);
  EXPECT_EQ(Gravest(alone).cause, Cause::kRound);
  EXPECT_THAT(Gravest(alone).advice, Not(HasSubstr("codec.round")));
}

TEST(BottleneckTest, WhatElseTakesTimeIsNamed) {
  const std::pair<StepPart, Cause> kCases[] = {
      {StepPart::kApplying, Cause::kUpdate}, {StepPart::kEvaluating, Cause::kEvaluation},
      {StepPart::kCopying, Cause::kCopies},  {StepPart::kEncoding, Cause::kCodecs},
      {StepPart::kDecoding, Cause::kCodecs}, {StepPart::kHandover, Cause::kThreads}};
  for (const auto& [part, cause] : kCases) {
    TimePicture picture = Pipeline({0.005, 0.005}, 64, 0.68);
    Spend(&picture, part, 0.45);
    EXPECT_EQ(Gravest(picture).cause, cause) << ToString(part) << ": " << Gravest(picture).reason;
    EXPECT_GT(Gravest(picture).share, 0.4) << ToString(part);
  }
}

TEST(BottleneckTest, ReadingOfDataIsNamed) {
  TimePicture picture = Pipeline({0.010, 0.010}, 64, 1.3);
  picture.feeding_s = 0.8;
  EXPECT_EQ(Gravest(picture).cause, Cause::kData);
}

TEST(BottleneckTest, TheGravestComesFirstAndNothingBelowATenthIsBlamed) {
  TimePicture picture = Pipeline({0.004, 0.008, 0.004}, 64, 0.68);
  Spend(&picture, StepPart::kEvaluating, 0.12);
  Spend(&picture, StepPart::kApplying, 0.05);
  const auto found = FindBottlenecks(picture);
  ASSERT_GE(found.size(), 2u);
  EXPECT_EQ(found[0].cause, Cause::kStage);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_GE(found[i].share, kLeastBlame);
    EXPECT_NE(found[i].cause, Cause::kUpdate);
    EXPECT_LE(found[i].share, found[i > 0 ? i - 1 : 0].share);
  }
}

TEST(BottleneckTest, WordsAreSentencesWithWhatItWouldBring) {
  const std::string words = ToWords(Gravest(Pipeline({0.004, 0.010, 0.004}, 64, 0.68)));
  EXPECT_THAT(words, testing::StartsWith("Stage 1 limits this run: "));
  EXPECT_THAT(words, testing::EndsWith("At most 1.9 times the throughput."));
  EXPECT_THAT(ToWords(Gravest(Pipeline({0.010}, 64, 0.68))), Not(HasSubstr("At most")));
}

}  // namespace
}  // namespace starling
