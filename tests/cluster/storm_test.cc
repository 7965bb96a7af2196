// Somebody dies every two seconds, from the first step to the last, and comes back; no step is a
// wrong one. STARLING_STORM_STEPS=2000 is the longer storm.
#include <stdlib.h>

#include <iostream>
#include <string>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

int64_t StormSteps() {
  const char* given = getenv("STARLING_STORM_STEPS");
  return given == nullptr ? 200 : strtoll(given, nullptr, 10);
}

TEST(StormTest, AKillEveryTwoSecondsLeavesEveryStepAsItWas) {
  const int64_t steps = StormSteps();
  ClusterRun run(ClusterFolder() + "/storm");
  run.Train(WriteRunFile(ClusterFolder(), kLongBatch, steps),
            {"--swarm.stages=3", "--local.replicas=2", "--chaos.kill_every=2s"});
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch, steps);
  ExpectOneHashPerState(run);
  EXPECT_TRUE(run.Processes().empty());
  // The state was never lost, so no step was taken twice.
  EXPECT_EQ(static_cast<int64_t>(run.Metrics().size()), steps);
  EXPECT_EQ(run.EventsNamed("era_began").size(), 1u);
  const size_t kills = run.EventsNamed("chaos_kill").size();
  EXPECT_GE(kills, 5u);
  int64_t replayed = 0;
  for (const Json& line : run.Metrics()) replayed += line.at("replayed").get<int64_t>();
  EXPECT_GT(replayed, 0);
  std::cout << steps << " steps, " << kills << " kills, "
            << run.EventsNamed("peer_joined").size() - 6 << " came back, " << replayed
            << " pairs computed again\n";
}

}  // namespace
}  // namespace starling
