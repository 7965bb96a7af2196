// Replicas that were started at the wrong stages move to where they are needed, and stay there.
// Their devices only take time, so that six of them have their speeds on two cores.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

constexpr int kMicrobatches = 16;
constexpr int kMicrobatchMs = 30;
constexpr int kPeriodMs = 1000;

// Six of them at three equal stages: a step takes at least half of its microbatches' time.
std::string RunFile() {
  const std::string path = ClusterFolder() + "/balance.toml";
  WriteFileText(path,
                "[data]\ntext = [\"" + ClusterFolder() +
                    "/text-*.txt\"]\n"
                    "[model]\nlayers = 6\nwidth = 32\nheads = 2\ncontext = 32\n"
                    "[train]\nsteps = 100000\nmicrobatch = 2\neval_every = 0\nglobal_batch = " +
                    std::to_string(2 * kMicrobatches) + "\n[swarm]\nstages = 3\nrebalance = \"" +
                    std::to_string(kPeriodMs) +
                    "ms\"\n[local]\nreplicas = 0\n[checkpoint]\nevery = 0\n");
  return path;
}

TEST(BalanceTest, ThreeOneTwoBecomeTwoEachByOneMoveAndNobodyMovesInTheTenPeriodsAfter) {
  ClusterRun run(ClusterFolder() + "/balance");
  run.Train(RunFile(), {});
  const std::string address = run.Address();
  std::vector<std::unique_ptr<Subprocess>> replicas;
  for (const char* stage : {"0", "0", "0", "1", "2", "2"}) {
    // As the trainer's own children, which may be moved.
    replicas.push_back(std::make_unique<Subprocess>(std::vector<std::string>{
        STARLING_PROGRAM, "stage", "--join", address, "--stage", stage, "--child", "--threads", "1",
        "--device", "emulated:" + std::to_string(kMicrobatchMs) + "ms"}));
  }
  const Json balanced = {2, 2, 2};
  ASSERT_TRUE(run.WaitUntilRunning([&] {
    const std::vector<Json> lines = run.Metrics();
    return !lines.empty() && lines.back().at("replicas") == balanced;
  })) << run.trainer().Output()
      << run.trainer().Errors();
  const int64_t balanced_at = run.LastStep();
  EXPECT_EQ(run.EventsNamed("moved").size(), 1u);
  constexpr int64_t kTenPeriods = 10 * kPeriodMs / (kMicrobatches * kMicrobatchMs / 2) + 1;
  ASSERT_TRUE(run.WaitForStep(balanced_at + kTenPeriods)) << run.trainer().Errors();
  EXPECT_EQ(run.EventsNamed("moved").size(), 1u);
  EXPECT_EQ(run.Metrics().back().at("replicas"), balanced);
  EXPECT_TRUE(run.EventsNamed("peer_lost").empty());
  for (const Json& line : run.Metrics()) EXPECT_EQ(line.at("lane_ok"), true) << line;
}

}  // namespace
}  // namespace starling
