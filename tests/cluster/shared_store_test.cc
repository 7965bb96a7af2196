// checkpoint.store = "shared" with real processes: replicas write their parts of a checkpoint
// themselves and die while they do; what is published verifies, and another shape goes on from it.
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

// A save is under way: its folder is there.
bool Saving(const ClusterRun& run) {
  std::error_code error;
  std::filesystem::directory_iterator entry(run.directory() + "/checkpoints", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (entry->path().filename().string().rfind("tmp-step-", 0) == 0) return true;
  }
  return false;
}

std::optional<int> RunCommand(std::vector<std::string> arguments) {
  Subprocess::Options options;
  options.arguments = std::move(arguments);
  return Subprocess(options).WaitForExit();
}

TEST(SharedStoreTest, WritersDieWhileTheySaveAndEveryCheckpointVerifiesAndAnotherShapeGoesOn) {
  ClusterRun run(ClusterFolder() + "/shared-store");
  run.Train(WriteRunFile(ClusterFolder(), kQuickBatch),
            {"--swarm.stages=2", "--local.replicas=2", "--checkpoint.store=shared",
             "--checkpoint.every=1", "--checkpoint.keep=1000"});
  for (const int64_t stage : {0, 1}) {
    ASSERT_TRUE(run.WaitForStep(run.LastStep() + 10));
    ASSERT_TRUE(run.WaitUntilRunning([&] { return Saving(run); }));
    ASSERT_NO_FATAL_FAILURE(KillOneOf(run, stage));
  }
  EXPECT_EQ(run.EventsNamed("peer_lost").size(), 2u);
  ASSERT_TRUE(run.WaitForStep(60));
  run.KillEverything();
  EXPECT_GT(run.EventsNamed("checkpoint_saved").size(), 5u);
  EXPECT_TRUE(run.EventsNamed("checkpoint_failed").empty());
  EXPECT_EQ(RunCommand({STARLING_PROGRAM, "checkpoint", "verify", run.directory()}), 0);
  run.Resume({"--swarm.stages=3", "--local.replicas=1", "--checkpoint.every=20"});
  run.ExpectSuccess();
  ExpectEqualToReference(run, kQuickBatch);
  EXPECT_FALSE(Saving(run)) << "what the killed trainer left is still there";
  EXPECT_EQ(RunCommand({STARLING_PROGRAM, "checkpoint", "verify", run.directory()}), 0);
}

}  // namespace
}  // namespace starling
