// What the scenarios of the virtual swarm share.
#ifndef STARLING_TESTS_SIM_SWARM_TESTING_H_
#define STARLING_TESTS_SIM_SWARM_TESTING_H_

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/sim/swarm_world.h"

namespace starling::sim {

// Nothing goes wrong by itself.
inline SwarmOptions Calm(uint32_t stages = 3, uint32_t replicas = 2) {
  SwarmOptions options;
  options.stages = stages;
  options.replicas = replicas;
  return options;
}

// The run comes to its end, and no checker has anything to say.
inline void ExpectGoodEnd(SwarmWorld& swarm, const std::string& what = "") {
  const bool ended = swarm.RunToEnd();
  EXPECT_TRUE(ended) << what << "\n" << swarm.Report();
  EXPECT_THAT(swarm.violations(), testing::IsEmpty()) << what << "\n" << swarm.Report();
}

// ... after all the steps that options have by default.
inline void ExpectSixSteps(SwarmWorld& swarm, const std::string& what = "") {
  ExpectGoodEnd(swarm, what);
  EXPECT_EQ(Value(swarm.steps().back().step), 6u) << what;
}

inline void RunTo(SwarmWorld& swarm, size_t steps) {
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() >= steps; })) << swarm.Report();
}

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SWARM_TESTING_H_
