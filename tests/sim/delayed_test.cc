// Delayed commit: two steps are open, and each gradient is of the version that the record names.
// The checkers compare every step with one machine that follows the records.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/base/check.h"
#include "runtime/trainer/decision_json.h"
#include "tests/sim/search.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::Le;

SwarmOptions Delayed(uint32_t replicas = 2, int64_t steps = 8) {
  SwarmOptions options = Calm(3, replicas);
  options.delayed = true;
  options.steps = steps;
  return options;
}

// How far the version that each step was computed on is behind the one before the step, in the
// order of the records.
std::vector<uint64_t> Staleness(SwarmWorld& swarm) {
  std::vector<uint64_t> staleness;
  const auto log = swarm.world().disk(swarm.trainer_node()).Read("run/decisions.jsonl");
  STARLING_CHECK(log.ok());
  const std::vector<std::string> lines = absl::StrSplit(*log, '\n', absl::SkipEmpty());
  for (const std::string& line : lines) {
    const auto decision = ParseDecision(line);
    if (!decision.ok() || decision->step == Step{0}) continue;
    staleness.push_back(Value(decision->step) - 1 - Value(decision->computed_on));
  }
  return staleness;
}

bool InPhase(SwarmWorld& swarm, size_t step, const std::string& phase) {
  return swarm.trainer() != nullptr && swarm.steps().size() + 1 == step &&
         swarm.trainer()->StatusJson().find("\"phase\":\"" + phase + "\"") != std::string::npos;
}

// Gradients of this step that were added somewhere.
size_t AdditionsTo(SwarmWorld& swarm, Step step) {
  size_t count = 0;
  for (const Addition& addition : swarm.world().journal().additions()) {
    if (addition.step == step) ++count;
  }
  return count;
}

void CrashForAWhile(SwarmWorld& swarm, NodeId node) {
  swarm.world().Crash(node);
  swarm.world().Restart(node, absl::Seconds(1), true);
}

// The trainer and this one do not reach each other, and are told so.
void CutOffForAWhile(SwarmWorld& swarm, NodeId node) {
  swarm.world().network().Partition(node, swarm.trainer_node());
  swarm.world().network().Partition(swarm.trainer_node(), node);
  swarm.world().At(absl::Seconds(6), [&swarm] { swarm.world().network().HealAll(); });
}

TEST(DelayedCommitTest, EveryStepButTheFirstIsOneVersionBehind) {
  SwarmWorld swarm(Delayed());
  ExpectGoodEnd(swarm);
  EXPECT_THAT(Staleness(swarm), ElementsAre(0, 1, 1, 1, 1, 1, 1, 1));
}

TEST(DelayedCommitTest, WithoutItNoStepIs) {
  SwarmOptions options = Delayed();
  options.delayed = false;
  SwarmWorld swarm(options);
  ExpectGoodEnd(swarm);
  EXPECT_THAT(Staleness(swarm), Each(0));
}

TEST(DelayedCommitTest, TheNextStepComputesDuringARound) {
  SwarmWorld swarm(Delayed());
  ASSERT_TRUE(swarm.RunUntil([&] { return InPhase(swarm, 4, "reducing"); }));
  EXPECT_GT(AdditionsTo(swarm, Step{5}), 0u) << swarm.Report();
  EXPECT_EQ(AdditionsTo(swarm, Step{6}), 0u);
  ExpectGoodEnd(swarm);
}

// The dead one had work of both steps, at most moments: both are replayed, and neither begins anew.
TEST(DelayedCommitTest, DeathAtAnyMomentIsRepairedInBothSteps) {
  for (int at_ms = 0; at_ms < 120; at_ms += 4) {
    for (uint32_t stage : {0u, 1u, 2u}) {
      SwarmWorld swarm(Delayed());
      RunTo(swarm, 3);
      swarm.world().At(absl::Milliseconds(at_ms),
                       [&] { CrashForAWhile(swarm, swarm.peer_node(stage, 1)); });
      ExpectGoodEnd(swarm, absl::StrCat(at_ms, " ms, stage ", stage));
      EXPECT_EQ(swarm.checkers().count("resumed"), 0u) << swarm.Report();
      EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
      EXPECT_THAT(Staleness(swarm), ElementsAre(0, 1, 1, 1, 1, 1, 1, 1));
      ASSERT_FALSE(testing::Test::HasFailure()) << at_ms << " ms, stage " << stage;
    }
  }
}

TEST(DelayedCommitTest, NewcomerJoinsAndNoStepIsComputedOnAnotherVersionForIt) {
  SwarmWorld swarm(Delayed(2, 30));
  RunTo(swarm, 3);
  swarm.AddPeer(1);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("peer_joined"), 7u) << swarm.Report();
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 3, 2}));
  const std::vector<uint64_t> staleness = Staleness(swarm);
  EXPECT_EQ(std::count(staleness.begin(), staleness.end(), 1u), 29);
}

// A round takes longer than a step computes: each step is complete when it is promoted.
TEST(DelayedCommitTest, NewcomerJoinsThoughEachStepIsCompleteWhenTheOneBeforeIsDecided) {
  SwarmOptions options = Delayed(2, 20);
  options.eval_every = 0;
  options.checkpoint_every = 0;
  SwarmWorld swarm(options);
  swarm.world().network().SetFilter([&swarm](const PacketInfo& packet) {
    PacketFate fate;
    for (uint32_t stage = 0; stage < 3; ++stage) {
      const std::set<NodeId> siblings = {swarm.peer_node(stage, 0), swarm.peer_node(stage, 1)};
      const bool round = packet.channel == Channel::kBulk && siblings.count(packet.from) > 0 &&
                         siblings.count(packet.to) > 0;
      if (round) fate.extra_delay = absl::Milliseconds(100);
    }
    return fate;
  });
  RunTo(swarm, 3);
  swarm.AddPeer(1);
  RunTo(swarm, 6);
  EXPECT_EQ(swarm.checkers().count("peer_joined"), 7u) << swarm.Report();
  ExpectGoodEnd(swarm);
}

