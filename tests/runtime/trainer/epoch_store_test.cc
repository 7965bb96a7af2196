#include "runtime/trainer/epoch_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using ::starling::testing::MemoryDisk;
using ::testing::ElementsAre;

constexpr char kPath[] = "/run/epoch";

class EpochStoreTest : public ::testing::Test {
 protected:
  EpochStoreTest() { disk_.folders.insert("/run"); }
  MemoryDisk disk_;
  FileEpochStore store_{&disk_, kPath};
};

TEST_F(EpochStoreTest, TakenEpochIsTheNewestAndSurvivesACrash) {
  EXPECT_EQ(*store_.Newest(), Epoch{0});
  ASSERT_TRUE(store_.Take(Epoch{0}, Epoch{4}).ok());
  EXPECT_EQ(*store_.Newest(), Epoch{4});
  EXPECT_THAT(disk_.log,
              ElementsAre("create /run/epoch.tmp", "append /run/epoch.tmp", "sync /run/epoch.tmp",
                          "rename /run/epoch.tmp /run/epoch", "sync folder /run"));
}

TEST_F(EpochStoreTest, OfTwoThatReadTheSameEpochOneIsRefused) {
  ASSERT_TRUE(store_.Take(Epoch{0}, Epoch{1}).ok());
  FileEpochStore other(&disk_, kPath);
  ASSERT_TRUE(other.Take(Epoch{1}, Epoch{2}).ok());
  EXPECT_EQ(store_.Take(Epoch{1}, Epoch{2}).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(*store_.Newest(), Epoch{2});
}

TEST_F(EpochStoreTest, EpochsOnlyGrow) {
  EXPECT_EQ(store_.Take(Epoch{3}, Epoch{3}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(*TakeNextEpoch(&store_, Epoch{7}), Epoch{8});  // the log knew of 7
  EXPECT_EQ(*TakeNextEpoch(&store_, Epoch{7}), Epoch{9});
}

TEST_F(EpochStoreTest, DamagedFileIsDataLossAndFullDiskIsReported) {
  disk_.files[kPath] = "?";
  EXPECT_EQ(store_.Newest().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_.Take(Epoch{0}, Epoch{1}).code(), absl::StatusCode::kDataLoss);
  disk_.files.erase(kPath);
  disk_.budget_bytes = disk_.used_bytes();
  EXPECT_EQ(store_.Take(Epoch{0}, Epoch{1}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*store_.Newest(), Epoch{0});
}

}  // namespace
}  // namespace starling
