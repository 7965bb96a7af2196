// The trainer dies and is started again while its replicas live on: the newest decision is finished
// and no other is taken for its step, nobody returns to a checkpoint where it can be helped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/trainer/decision_log.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr absl::Duration kSoon = absl::Milliseconds(200);

// ... without anybody loading a checkpoint again.
void ExpectGoodEndInTheSameEra(SwarmWorld& swarm) {
  ExpectSixSteps(swarm);
  EXPECT_EQ(swarm.checkers().count("resumed"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
}

bool InPhase(SwarmWorld& swarm, uint64_t step, const std::string& phase) {
  return swarm.trainer() != nullptr && swarm.steps().size() + 1 == step &&
         swarm.trainer()->StatusJson().find("\"phase\":\"" + phase + "\"") != std::string::npos;
}

// The newest step whose record is on the trainer's disk.
uint64_t StepOnDisk(SwarmWorld& swarm) {
  const auto state =
      ReadDecisionLog(swarm.world().disk(swarm.trainer_node()), "run/decisions.jsonl");
  return state.ok() ? Value(state->step) : 0;
}

// How many replicas have come to this many updates.
size_t ReplicasAt(SwarmWorld& swarm, uint32_t updates) {
  size_t count = 0;
  for (const StateSeen& seen : swarm.world().journal().states()) {
    if (!seen.loaded && seen.updates == updates) ++count;
  }
  return count;
}

TEST(TrainerRestartTest, WhileGatheringBeginsFromTheCheckpoint) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_arrived") == 3; }));
  swarm.RestartTrainer(kSoon);
  ExpectSixSteps(swarm);
  EXPECT_EQ(swarm.checkers().count("resumed"), 0u);
}

TEST(TrainerRestartTest, InForwardTakesTheStepAgainAndNothingElse) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return InPhase(swarm, 3, "running"); }));
  swarm.world().At(absl::Milliseconds(30), [&] { swarm.RestartTrainer(kSoon); });
  ExpectGoodEndInTheSameEra(swarm);
}

TEST(TrainerRestartTest, WhileSealingTakesTheStepAgain) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return InPhase(swarm, 3, "sealing"); }));
  swarm.RestartTrainer(kSoon);
  ExpectGoodEndInTheSameEra(swarm);
}

TEST(TrainerRestartTest, WhileReducingTakesTheStepAgain) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return InPhase(swarm, 3, "reducing"); }));
  swarm.RestartTrainer(kSoon);
  ExpectGoodEndInTheSameEra(swarm);
}

TEST(TrainerRestartTest, BetweenRecordAndApplyFinishesThatDecision) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return StepOnDisk(swarm) == 3 && swarm.steps().size() == 2; }));
  EXPECT_EQ(ReplicasAt(swarm, 3), 0u);
  swarm.RestartTrainer(kSoon);
  ExpectGoodEndInTheSameEra(swarm);
  EXPECT_THAT(swarm.Report(), HasSubstr("finishing=6"));
}

TEST(TrainerRestartTest, WhenSomeHaveAppliedTheOthersApplyTheSameRecord) {
  for (size_t applied : {1u, 2u, 3u, 5u}) {
    SwarmWorld swarm(Calm());
    // The trainer falls silent for all but some: their Apply is lost.
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 3; }));
    ASSERT_TRUE(swarm.RunUntil([&] { return ReplicasAt(swarm, 3) >= applied; }));
    swarm.RestartTrainer(kSoon);
    ExpectGoodEndInTheSameEra(swarm);
  }
}

TEST(TrainerRestartTest, WhileSavingACheckpointSavesItAgain) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 4; }));
  ASSERT_EQ(swarm.checkers().count("checkpoint_saved"), 1u);
  swarm.RestartTrainer(kSoon);
  ExpectGoodEndInTheSameEra(swarm);
  EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u);
}

TEST(TrainerRestartTest, WhileAJoinerLoadsLetsItJoinAnyway) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 2; }));
  swarm.AddPeer(1);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_arrived") == 7; }));
  swarm.RestartTrainer(kSoon);
  ExpectGoodEndInTheSameEra(swarm);
}

