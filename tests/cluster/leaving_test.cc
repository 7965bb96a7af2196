// Replicas leave in order while others train: by SIGTERM, by order, in a pause; and come back.
#include <signal.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

std::optional<int> RunCommand(std::vector<std::string> arguments) {
  Subprocess::Options options;
  options.arguments = std::move(arguments);
  return Subprocess(options).WaitForExit();
}

TEST(LeavingReplicasTest, TermAndOrdersTakeReplicasAwayAtDecisionsAndNothingIsComputedAgain) {
  ClusterRun run(ClusterFolder() + "/leaving-replicas");
  run.Train(WriteRunFile(ClusterFolder(), kLongBatch), {"--swarm.stages=2", "--local.replicas=2"});
  const std::string address = run.Address();
  ASSERT_TRUE(run.WaitForStep(5));
  // One of stage 1 by SIGTERM, one of stage 0 by order, from which on the run is held.
  const std::vector<Json> joined = run.EventsNamed("peer_joined");
  ASSERT_EQ(joined.size(), 4u);
  for (const Json& event : joined) {
    if (event.at("stage") != 1) continue;
    kill(event.at("pid").get<pid_t>(), SIGTERM);
    break;
  }
  ASSERT_TRUE(run.WaitUntilRunning([&] { return run.EventsNamed("peer_left").size() == 1; }));
  EXPECT_EQ(RunCommand({STARLING_PROGRAM, "pause", run.directory()}), 0);
  EXPECT_EQ(RunCommand({STARLING_PROGRAM, "leave", run.directory(), "--stage", "0"}), 0);
  ASSERT_TRUE(run.WaitUntilRunning([&] { return run.EventsNamed("peer_left").size() == 2; }));
  EXPECT_NE(RunCommand({STARLING_PROGRAM, "leave", run.directory(), "9.9"}), 0);
  ASSERT_TRUE(run.WaitUntilRunning([&] { return !run.EventsNamed("paused").empty(); }));
  const int64_t held_at = run.LastStep();
  // A newcomer that leaves its stage to the trainer joins meanwhile.
  Subprocess::Options newcomer;
  newcomer.arguments = {STARLING_PROGRAM, "stage", "--join", address, "--threads", "1"};
  Subprocess stage(newcomer);
  ASSERT_TRUE(run.WaitUntilRunning([&] { return run.EventsNamed("peer_joined").size() == 5; }));
  EXPECT_EQ(run.LastStep(), held_at);
  EXPECT_EQ(RunCommand({STARLING_PROGRAM, "pause", run.directory(), "--off"}), 0);
  ASSERT_TRUE(run.WaitForStep(held_at + 5));
  stage.Signal(SIGTERM);
  EXPECT_EQ(stage.WaitForExit(), 0);
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch);
  ExpectOneHashPerState(run);
  EXPECT_EQ(run.EventsNamed("peer_left").size(), 3u);
  EXPECT_TRUE(run.EventsNamed("peer_lost").empty());
  EXPECT_TRUE(run.EventsNamed("replayed").empty());
  for (const Json& step : run.Metrics()) {
    EXPECT_EQ(step.at("replayed"), 0);
    EXPECT_EQ(step.at("retries"), 0);
  }
}

}  // namespace
}  // namespace starling
