#include "tests/sim/sim_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

namespace starling::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

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

// Every disk that a crash may leave.
std::set<std::string> Outcomes(const SimDisk& disk) {
  std::set<std::string> outcomes;
  for (uint64_t draws = 0; draws < 4096; ++draws) {
    uint64_t left = draws;
    outcomes.insert(disk.CrashedCopy([&](uint64_t options) {
                          const uint64_t chosen = left % options;
                          left /= options;
                          return chosen;
                        })
                        ->Contents());
  }
  return outcomes;
}

TEST_F(SimDiskTest, ACrashMayLeaveAnySubsetOfTheChangesToAFolder) {
  Write("/a", "1", true);
  Write("/b", "2", true);
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  EXPECT_EQ(Outcomes(disk_).size(), 1u);
  ASSERT_TRUE(disk_.Rename("/a", "/c").ok());
  ASSERT_TRUE(disk_.RemoveFile("/b").ok());
  EXPECT_THAT(Outcomes(disk_),
              ElementsAre("/\n/a=1:1", "/\n/a=1:1/b=1:2", "/\n/b=1:2/c=1:1", "/\n/c=1:1"));
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  EXPECT_THAT(Outcomes(disk_), ElementsAre("/\n/c=1:1"));
}

TEST_F(SimDiskTest, ACrashMayLeaveNoneAPartZerosOrAllOfTheBytesThatWereNotSynced) {
  Write("/a", "old", true);
  ASSERT_TRUE(disk_.SyncDirectory("/").ok());
  Write("/a", "NEWS", false, /*append=*/true);
  EXPECT_THAT(Outcomes(disk_),
              UnorderedElementsAre("/\n/a=3:old", "/\n/a=5:oldNE",
                                   std::string("/\n/a=7:old\0\0\0\0", 14), "/\n/a=7:oldNEWS"));
}

TEST_F(SimDiskTest, ATreeIsRemovedFileByFile) {
  ASSERT_TRUE(disk_.MakeDirectories("/d").ok());
  Write("/d/a", "1", true);
  Write("/d/b", "2", true);
  disk_.CutPowerAfter(2);
  EXPECT_FALSE(disk_.RemoveTree("/d").ok());
  EXPECT_TRUE(disk_.power_is_cut());
  disk_.Revive();
  EXPECT_THAT(*disk_.List("/d"), ElementsAre());
  EXPECT_TRUE(disk_.RemoveTree("/d").ok());
  EXPECT_FALSE(disk_.Exists("/d"));
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