// It served in the era before, and comes to this one late, by results: it computes the step that is
// under way as the others do.
TEST(DelayedCommitTest, WhoComesLateToANewEraHasTheVersionBefore) {
  SwarmOptions options = Delayed(2, 200);
  options.eval_every = 0;
  SwarmWorld swarm(options);
  RunTo(swarm, 5);
  swarm.world().Crash(swarm.peer_node(2, 0));
  CrashForAWhile(swarm, swarm.peer_node(2, 1));
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("era_began") == 2; }));
  // Its load takes longer than the others wait for.
  swarm.world().faults(swarm.peer_node(1, 1)).hiccup = absl::Seconds(62);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_joined") == 10; }));
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_joined") == 11; }));
  swarm.world().Crash(swarm.peer_node(1, 0));
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("resumed"), 0u) << swarm.Report();
}

TEST(DelayedCommitTest, ReplicaLeavesAtEveryMomentAndNothingIsReplayed) {
  for (int at_ms = 0; at_ms < 120; at_ms += 8) {
    SwarmWorld swarm(Delayed(2, 10));
    RunTo(swarm, 2);
    swarm.world().At(absl::Milliseconds(at_ms), [&] { swarm.DrainPeer(swarm.peer_node(1, 1)); });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.checkers().count("peer_left"), 1u) << swarm.Report();
    for (const StepReport& step : swarm.steps()) EXPECT_EQ(step.replayed + step.retries, 0u);
    EXPECT_THAT(Staleness(swarm), ElementsAre(0, 1, 1, 1, 1, 1, 1, 1, 1, 1));
    ASSERT_FALSE(testing::Test::HasFailure()) << at_ms << " ms\n" << swarm.Report();
  }
}

// Who dies is fenced in both steps; who leaves meanwhile owes the step ahead no promise any more.
TEST(DelayedCommitTest, DeathWhileAnotherLeavesIsRepairedInBothSteps) {
  for (int at_ms = 0; at_ms < 3000; at_ms += 60) {
    SwarmOptions options = Delayed(3, 10);
    options.world.disk_delay = absl::Milliseconds(200);  // the record that names it takes a while
    options.world.network.delay_min = options.world.network.delay_max = absl::Milliseconds(60);
    SwarmWorld swarm(options);
    RunTo(swarm, 2);
    swarm.DrainPeer(swarm.peer_node(1, 1));
    swarm.world().At(absl::Milliseconds(at_ms),
                     [&] { CrashForAWhile(swarm, swarm.peer_node(2, 0)); });
    ExpectGoodEnd(swarm, absl::StrCat(at_ms, " ms"));
    EXPECT_EQ(swarm.checkers().count("peer_left"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("resumed"), 0u) << swarm.Report();
    ASSERT_FALSE(testing::Test::HasFailure()) << at_ms << " ms";
  }
}

TEST(DelayedCommitTest, OnlyReplicaOfAStageComesBackWithItsStateAndTheStepGoesOn) {
  SwarmWorld swarm(Delayed(1, 8));
  RunTo(swarm, 3);
  // When it has said what its state is.
  swarm.world().At(absl::Milliseconds(30), [&] { CutOffForAWhile(swarm, swarm.peer_node(1, 0)); });
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("resumed"), 0u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << "its state was not lost\n"
                                                     << swarm.Report();
  EXPECT_THAT(Staleness(swarm), ElementsAre(0, 1, 1, 1, 1, 1, 1, 1));
}

TEST(DelayedCommitTest, RestartedTrainerTakesBothStepsAgainTheFirstOnTheNewestVersion) {
  for (const char* phase : {"running", "sealing", "reducing"}) {
    SwarmWorld swarm(Delayed());
    ASSERT_TRUE(swarm.RunUntil([&] { return InPhase(swarm, 4, phase); }));
    swarm.RestartTrainer(absl::Milliseconds(200));
    ExpectGoodEnd(swarm, phase);
    EXPECT_EQ(swarm.checkers().count("resumed"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
    EXPECT_THAT(Staleness(swarm), ElementsAre(0, 1, 1, 0, 1, 1, 1, 1)) << phase;
  }
}

TEST(DelayedCommitTest, AllDieAndTheStepAfterTheCheckpointIsTakenOnIt) {
  SwarmOptions options = Delayed();
  options.kill_everything = true;
  SwarmWorld swarm(options);
  ExpectGoodEnd(swarm);
  EXPECT_THAT(Staleness(swarm), Each(Le(1)));
}

TEST(DelayedCommitTest, EveryVersionThatIsDueIsEvaluatedOnce) {
  SwarmOptions options = Delayed();
  options.eval_every = 3;
  SwarmWorld swarm(options);
  ExpectGoodEnd(swarm);
  EXPECT_THAT(swarm.checkers().evaluated(), ElementsAre(Version{3}, Version{6}, Version{8}));
}

TEST(DelayedCommitTest, DrawnWorldsEndWellAndWithoutViolation) {
  WorldChoice choice;
  choice.delayed = true;
  for (choice.seed = 1; choice.seed <= 200; ++choice.seed) {
    const SeedResult result = RunSeed(choice);
    ASSERT_TRUE(result.ok()) << "starling sim --delayed --seed " << choice.seed << "\n"
                             << testing::PrintToString(result.violations);
  }
}

}  // namespace
}  // namespace starling::sim
