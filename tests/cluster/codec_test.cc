// Runs whose tensors lose bits on the way: not those of one process, but every microbatch is
// counted once, and the replicas of a stage agree to the bit.
#include <signal.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

// Of the model that WriteRunFile makes.
constexpr int64_t kBoundaryElementsOfASequence = 32 * 32;

std::string Folder(const std::string& name) { return ClusterFolder() + "/" + name; }

void ExpectEverythingCountedOnce(const ClusterRun& run, int64_t global_batch) {
  const std::map<int64_t, Json> steps = run.Steps();
  ASSERT_EQ(static_cast<int64_t>(steps.size()), kSteps);
  const std::map<int64_t, Json>& reference = Reference(global_batch);
  for (const auto& [step, line] : steps) {
    EXPECT_EQ(line.at("tokens"), reference.at(step).at("tokens")) << line;
    EXPECT_FALSE(line.contains("skipped")) << line;
  }
  for (const Json& line : run.Metrics()) EXPECT_EQ(line.at("lane_ok"), true) << line;
}

double MeanLoss(const std::map<int64_t, Json>& steps, int64_t first, int64_t last) {
  double sum = 0;
  for (int64_t step = first; step <= last; ++step) sum += steps.at(step).at("loss").get<double>();
  return sum / static_cast<double>(last - first + 1);
}

TEST(LossyCodecsTest, KilledReplicaWithInt8BoundariesAndSixteenBitRoundsLeavesOneHashPerState) {
  ClusterRun run(Folder("lossy"));
  run.Train(
      WriteRunFile(ClusterFolder(), kLongBatch),
      {"--swarm.stages=3", "--local.replicas=2", "--codec.forward=int8", "--codec.backward=int8",
       "--codec.rounding=stochastic", "--codec.round=bf16", "--chaos.kill_every=2s"});
  run.ExpectSuccess();
  EXPECT_GE(run.EventsNamed("peer_lost").size(), 1u);
  ExpectEverythingCountedOnce(run, kLongBatch);
  const std::map<int64_t, int> shared = ExpectOneHashPerState(run);
  for (int64_t stage : {0, 1, 2}) {
    ASSERT_EQ(shared.count(stage), 1u) << "two replicas of stage " << stage << " at no version";
  }
  // It learns what the reference learns, with other bits.
  const std::map<int64_t, Json> steps = run.Steps();
  const std::map<int64_t, Json>& reference = Reference(kLongBatch);
  EXPECT_LT(MeanLoss(steps, 91, 100), 0.8 * MeanLoss(steps, 1, 10));
  EXPECT_NEAR(MeanLoss(steps, 91, 100), MeanLoss(reference, 91, 100), 0.05);
  EXPECT_NE(steps.at(50).at("loss"), reference.at(50).at("loss"));
}

TEST(LossyCodecsTest, BoundariesInInt8TakeAQuarterOfTheBytesAndAStoppedRunGoesOnInOthers) {
  ClusterRun run(Folder("other-codecs"));
  const std::string run_file = WriteRunFile(ClusterFolder(), kQuickBatch);
  run.Train(run_file, {"--swarm.stages=2", "--local.replicas=2", "--codec.forward=int8",
                       "--codec.backward=raw", "--codec.round=fp16"});
  run.Address();
  ASSERT_TRUE(run.WaitForStep(10)) << run.trainer().Errors();
  run.trainer().Signal(SIGINT);
  run.ExpectSuccess();
  const int64_t last = run.LastStep();
  ASSERT_LT(last, kSteps);
  run.Resume({"--codec.forward=fp16", "--codec.backward=int4", "--codec.round=raw"});
  run.ExpectSuccess();
  ExpectEverythingCountedOnce(run, kQuickBatch);
  ExpectOneHashPerState(run);
  // One boundary each way. What was sent again comes on top; most steps have nothing of it.
  const double elements = kQuickBatch * kBoundaryElementsOfASequence;
  std::vector<double> before, back_before, after, back_after;
  for (const auto& [step, line] : run.Steps()) {
    (step <= last ? before : after).push_back(line.at("bytes_forward").get<double>());
    (step <= last ? back_before : back_after).push_back(line.at("bytes_backward").get<double>());
  }
  const auto least = [](const std::vector<double>& v) {
    return *std::min_element(v.begin(), v.end());
  };
  EXPECT_EQ(least(before), elements + elements / 128 * 4);
  EXPECT_LE(least(before), 0.26 * 4 * elements);
  EXPECT_EQ(least(back_before), 4 * elements);
  EXPECT_EQ(least(after), 2 * elements);
  EXPECT_EQ(least(back_after), elements / 2 + elements / 128 * 4);
}

}  // namespace
}  // namespace starling
