// `starling checkpoint ls|verify|gc` as users call it, on a run directory without a trainer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "runtime/reactor/file_lock.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/checkpoint/checkpoint_testing.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class CheckpointCommandTest : public ::testing::Test {
 protected:
  CheckpointCommandTest() {
    WriteFileText(Run() + "/run.toml",
                  "[data]\ntext = [\"/nothing\"]\n[checkpoint]\nkeep = 2\nkeep_every = 20\n");
    for (const uint64_t version : {0, 10, 20, 30, 40, 50}) Save(version);
  }

  void Save(uint64_t version, uint32_t era = 0) {
    const absl::Status saved = CheckpointStore(Folder()).Save(
        disk_, testing::Meta(version, era), testing::Parts(testing::Layouts({1, 1}), version));
    EXPECT_TRUE(saved.ok()) << saved;
  }
  Finished Checkpoint(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {STARLING_PROGRAM, "checkpoint"});
    return RunToEnd(std::move(arguments));
  }
  std::vector<std::string> Names() {
    const auto names = disk_.List(Folder());
    return names.ok() ? *names : std::vector<std::string>();
  }
  void Damage(const std::string& file) {
    std::string bytes = FileText(Folder() + "/" + file);
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    WriteFileText(Folder() + "/" + file, bytes);
  }

  std::string Run() { return temporary_.path(); }
  std::string Folder() { return Run() + "/checkpoints"; }

  const TemporaryFolder temporary_;
  PosixDisk disk_;
};

TEST_F(CheckpointCommandTest, LsSaysWhatIsCompleteAndWhyTheRestIsNot) {
  Save(25, 3);
  std::filesystem::remove(Folder() + "/step-00000040/optimizer-00001.safetensors");
  WriteFileText(Folder() + "/step-00000050/manifest.json", "{");
  std::filesystem::create_directory(Folder() + "/tmp-step-00000060");
  const Finished list = Checkpoint({"ls", Run()});
  ASSERT_EQ(list.exit_code, 0) << list.errors;
  EXPECT_THAT(list.output,
              AllOf(HasSubstr("step-00000030                 30     0"), HasSubstr("complete\n"),
                    HasSubstr("step-00000025                 25     3"),
                    HasSubstr("optimizer-00001.safetensors"),
                    HasSubstr("damaged: manifest.json: not a checkpoint's manifest"),
                    HasSubstr("tmp-step-00000060"), HasSubstr("cut short")));
  // In the order of their eras.
  EXPECT_LT(list.output.find("step-00000030"), list.output.find("step-00000025"));
}

TEST_F(CheckpointCommandTest, VerifyReadsEveryFileAndFailsForOne) {
  EXPECT_EQ(Checkpoint({"verify", Run()}).exit_code, 0);
  Damage("step-00000020/parameters-00001.safetensors");
  const Finished all = Checkpoint({"verify", Run()});
  EXPECT_EQ(all.exit_code, 1);
  EXPECT_THAT(all.output, HasSubstr("step-00000020: parameters-00001.safetensors: its bytes"));
  EXPECT_THAT(all.errors, HasSubstr("1 of 6 checkpoints not as written"));
  EXPECT_EQ(Checkpoint({"verify", Folder() + "/step-00000020"}).exit_code, 1);
  EXPECT_EQ(Checkpoint({"verify", Folder() + "/step-00000030"}).exit_code, 0);
}

TEST_F(CheckpointCommandTest, VerifyNamesForeignFilesAndCheckpointsOfAnotherRun) {
  WriteFileText(Folder() + "/step-00000010/notes.txt", "x");
  CheckpointMeta meta = testing::Meta(5);
  meta.run = RunId{99};
  ASSERT_TRUE(CheckpointStore(Folder())
                  .Save(disk_, meta, testing::Parts(testing::Layouts({1, 1}), 5))
                  .ok());
  const Finished end = Checkpoint({"verify", Run()});
  EXPECT_EQ(end.exit_code, 1);
  EXPECT_THAT(end.output, AllOf(HasSubstr("notes.txt: is not in the manifest"),
                                HasSubstr("step-00000005: of another run (0000000000000063)")));
}

TEST_F(CheckpointCommandTest, GcKeepsWhatTheConfigurationSays) {
  std::filesystem::create_directory(Folder() + "/tmp-step-00000060");
  // Of a replica that died while it wrote its part (checkpoint.store = "shared").
  std::filesystem::create_directory(Folder() + "/tmp-step-00000070.9f3c");
  WriteFileText(Folder() + "/tmp-step-00000070.9f3c/.optimizer-00001.safetensors.w1x4", "torn");
  const Finished dry = Checkpoint({"gc", Run(), "--dry-run"});
  EXPECT_EQ(dry.exit_code, 0) << dry.errors;
  EXPECT_THAT(
      dry.output,
      AllOf(HasSubstr("would remove step-00000000\n"), HasSubstr("would remove step-00000010\n"),
            HasSubstr("would remove step-00000030\n"), HasSubstr("would remove tmp-step-00000060"),
            HasSubstr("would remove tmp-step-00000070.9f3c"),
            HasSubstr("would remove 3 checkpoints"), Not(HasSubstr("step-00000020"))));
  EXPECT_EQ(Names().size(), 8u);
  const Finished end = Checkpoint({"gc", Run()});
  EXPECT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_THAT(end.output, HasSubstr("removed 3 checkpoints"));
  EXPECT_THAT(Names(), ElementsAre("step-00000020", "step-00000040", "step-00000050"));
  EXPECT_EQ(Checkpoint({"gc", Run(), "--keep", "1", "--keep-every", "0"}).exit_code, 0);
  EXPECT_THAT(Names(), ElementsAre("step-00000050"));
  EXPECT_EQ(Checkpoint({"gc", Run(), "--keep", "0"}).exit_code, 2);
}

TEST_F(CheckpointCommandTest, GcRemovesNothingIfTheNewestIsDamagedOrTheRunInUse) {
  Damage("step-00000050/parameters-00000.safetensors");
  const Finished damaged = Checkpoint({"gc", Run()});
  EXPECT_EQ(damaged.exit_code, 1);
  EXPECT_THAT(damaged.errors,
              AllOf(HasSubstr("step-00000050 is damaged"), HasSubstr("nothing is removed")));
  EXPECT_EQ(Names().size(), 6u);
  Damage("step-00000050/parameters-00000.safetensors");
  const auto lock = FileLock::Acquire(Run() + "/lock");
  ASSERT_TRUE(lock.ok());
  const Finished busy = Checkpoint({"gc", Run()});
  EXPECT_EQ(busy.exit_code, 1);
  EXPECT_THAT(busy.errors, HasSubstr("in use"));
  EXPECT_EQ(Names().size(), 6u);
}

TEST_F(CheckpointCommandTest, WrongPathsAreOneLine) {
  for (const char* command : {"ls", "verify", "gc"}) {
    const Finished end = Checkpoint({command, Run() + "/nowhere"});
    EXPECT_EQ(end.exit_code, 1);
    EXPECT_THAT(end.errors, HasSubstr("nowhere"));
  }
}

}  // namespace
}  // namespace starling
