#include "runtime/peer/step_clock.h"

#include "gtest/gtest.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;

// A clock, and the time that it is told.
class StepClockTest : public testing::Test {
 protected:
  absl::Time After(int64_t ms) { return now_ += absl::Milliseconds(ms); }
  static absl::Duration Took(int64_t ms) { return absl::Milliseconds(ms); }
  // A pass of `ms`, posted now.
  void Pass(StepPart part, int64_t ms) {
    clock_.OpPosted(now_, true);
    clock_.OpDone(After(ms), part, Took(ms));
  }
  void Operation(StepPart part, int64_t ms) {
    clock_.OpPosted(now_, false);
    clock_.OpDone(After(ms), part);
  }
  // From here on steps are whole.
  void BeginWholeStep() {
    clock_.Start(now_);
    clock_.Seal(now_);
    clock_.OnVersion(now_);
  }
  static uint64_t Ms(const StepTimes& times, StepPart part) { return times[part] / kMillisecond; }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  StepClock clock_;
};

TEST_F(StepClockTest, PartsOfAWholeStepAreNamedAndAddUp) {
  BeginWholeStep();
  now_ += absl::Milliseconds(5);
  Pass(StepPart::kEvaluating, 2);
  After(3);
  Pass(StepPart::kForward, 10);
  After(7);
  Pass(StepPart::kBackward, 20);
  After(4);
  Operation(StepPart::kReducing, 1);  // the seal
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kEvaluating), 2u);
  EXPECT_EQ(Ms(times, StepPart::kForward), 10u);
  EXPECT_EQ(Ms(times, StepPart::kBackward), 20u);
  EXPECT_EQ(Ms(times, StepPart::kInput), 15u);
  EXPECT_EQ(Ms(times, StepPart::kIdle), 4u) << "nothing came after it";
  EXPECT_EQ(Ms(times, StepPart::kReducing), 1u);
  EXPECT_EQ(times.microbatches, 1u);
  EXPECT_EQ(times.total(), 52 * kMillisecond);
}

TEST_F(StepClockTest, WhatTheDeviceDidNotMeasureIsHandover) {
  BeginWholeStep();
  clock_.OpPosted(now_, true);
  clock_.OpDone(After(20), StepPart::kBackward, Took(15));
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kBackward), 15u);
  EXPECT_EQ(Ms(times, StepPart::kHandover), 5u);
}

TEST_F(StepClockTest, CodecsTakeTimeOfTheStepOnlyWhileTheDeviceHasNothing) {
  BeginWholeStep();
  clock_.CodecPosted(After(1), StepPart::kDecoding);
  After(3);
  clock_.OpPosted(now_, true);
  clock_.CodecPosted(After(4), StepPart::kEncoding);
  clock_.CodecDone(After(2), StepPart::kDecoding);
  clock_.OpDone(After(4), StepPart::kForward, Took(10));
  clock_.SetNoTaker(now_, true);
  clock_.CodecDone(After(5), StepPart::kEncoding);
  After(6);
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kInput), 1u);
  EXPECT_EQ(Ms(times, StepPart::kDecoding), 3u);
  EXPECT_EQ(Ms(times, StepPart::kForward), 10u);
  EXPECT_EQ(Ms(times, StepPart::kEncoding), 5u);
  EXPECT_EQ(Ms(times, StepPart::kSlot), 6u);
}

TEST_F(StepClockTest, MeasuredBeyondWhatPassedIsCutOff) {
  BeginWholeStep();
  clock_.OpPosted(now_, true);
  clock_.OpDone(After(8), StepPart::kForward, Took(10));
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kForward), 8u);
  EXPECT_EQ(times.total(), 8 * kMillisecond);
}

TEST_F(StepClockTest, AnOperationBehindAnotherIsChargedFromWhereThatEnds) {
  BeginWholeStep();
  clock_.OpPosted(now_, false);
  clock_.OpPosted(After(1), true);
  clock_.OpDone(After(4), StepPart::kApplying);
  clock_.OpDone(After(6), StepPart::kForward, Took(6));
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kApplying), 5u);
  EXPECT_EQ(Ms(times, StepPart::kForward), 6u);
  EXPECT_EQ(times.total(), 11 * kMillisecond);
}

TEST_F(StepClockTest, OutputThatNobodyTakesIsASlotOnlyWhileTheDeviceHasNothing) {
  BeginWholeStep();
  clock_.SetNoTaker(now_, true);
  Pass(StepPart::kForward, 10);
  After(7);
  clock_.SetNoTaker(now_, false);
  After(2);
  Pass(StepPart::kBackward, 1);
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kSlot), 7u);
  EXPECT_EQ(Ms(times, StepPart::kInput), 2u);
}