TEST(TrainerRestartTest, AReplicaThatDiedMeanwhileIsGivenUpAndTheOthersGoOn) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmWorld swarm(Calm());
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 3; }));
    swarm.RestartTrainer(kSoon);
    swarm.world().Crash(swarm.peer_node(stage, 0));
    swarm.world().Restart(swarm.peer_node(stage, 0), absl::Seconds(1), true);
    ExpectGoodEndInTheSameEra(swarm);
    EXPECT_EQ(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
  }
}

TEST(TrainerRestartTest, AStageThatDiedMeanwhileSendsEveryoneToTheCheckpointAndSaysWhich) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 3; }));
  swarm.RestartTrainer(kSoon);
  for (uint32_t replica : {0u, 1u}) {
    swarm.world().Crash(swarm.peer_node(1, replica));
    swarm.world().Restart(swarm.peer_node(1, replica), absl::Seconds(1), true);
  }
  ExpectSixSteps(swarm);
  EXPECT_EQ(swarm.checkers().count("resumed"), 0u);
  EXPECT_EQ(swarm.checkers().count("state_lost"), 1u);
  EXPECT_THAT(swarm.Report(), testing::ContainsRegex("state_lost .*stage=1"));
}

TEST(TrainerRestartTest, TwiceInARowGoesOnAllTheSame) {
  for (int between_ms : {5, 20, 100, 400, 700, 1200}) {
    SwarmWorld swarm(Calm());
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 3; }));
    swarm.RestartTrainer(kSoon);
    swarm.world().At(kSoon + absl::Milliseconds(between_ms), [&] { swarm.RestartTrainer(kSoon); });
    ExpectSixSteps(swarm);
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
    EXPECT_GE(swarm.checkers().count("resumed"), 1u) << swarm.Report();
  }
}

TEST(TrainerRestartTest, AtEveryMomentOfAStepIsStillOneMachinesRun) {
  for (int at_ms = 0; at_ms < 160; at_ms += 1) {
    SwarmOptions options = Calm();
    options.eval_every = 2;
    SwarmWorld swarm(options);
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 1; }));
    swarm.world().At(absl::Milliseconds(at_ms), [&] { swarm.RestartTrainer(kSoon); });
    const bool ended = swarm.RunToEnd();
    ASSERT_TRUE(ended) << at_ms << " ms\n" << swarm.Report();
    ASSERT_THAT(swarm.violations(), IsEmpty()) << at_ms << " ms\n" << swarm.Report();
    ASSERT_EQ(swarm.checkers().count("era_began"), 1u) << at_ms << " ms\n" << swarm.Report();
  }
}

TEST(TrainerRestartTest, SilentDeathIsWaitedOutAndNobodyIsLost) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 3; }));
  CrashOptions crash;
  crash.silent = true;  // replicas still believe in it when it is back
  swarm.RestartTrainer(kSoon, crash);
  ExpectGoodEndInTheSameEra(swarm);
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 0u) << swarm.Report();
}

TEST(TrainerStallTest, TrainerStoppedForTwentySecondsFencesNobody) {
  for (int at_ms = 0; at_ms < 100; at_ms += 20) {
    SwarmWorld swarm(Calm());
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 2; }));
    swarm.world().At(absl::Milliseconds(at_ms),
                     [&] { swarm.world().Stall(swarm.trainer_node(), absl::Seconds(20)); });
    ExpectSixSteps(swarm);
    EXPECT_EQ(swarm.checkers().count("peer_lost"), 0u) << swarm.Report();
  }
}

TEST(PlantedRestartMistakeTest, SecondDecisionOfAStepIsFound) {
  SwarmOptions options = Calm();
  options.forget_newest_decision = true;
  SwarmWorld swarm(options);
  ASSERT_TRUE(swarm.RunUntil([&] { return StepOnDisk(swarm) == 3 && swarm.steps().size() == 2; }));
  swarm.RestartTrainer(kSoon);
  swarm.RunToEnd();
  EXPECT_THAT(swarm.violations(), Not(IsEmpty())) << swarm.Report();
}

}  // namespace
}  // namespace starling::sim
