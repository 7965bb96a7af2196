// A model of GPT-2's shape, whose embedding is its head: the first and the last stage train it
// together, and the steps stay those of one process.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

const std::vector<std::string>& TiedGpt() {
  static const std::vector<std::string> arguments = {"--model.preset=gpt",
                                                     "--model.tie_embeddings=true"};
  return arguments;
}

std::vector<std::string> TiedGptAnd(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = TiedGpt();
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// How many parameter groups the record of each decided step sums.
void ExpectGroups(const ClusterRun& run, size_t groups) {
  size_t steps = 0;
  for (const Json& record : run.Decisions()) {
    if (record.value("step", 0) == 0) continue;
    ++steps;
    EXPECT_EQ(record.at("groups").size(), groups) << record;
  }
  EXPECT_GE(steps, static_cast<size_t>(kSteps));
}

TEST(TiedEmbeddingTest, KilledReplicasOfTheFirstAndTheLastStageLeaveEveryStepAsItWas) {
  ClusterRun run(ClusterFolder() + "/tied-kills");
  run.Train(WriteRunFile(ClusterFolder(), kLongBatch),
            TiedGptAnd({"--swarm.stages=3", "--local.replicas=2"}));
  for (const int64_t stage : {0, 2}) {
    ASSERT_TRUE(run.WaitForStep(run.LastStep() + 15)) << run.trainer().Errors();
    ASSERT_NO_FATAL_FAILURE(KillOneOf(run, stage));
  }
  EXPECT_EQ(run.EventsNamed("peer_lost").size(), 2u);
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch, kSteps, TiedGpt());
  ExpectGroups(run, 4);
  const std::map<int64_t, int> shared = ExpectOneHashPerState(run);
  for (const int64_t stage : {0, 1, 2}) {
    ASSERT_EQ(shared.count(stage), 1u) << "stage " << stage;
    EXPECT_GE(shared.at(stage), 10) << "stage " << stage;
  }
  // Those that were started in their place caught up by replaying the results of both groups.
  EXPECT_EQ(run.EventsNamed("era_began").size(), 1u);
  EXPECT_GE(run.EventsNamed("peer_joined").size(), 7u);
}

TEST(TiedEmbeddingTest, CheckpointHasTheEmbeddingOnceAndAnyOtherCutGoesOnFromIt) {
  ClusterRun run(ClusterFolder() + "/tied-cuts");
  run.Train(WriteRunFile(ClusterFolder(), kQuickBatch),
            TiedGptAnd({"--swarm.stages=3", "--local.replicas=1", "--checkpoint.store=shared"}));
  ASSERT_TRUE(run.WaitForStep(45)) << run.trainer().Errors();
  run.KillEverything();
  run.Resume({"--swarm.stages=1", "--local.replicas=2"});
  ASSERT_TRUE(run.WaitForStep(75)) << run.trainer().Errors();
  run.KillEverything();
  run.Resume({"--swarm.stages=2", "--local.replicas=1"});
  run.ExpectSuccess();
  ExpectEqualToReference(run, kQuickBatch, kSteps, TiedGpt());
  Subprocess::Options verify;
  verify.arguments = {STARLING_PROGRAM, "checkpoint", "verify", run.directory()};
  EXPECT_EQ(Subprocess(verify).WaitForExit(), 0);
}

}  // namespace
}  // namespace starling
