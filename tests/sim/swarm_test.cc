// The whole protocol in the virtual world: named scenarios, a search over seeds, planted mistakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/sim/swarm_world.h"

namespace starling::sim {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;

SwarmOptions Calm(uint32_t stages = 3, uint32_t replicas = 2) {
  SwarmOptions options;
  options.stages = stages;
  options.replicas = replicas;
  return options;
}

void ExpectGoodEnd(SwarmWorld& swarm) {
  const bool ended = swarm.RunToEnd();
  EXPECT_TRUE(ended) << swarm.Report();
  EXPECT_THAT(swarm.violations(), IsEmpty()) << swarm.Report();
}

TEST(SwarmTest, NothingFailsAndEveryStepIsDecidedOnce) {
  for (uint32_t stages : {1u, 2u, 3u, 5u}) {
    for (uint32_t replicas : {1u, 2u, 3u}) {
      SwarmWorld swarm(Calm(stages, replicas));
      ExpectGoodEnd(swarm);
      ASSERT_EQ(swarm.steps().size(), 6u);
      for (const StepReport& step : swarm.steps()) {
        EXPECT_EQ(step.retries, 0u);
        EXPECT_EQ(step.replicas, std::vector<uint32_t>(stages, replicas));
      }
      EXPECT_EQ(swarm.checkers().count("peer_joined"), stages * replicas);
      EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u);
    }
  }
}

}  // namespace
}  // namespace starling::sim
