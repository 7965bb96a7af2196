// With delayed commit a swarm takes the steps that one process with delayed commit takes, killed
// replicas or not, and they are others than without.
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

TEST(DelayedCommitTest, KilledReplicasLeaveEveryStepAsOneProcessTakesIt) {
  const std::string file = WriteRunFile(ClusterFolder(), kQuickBatch);
  const std::vector<std::string> delayed = {"--train.delayed_commit=true"};
  ClusterRun run(ClusterFolder() + "/delayed");
  run.Train(file, {"--swarm.stages=3", "--local.replicas=2", "--train.delayed_commit=true"});
  for (const int64_t stage : {0, 2, 1}) {
    ASSERT_TRUE(run.WaitForStep(run.LastStep() + 10)) << run.trainer().Errors();
    ASSERT_NO_FATAL_FAILURE(KillOneOf(run, stage));
  }
  EXPECT_EQ(run.EventsNamed("peer_lost").size(), 3u);
  run.ExpectSuccess();
  ExpectEqualToReference(run, kQuickBatch, kSteps, delayed);
  ExpectOneHashPerState(run);

  const std::map<int64_t, Json>& expected = Reference(kQuickBatch, kSteps, delayed);
  const std::map<int64_t, Json>& undelayed = Reference(kQuickBatch);
  EXPECT_EQ(expected.at(1).at("loss"), undelayed.at(1).at("loss"));
  EXPECT_NE(expected.at(2).at("loss"), undelayed.at(2).at("loss"))
      << "the second step is computed on version 0, too";
}

}  // namespace
}  // namespace starling