TEST_F(StepClockTest, StepRunsFromSealToSealAndItsRoundBelongsToTheNext) {
  BeginWholeStep();
  Pass(StepPart::kBackward, 5);
  EXPECT_EQ(clock_.Seal(now_).total(), 5 * kMillisecond);
  Operation(StepPart::kReducing, 3);
  clock_.OnReactorReduced(now_, absl::Milliseconds(2));
  After(6);
  clock_.OpPosted(now_, false);
  clock_.OnVersion(now_);  // posted behind the update
  clock_.OpDone(After(4), StepPart::kApplying);
  Pass(StepPart::kForward, 1);
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(Ms(times, StepPart::kBackward), 0u);
  EXPECT_EQ(Ms(times, StepPart::kReducing), 5u);
  EXPECT_EQ(Ms(times, StepPart::kDeciding), 4u);
  EXPECT_EQ(Ms(times, StepPart::kApplying), 4u);
  EXPECT_EQ(Ms(times, StepPart::kForward), 1u);
  EXPECT_EQ(times.total(), 14 * kMillisecond);
}

TEST_F(StepClockTest, SealedAgainItTellsTheTimeUntilThen) {
  BeginWholeStep();
  Pass(StepPart::kBackward, 5);
  EXPECT_EQ(clock_.Seal(now_).total(), 5 * kMillisecond);
  After(2);
  Pass(StepPart::kForward, 3);  // a replay
  const StepTimes again = clock_.Seal(now_);
  EXPECT_EQ(Ms(again, StepPart::kDeciding), 2u);
  EXPECT_EQ(again.total(), 10 * kMillisecond);
  clock_.OnVersion(After(1));
  EXPECT_EQ(clock_.Seal(now_).total(), 1 * kMillisecond);
}

TEST_F(StepClockTest, TheFirstStepAndOneThatWasBrokenOffAreNotWhole) {
  clock_.Start(now_);
  Pass(StepPart::kBackward, 5);
  EXPECT_EQ(clock_.Seal(now_).total(), 0u);
  clock_.OnVersion(now_);
  clock_.Stop();
  After(100);
  EXPECT_EQ(clock_.Seal(now_).total(), 0u);
  clock_.Start(now_);
  EXPECT_EQ(clock_.Seal(After(1)).total(), 0u);
}

TEST_F(StepClockTest, OperationsOfADeviceThatIsGoneHoldNothingUp) {
  BeginWholeStep();
  clock_.OpPosted(now_, true);
  clock_.OpPosted(now_, false);
  clock_.Forget(After(3));
  After(4);
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(times.total(), 7 * kMillisecond);
  EXPECT_EQ(Ms(times, StepPart::kIdle), 4u);
}

TEST_F(StepClockTest, AcceptedOutputsAreCounted) {
  BeginWholeStep();
  clock_.OnAccepted(absl::Milliseconds(3));
  clock_.OnAccepted(absl::Milliseconds(5));
  const StepTimes times = clock_.Seal(now_);
  EXPECT_EQ(times.sent, 2u);
  EXPECT_EQ(times.sending_ns, 8 * kMillisecond);
  clock_.OnVersion(now_);
  EXPECT_EQ(clock_.Seal(now_).sent, 0u);
}

// Whatever happens, in whatever order: a step's parts are the time between its seals, to the
// nanosecond.
TEST_F(StepClockTest, PartsAddUpToTheTimeThatPassedWhateverHappened) {
  constexpr StepPart kCodecs[] = {StepPart::kDecoding, StepPart::kEncoding};
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    StepClock clock;
    absl::Time now = absl::UnixEpoch() + absl::Nanoseconds(static_cast<int64_t>(rng.Below(1000)));
    clock.Start(now);
    absl::Time last_seal = now;
    absl::Time step_began = now;
    bool sealed = false;
    uint32_t posted = 0;
    uint32_t coding[2] = {0, 0};
    int steps = 0;
    for (int i = 0; i < 400; ++i) {
      now += absl::Nanoseconds(static_cast<int64_t>(rng.Below(3) * rng.Below(5'000'000)));
      const auto some = [&] {
        return absl::Nanoseconds(static_cast<int64_t>(rng.Below(4'000'000)));
      };
      switch (rng.Below(10)) {
        case 0:
        case 1:
          clock.OpPosted(now, rng.Chance(0.7));
          ++posted;
          break;
        case 2:
        case 3:
        case 4:
          if (posted == 0) break;
          --posted;
          clock.OpDone(now, static_cast<StepPart>(rng.Below(kStepParts)), some());
          break;
        case 5:
          clock.SetNoTaker(now, rng.Chance(0.5));
          break;
        case 6:
          clock.OnReactorReduced(now, some());
          break;
        case 7: {
          const StepTimes times = clock.Seal(now);
          if (steps > 0) {
            ASSERT_EQ(times.total(),
                      static_cast<uint64_t>(absl::ToInt64Nanoseconds(now - step_began)))
                << "seed " << seed;
          }
          last_seal = now;
          sealed = true;
          break;
        }
        case 8:
          clock.OnVersion(now);
          if (!sealed) break;
          sealed = false;
          step_began = last_seal;
          ++steps;
          break;
        case 9: {
          const size_t codec = rng.Below(2);
          if (coding[codec] > 0 && rng.Chance(0.6)) {
            --coding[codec];
            clock.CodecDone(now, kCodecs[codec]);
          } else {
            ++coding[codec];
            clock.CodecPosted(now, kCodecs[codec]);
          }
          break;
        }
      }
    }
    ASSERT_GT(steps, 3);
  }
}

}  // namespace
}  // namespace starling
