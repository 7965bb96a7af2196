#include "tests/sim/sim_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace starling::sim {
namespace {

using ::testing::ElementsAre;

class SimDiskTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text, bool sync, bool append = false) {
    auto file = append ? disk_.OpenForAppend(path) : disk_.Create(path);
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE((*file)->Append(text.data(), text.size()).ok());
    if (sync) {
      ASSERT_TRUE((*file)->Sync().ok());
    }
  }
  std::string Read(const std::string& path) {
    absl::StatusOr<std::string> text = disk_.Read(path);
    return text.ok() ? *text : std::string(absl::StatusCodeToString(text.status().code()));
  }

  SimDisk disk_;
};

TEST_F(SimDiskTest, ACrashForgetsBytesThatWereNotSynced) {
  Write("/file", "synced", true);
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  Write("/file", " and not", false, /*append=*/true);
  EXPECT_EQ(Read("/file"), "synced and not");
  disk_.Crash();
  EXPECT_EQ(Read("/file"), "synced");
}

TEST_F(SimDiskTest, ACrashForgetsANameWhoseFolderWasNotSynced) {
  Write("/kept", "1", true);
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  Write("/forgotten", "2", true);
  disk_.Crash();
  EXPECT_EQ(Read("/kept"), "1");
  EXPECT_EQ(Read("/forgotten"), "NOT_FOUND");
}

TEST_F(SimDiskTest, ARenameThatWasNotSyncedIsUndoneByACrash) {
  Write("/old", "new content", true);
  Write("/target", "old content", true);
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  ASSERT_TRUE(disk_.Rename("/old", "/target").ok());
  EXPECT_EQ(Read("/target"), "new content");
  disk_.Crash();
  EXPECT_EQ(Read("/target"), "old content");
  EXPECT_EQ(Read("/old"), "new content");
  ASSERT_TRUE(disk_.Rename("/old", "/target").ok());
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  disk_.Crash();
  EXPECT_EQ(Read("/target"), "new content");
  EXPECT_EQ(Read("/old"), "NOT_FOUND");
}

TEST_F(SimDiskTest, ARenamedFolderKeepsWhatWasSyncedInIt) {
  ASSERT_TRUE(disk_.MakeDirectories("/run/tmp").ok());
  Write("/run/tmp/synced", "1", true);
  ASSERT_TRUE(disk_.SyncDirectory("/run/tmp").ok());
  Write("/run/tmp/late", "2", true);
  ASSERT_TRUE(disk_.Rename("/run/tmp", "/run/published").ok());
  ASSERT_TRUE(disk_.SyncDirectory("/run").ok());
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  disk_.Crash();
  EXPECT_THAT(*disk_.List("/run/published"), ElementsAre("synced"));
  EXPECT_THAT(*disk_.List("/run"), ElementsAre("published"));
}

TEST_F(SimDiskTest, ATornTailIsAPrefixOfWhatWasAppended) {
  Rng rng(1);
  bool partly = false;
  for (int i = 0; i < 20; ++i) {
    Write("/log", "line\n", true);
    ASSERT_TRUE(disk_.SyncDirectory("/").ok());
    Write("/log", "next line\n", false, /*append=*/true);
    disk_.Crash(&rng);
    const std::string text = Read("/log");
    EXPECT_EQ(std::string("line\nnext line\n").rfind(text, 0), 0u) << text;
    EXPECT_GE(text.size(), 5u);
    partly |= text.size() > 5 && text.size() < 15;
  }
  EXPECT_TRUE(partly);
}

TEST_F(SimDiskTest, AFullDiskTakesWhatFitsAndSaysSo) {
  disk_.SetBudget(5);
  auto file = disk_.Create("/file");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Append("12345678", 8).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Read("/file"), "12345");
  ASSERT_TRUE(disk_.RemoveFile("/file").ok());
  Write("/other", "abcde", true);
  EXPECT_EQ(disk_.used_bytes(), 5u);
}

TEST_F(SimDiskTest, AfterAPowerCutNothingWorksUntilTheCrash) {
  Write("/a", "1", true);
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  disk_.CutPowerAfter(2);
  auto file = disk_.Create("/b");
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->Append("2", 1).ok());
  EXPECT_EQ((*file)->Sync().code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(disk_.Read("/a").ok());
  disk_.Crash();
  EXPECT_EQ(Read("/a"), "1");
  EXPECT_EQ(Read("/b"), "NOT_FOUND");
  EXPECT_EQ((*file)->Append("3", 1).code(), absl::StatusCode::kInternal);  // a dead handle
}

TEST_F(SimDiskTest, ErrorsNameWhatIsWrong) {
  EXPECT_EQ(disk_.Create("/no/such/folder").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(disk_.Rename("/none", "/x").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(disk_.RemoveFile("/none").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(disk_.RemoveTree("/none/either").ok());
  ASSERT_TRUE(disk_.MakeDirectories("/d/e").ok());
  ASSERT_TRUE(disk_.MakeDirectories("/f").ok());
  EXPECT_EQ(disk_.Rename("/f", "/d").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_FALSE(disk_.Read("/d").ok());
}

TEST(SimFilesTest, JobsRunInOrderNeverInlineAndDieWithTheNode) {
  constexpr NodeId kNode{3};
  Scheduler scheduler;
  SimDisk disk;
  SimFiles files(&scheduler, kNode, &disk, absl::Milliseconds(5), 1);
  std::vector<int> seen;
  for (int i = 0; i < 3; ++i) {
    files.Run(
        [&seen, i](Disk&) {
          seen.push_back(i);
          return absl::DataLossError("x");
        },
        [&seen, i](absl::Status status) {
          EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
          seen.push_back(10 + i);
        });
  }
  EXPECT_TRUE(seen.empty());
  scheduler.Run(RunLimits{});
  std::vector<int> jobs, dones;
  for (int i : seen) (i < 10 ? jobs : dones).push_back(i);
  EXPECT_THAT(jobs, ElementsAre(0, 1, 2));
  EXPECT_THAT(dones, ElementsAre(10, 11, 12));

  files.Run([](Disk&) { return absl::OkStatus(); }, [](absl::Status) { FAIL(); });
  scheduler.DropNode(kNode);
  EXPECT_EQ(scheduler.Run(RunLimits{}), RunEnd::kIdle);
}

}  // namespace
}  // namespace starling::sim
