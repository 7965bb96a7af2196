#include "checkpoint/snapshot_shelf.h"

#include <gtest/gtest.h>

namespace starling {
namespace {

constexpr Era kEra{1};
const absl::Time kStart = absl::UnixEpoch();

class SnapshotShelfTest : public testing::Test {
 protected:
  void Put(uint64_t version, absl::Duration at) {
    shelf_.Put(kEra, Version{version}, Blob::OfFloats({static_cast<float>(version)}), kStart + at);
  }
  ChunkedBytes* Find(uint64_t version, absl::Duration at) {
    return shelf_.Find(kEra, Version{version}, kStart + at);
  }

  SnapshotShelf shelf_{SnapshotShelf::Options{2, absl::Seconds(30), 64}};
};

TEST_F(SnapshotShelfTest, ASnapshotIsFoundByItsEraAndVersion) {
  Put(4, absl::ZeroDuration());
  ASSERT_NE(Find(4, absl::ZeroDuration()), nullptr);
  EXPECT_EQ(Find(4, absl::ZeroDuration())->size_bytes(), 4u);
  EXPECT_EQ(Find(5, absl::ZeroDuration()), nullptr);
  EXPECT_EQ(shelf_.Find(Next(kEra), Version{4}, kStart), nullptr);
  EXPECT_TRUE(shelf_.Holds(kEra, Version{4}));
  EXPECT_EQ(shelf_.held_bytes(), 4u);
}

TEST_F(SnapshotShelfTest, TheOneNotAskedForTheLongestMakesRoom) {
  Put(1, absl::Seconds(0));
  Put(2, absl::Seconds(1));
  Find(1, absl::Seconds(2));
  Put(3, absl::Seconds(3));
  EXPECT_EQ(shelf_.size(), 2u);
  EXPECT_TRUE(shelf_.Holds(kEra, Version{1}));
  EXPECT_FALSE(shelf_.Holds(kEra, Version{2}));
}

TEST_F(SnapshotShelfTest, OneThatIsBeingFetchedStaysAndOthersExpire) {
  Put(1, absl::Seconds(0));
  Put(2, absl::Seconds(0));
  Find(1, absl::Seconds(20));
  shelf_.Expire(kStart + absl::Seconds(31));
  EXPECT_TRUE(shelf_.Holds(kEra, Version{1}));
  EXPECT_FALSE(shelf_.Holds(kEra, Version{2}));
  shelf_.Expire(kStart + absl::Seconds(51));
  EXPECT_EQ(shelf_.size(), 0u);
}

TEST_F(SnapshotShelfTest, PutAgainItKeepsTheFirstAndItsHashes) {
  Put(1, absl::Seconds(0));
  const ChunkIndex* index = Find(1, absl::Seconds(0))->Index();
  Put(1, absl::Seconds(1));
  EXPECT_EQ(Find(1, absl::Seconds(1))->Index(), index);
}

}  // namespace
}  // namespace starling
