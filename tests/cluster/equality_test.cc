// A swarm takes the steps that one process takes: the same file gives the same losses and gradient
// norms, however the model is cut and served.
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

struct Shape {
  const char* name;
  std::vector<std::string> arguments;
  std::vector<int> replicas;
};

void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class EqualityTest : public ::testing::TestWithParam<Shape> {};

TEST_P(EqualityTest, EveryStepIsTheSingleProcesss) {
  ClusterRun run(ClusterFolder() + "/equality-" + GetParam().name);
  run.Train(WriteRunFile(ClusterFolder(), kQuickBatch), GetParam().arguments);
  run.ExpectSuccess();
  ExpectEqualToReference(run, kQuickBatch);
  for (const Json& line : run.Metrics()) {
    EXPECT_EQ(line.at("replicas").get<std::vector<int>>(), GetParam().replicas) << line;
    EXPECT_EQ(line.at("replayed"), 0) << line;
  }
  const std::map<int64_t, int> shared = ExpectOneHashPerState(run);
  for (size_t stage = 0; stage < GetParam().replicas.size(); ++stage) {
    if (GetParam().replicas[stage] < 2) continue;
    // The last version's acknowledgements may come after the run has ended.
    ASSERT_EQ(shared.count(static_cast<int64_t>(stage)), 1u) << "stage " << stage;
    EXPECT_GE(shared.at(static_cast<int64_t>(stage)), kSteps - 1) << "stage " << stage;
  }
}

// Every number of stages in 1, 2, 3, 5 and every number of replicas in 1, 2, 3, also unequal.
INSTANTIATE_TEST_SUITE_P(
    Shapes, EqualityTest,
    ::testing::Values(
        Shape{"OneStageTwoReplicas", {"--swarm.stages=1", "--local.replicas=2"}, {2}},
        Shape{"TwoStagesThreeReplicas", {"--swarm.stages=2", "--local.replicas=3"}, {3, 3}},
        Shape{"ThreeStagesUnequalReplicas",
              {"--swarm.stages=3", "--local.replicas=[3,1,2]"},
              {3, 1, 2}},
        Shape{"UnequalCutsOneReplica",
              {"--swarm.cuts=[1,5]", "--local.replicas=1", "--local.threads=[1,2,1]"},
              {1, 1, 1}},
        Shape{"FiveStagesOneReplica", {"--swarm.stages=5", "--local.replicas=1"}, {1, 1, 1, 1, 1}}),
    [](const ::testing::TestParamInfo<Shape>& shape) { return shape.param.name; });

}  // namespace
}  // namespace starling
