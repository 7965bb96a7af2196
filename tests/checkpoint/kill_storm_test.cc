// SIGKILL to a process that saves checkpoints on the real disk, again and again, anywhere in a
// save: what it had saved is there, and everything listed is complete. STARLING_KILLS=1000 makes
// the storm longer.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "checkpoint/checkpoint_store.h"
#include "runtime/base/rng.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/checkpoint/checkpoint_testing.h"
#include "tests/runtime/reactor/temporary_folder.h"

namespace starling {
namespace {

// Runs the saver until it has written `bytes` bytes; how many saves had returned by then.
int RunAndKill(const std::string& folder, uint64_t bytes) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execl(SAVER_PROCESS, SAVER_PROCESS, folder.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  close(ends[1]);
  int saves = 0;
  char byte = 0;
  for (uint64_t i = 0; i < bytes && read(ends[0], &byte, 1) == 1; ++i) saves += byte == 'S';
  kill(child, SIGKILL);
  // What it had written before the signal came.
  while (read(ends[0], &byte, 1) == 1) saves += byte == 'S';
  close(ends[0]);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "it ended by itself, with " << status;
  return saves;
}

TEST(KillStormTest, KilledAnywhereTheSaverLeavesItsNewestCheckpointComplete) {
  const char* const kills = getenv("STARLING_KILLS");
  const int storm = kills != nullptr ? atoi(kills) : 60;
  const TemporaryFolder temporary;
  const std::string folder = temporary.path() + "/checkpoints";
  PosixDisk disk;
  const CheckpointStore store(folder);
  Rng rng(1);
  int64_t newest_era = -1;  // every save has an era of its own, one more than the one before
  int saves = 0;
  for (int i = 0; i < storm; ++i) {
    const int returned = RunAndKill(folder, 1 + rng.Below(120));
    saves += returned;
    const auto infos = store.List(disk);
    ASSERT_TRUE(infos.ok()) << infos.status();
    if (infos->empty()) {
      ASSERT_EQ(saves, 0);
      continue;
    }
    for (const CheckpointInfo& info : *infos) {
      const auto report = Verify(disk, info);
      ASSERT_TRUE(report.ok()) << report.status();
      ASSERT_TRUE(report->ok()) << info.name << ": " << report->problems[0];
    }
    const uint32_t era = Value(infos->back().era);
    ASSERT_GE(era, newest_era + returned) << "a save is lost";
    newest_era = era;
    const StageLayout whole = testing::Layouts({2}, 64)[0];
    const auto state = LoadStage(disk, infos->back(), whole);
    ASSERT_TRUE(state.ok()) << state.status();
    ASSERT_EQ(state->ToStringBytes(), testing::StateOf(whole, era).ToStringBytes());
  }
  EXPECT_GT(saves, storm / 4);
}

}  // namespace
}  // namespace starling
