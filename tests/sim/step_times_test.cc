// Where replicas' time goes in the virtual swarm, and what the trainer makes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

constexpr size_t kSteps = 12;

// Steps long enough for three stages, and nothing beside them.
SwarmOptions LongSteps(uint32_t stages, uint32_t replicas) {
  SwarmOptions options = Calm(stages, replicas);
  options.microbatches = 48 * replicas;
  options.steps = kSteps + 1;
  options.eval_every = 0;
  options.checkpoint_every = 0;
  return options;
}

// The table, for a test that fails.
std::string Table(const SwarmWorld& swarm) {
  std::string text;
  for (const ReplicaTimes& replica : swarm.steps().back().times) {
    absl::StrAppend(&text, "stage ", Value(replica.stage), " ", ToString(replica.replica), ":");
    for (size_t i = 0; i < kStepParts; ++i) {
      absl::StrAppend(&text, " ", ToString(static_cast<StepPart>(i)), " ",
                      replica.times.parts[i] / 1000, " us");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

Bottleneck Gravest(SwarmWorld& swarm) {
  RunTo(swarm, kSteps);
  return swarm.trainer()->Bottlenecks(TimeSpan::kRecent).front();
}

void ExpectCause(SwarmWorld& swarm, Cause cause, std::optional<StageId> stage = {}) {
  const Bottleneck found = Gravest(swarm);
  EXPECT_EQ(found.cause, cause) << ToWords(found) << "\n" << Table(swarm);
  EXPECT_EQ(found.stage, stage ? stage : found.stage) << ToWords(found);
}

TEST(StepTimesTest, EveryReplicaTellsAllButItsFirstStepAndTheyAddUpToTheRun) {
  for (uint32_t replicas : {1u, 2u, 3u}) {
    SwarmOptions options = LongSteps(3, replicas);
    options.eval_every = 3;
    options.checkpoint_every = 4;
    SwarmWorld swarm(options);
    ExpectGoodEnd(swarm);
    EXPECT_TRUE(swarm.steps().front().times.empty());
    std::map<Incarnation, double> told_s;
    double steps_s = 0;
    for (size_t i = 1; i < swarm.steps().size(); ++i) {
      const StepReport& step = swarm.steps()[i];
      steps_s += step.step_s;
      ASSERT_EQ(step.times.size(), 3 * replicas);
      for (const ReplicaTimes& replica : step.times) {
        told_s[replica.replica] += 1e-9 * static_cast<double>(replica.times.total());
      }
    }
    // From seal to seal here, from decision to decision there.
    for (const auto& [replica, seconds] : told_s) EXPECT_NEAR(seconds / steps_s, 1, 0.02);
  }
}

TEST(StepTimesTest, PartsAreWhatTheDeviceWasGiven) {
  SwarmOptions options = LongSteps(2, 1);
  options.world.speed.jitter = 0;
  options.world.speed.answer = absl::ZeroDuration();
  SwarmWorld swarm(options);
  RunTo(swarm, 3);
  for (const ReplicaTimes& replica : swarm.steps().back().times) {
    EXPECT_EQ(replica.times[StepPart::kForward], 48u * 4'000'000);
    EXPECT_EQ(replica.times[StepPart::kBackward], 48u * 8'000'000);
    EXPECT_EQ(replica.times[StepPart::kApplying], 1'000'000u);
    EXPECT_EQ(replica.times[StepPart::kReducing], 250'000u);
    EXPECT_EQ(replica.times.microbatches, 48u);
    EXPECT_EQ(replica.times.sent, Value(replica.stage) == 0 ? 48u : 0u);
  }
}

TEST(StepTimesTest, BalancedSwarmBlamesNobody) {
  for (uint32_t replicas : {1u, 2u}) {
    for (uint64_t seed : {1, 2, 3, 4}) {
      SwarmOptions options = LongSteps(3, replicas);
      options.world.seed = seed;
      SwarmWorld swarm(options);
      ExpectCause(swarm, Cause::kComputing);
    }
  }
}

TEST(StepTimesTest, SlowStageIsNamed) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmWorld swarm(LongSteps(3, 2));
    for (uint32_t r : {0u, 1u}) swarm.world().faults(swarm.peer_node(stage, r)).slowdown = 2.5;
    ExpectCause(swarm, Cause::kStage, StageId{stage});
  }
}

TEST(StepTimesTest, StageWithOneReplicaLessIsNamed) {
  SwarmOptions options = LongSteps(3, 2);
  SwarmWorld swarm(options);
  RunTo(swarm, 1);
  swarm.world().Crash(swarm.peer_node(1, 1));
  ExpectCause(swarm, Cause::kStage, StageId{1});
}

TEST(StepTimesTest, SlowLinksAreNamed) {
  SwarmOptions options = LongSteps(3, 1);
  options.world.network.delay_min = options.world.network.delay_max = absl::Milliseconds(60);
  SwarmWorld swarm(options);
  ExpectCause(swarm, Cause::kLinks);
}

TEST(StepTimesTest, ShortStepIsNamed) {
  SwarmOptions options = LongSteps(5, 1);
  options.microbatches = 3;
  options.world.network.delay_max = absl::Microseconds(200);
  options.world.network.jitter = absl::Microseconds(100);
  SwarmWorld swarm(options);
  ExpectCause(swarm, Cause::kFewMicrobatches);
}

TEST(StepTimesTest, SmallWindowIsNamed) {
  SwarmOptions options = LongSteps(4, 1);
  options.window = 2;
  options.world.network.delay_max = absl::Microseconds(200);
  options.world.network.jitter = absl::Microseconds(100);
  SwarmWorld swarm(options);
  ExpectCause(swarm, Cause::kWindow);
}

TEST(StepTimesTest, SlowRoundIsNamed) {
  SwarmOptions options = LongSteps(3, 2);
  options.microbatches = 24;
  options.world.speed.read = absl::Milliseconds(400);
  SwarmWorld swarm(options);
  ExpectCause(swarm, Cause::kRound);
}

TEST(StepTimesTest, EvaluationIsNamed) {
  SwarmOptions options = LongSteps(1, 1);
  options.microbatches = 2;
  options.eval_every = 1;
  options.world.speed.forward = absl::Milliseconds(40);
  SwarmWorld swarm(options);
  ExpectCause(swarm, Cause::kEvaluation);
}

// Two replicas of stage 0 hold twice as many microbatches as the one of stage 1 accepts.
TEST(StepTimesTest, OutputThatNobodyTakesIsTimeWithoutASlot) {
  SwarmOptions options = LongSteps(2, 1);
  options.slots = 2;
  SwarmWorld swarm(options);
  swarm.AddPeer(0);
  swarm.world().faults(swarm.peer_node(1, 0)).slowdown = 4;
  RunTo(swarm, 6);
  uint64_t slot_ns = 0;
  for (const ReplicaTimes& replica : swarm.steps().back().times) {
    slot_ns += replica.times[StepPart::kSlot];
  }
  EXPECT_GT(slot_ns, swarm.steps().back().times.front().times.total() / 10) << Table(swarm);
}

// Deaths, stalls, restarts: what is told is of this run, and never more than has passed.
TEST(StepTimesTest, TimesStayWithinTheRunWhateverGoesWrong) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SwarmWorld swarm(SwarmOptions::Drawn(seed));
    EXPECT_TRUE(swarm.RunToEnd(absl::Minutes(30))) << "seed " << seed;
    const double run_s = absl::ToDoubleSeconds(swarm.world().Now() - absl::UnixEpoch());
    std::map<Incarnation, double> told_s;
    for (const StepReport& step : swarm.steps()) {
      for (const ReplicaTimes& replica : step.times) {
        told_s[replica.replica] += 1e-9 * static_cast<double>(replica.times.total());
      }
    }
    for (const auto& [replica, seconds] : told_s) {
      EXPECT_LE(seconds, run_s) << "seed " << seed << " " << ToString(replica);
    }
  }
}

}  // namespace
}  // namespace starling::sim
