#include "checkpoint/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/checkpoint/checkpoint_testing.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::Layouts;
using starling::testing::MemoryDisk;
using starling::testing::Meta;
using starling::testing::Parts;
using starling::testing::StateOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFolder[] = "/run/checkpoints";

class ShardTest : public ::testing::Test {
 protected:
  ShardTest() { EXPECT_TRUE(disk_.MakeDirectories("/run").ok()); }

  MemoryDisk disk_;
  CheckpointStore store_{kFolder};
  const std::vector<StageLayout> layouts_ = Layouts({1, 2});
};

TEST_F(ShardTest, PiecesMakeTheSameFilesHoweverTheyAreCut) {
  const Blob state = StateOf(layouts_[0], 5);
  ASSERT_TRUE(disk_.MakeDirectories("/whole").ok());
  ASSERT_TRUE(WriteShard(disk_, "/whole", 3, {layouts_[0], state}).ok());
  for (const size_t piece : {1, 3, 4, 60, 64, 100, 4096}) {
    ASSERT_TRUE(disk_.MakeDirectories("/pieces").ok());
    auto writer = ShardWriter::Create(disk_, "/pieces", 3, layouts_[0]);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (size_t at = 0; at < state.size_bytes(); at += piece) {
      const size_t size = std::min(piece, state.size_bytes() - at);
      ASSERT_TRUE((*writer)->Append(state.data() + at, size).ok());
    }
    const auto shard = (*writer)->Finish();
    ASSERT_TRUE(shard.ok()) << shard.status();
    ASSERT_EQ(shard->files.size(), 2u);
    for (const ManifestFile& file : shard->files) {
      const std::string& bytes = disk_.files.at("/pieces/" + file.name);
      EXPECT_EQ(bytes, disk_.files.at("/whole/" + file.name)) << piece;
      EXPECT_EQ(bytes.size(), file.bytes);
      EXPECT_EQ(HashBytes(bytes.data(), bytes.size()), file.hash);
    }
    EXPECT_EQ(shard->parameters.size(), layouts_[0].tensors.size());
  }
}

TEST_F(ShardTest, WrongNumberOfBytesIsRefused) {
  ASSERT_TRUE(disk_.MakeDirectories("/f").ok());
  const Blob state = StateOf(layouts_[0], 5);
  auto writer = ShardWriter::Create(disk_, "/f", 0, layouts_[0]);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Append(state.data(), state.size_bytes() - 4).ok());
  EXPECT_EQ((*writer)->Append(state.data(), 8).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*writer)->Finish().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteShard(disk_, "/f", 0, {layouts_[0], Blob::OfFloats({1})}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(ShardTest, ShardsOfSeveralWritersBecomeOneCheckpoint) {
  const auto staging = store_.Begin(disk_, Meta(50), "a1");
  ASSERT_TRUE(staging.ok()) << staging.status();
  EXPECT_FALSE(staging->already_published);
  const std::vector<StagePart> parts = Parts(layouts_, 7);
  std::vector<Shard> shards(2);
  // In any order, and the first one by two replicas that do not know of each other.
  for (const uint32_t index : {1, 0, 0}) {
    const auto shard =
        WriteShard(disk_, staging->path, index, parts[index], std::to_string(disk_.log.size()));
    ASSERT_TRUE(shard.ok()) << shard.status();
    shards[index] = *shard;
  }
  EXPECT_THAT(*store_.List(disk_), IsEmpty());
  ASSERT_TRUE(store_.Publish(disk_, *staging, shards).ok());
  const CheckpointInfo info = store_.At(Era{0}, Version{50});
  EXPECT_EQ(store_.Newest(disk_)->path, info.path);
  const auto report = Verify(disk_, info);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->problems, IsEmpty());
  EXPECT_THAT(report->strangers, IsEmpty());
  const StageLayout whole = Layouts({3})[0];
  EXPECT_EQ(LoadStage(disk_, info, whole)->ToStringBytes(), StateOf(whole, 7).ToStringBytes());
}

TEST_F(ShardTest, TiedParameterIsStoredOnceAndLoadedByEveryStageOfAnyCut) {
  const std::vector<StageLayout> layouts = testing::TiedLayouts({1, 1, 1});
  ASSERT_TRUE(store_.Save(disk_, Meta(50), Parts(layouts, 7)).ok());
  const CheckpointInfo info = store_.At(Era{0}, Version{50});
  const auto manifest = LoadManifest(disk_, info);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  int embeddings = 0;
  for (const ManifestParameter& parameter : manifest->parameters) {
    embeddings += parameter.name == "embedding" ? 1 : 0;
  }
  EXPECT_EQ(embeddings, 1);
  const auto report = Verify(disk_, info);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->problems, IsEmpty());
  for (const std::vector<int>& cut : std::vector<std::vector<int>>{{1, 1, 1}, {2, 1}, {3}}) {
    const std::vector<StageLayout> other = testing::TiedLayouts(cut);
    EXPECT_TRUE(CheckModelShape(info, *manifest, other).ok());
    for (const StageLayout& layout : other) {
      const auto state = LoadStage(disk_, info, layout);
      ASSERT_TRUE(state.ok()) << state.status();
      EXPECT_EQ(state->ToStringBytes(), StateOf(layout, 7).ToStringBytes());
    }
  }
}

TEST_F(ShardTest, ShardThatTheTrainerDoesNotSeeIsNotPublished) {
  MemoryDisk elsewhere;
  const auto staging = store_.Begin(disk_, Meta(50), "a1");
  ASSERT_TRUE(staging.ok());
  const std::vector<StagePart> parts = Parts(layouts_, 7);
  std::vector<Shard> shards;
  shards.push_back(*WriteShard(disk_, staging->path, 0, parts[0]));
  ASSERT_TRUE(elsewhere.MakeDirectories(staging->path).ok());
  shards.push_back(*WriteShard(elsewhere, staging->path, 1, parts[1]));
  const absl::Status status = store_.Publish(disk_, *staging, shards);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("parameters-00001.safetensors"));
  EXPECT_THAT(*store_.List(disk_), IsEmpty());
  EXPECT_THAT(*disk_.List(kFolder), IsEmpty());
}

TEST_F(ShardTest, WriterOfASaveThatWasGivenUpTouchesNoLaterOne) {
  const std::vector<StagePart> parts = Parts(layouts_, 7);
  const auto first = store_.Begin(disk_, Meta(50), "a1");
  ASSERT_TRUE(first.ok());
  auto slow = ShardWriter::Create(disk_, first->path, 0, layouts_[0], "slow");
  ASSERT_TRUE(slow.ok());
  store_.Abandon(disk_, *first);
  const auto second = store_.Begin(disk_, Meta(50), "a2");
  ASSERT_TRUE(second.ok());
  EXPECT_NE(first->path, second->path);
  EXPECT_EQ((*slow)->Append(parts[0].state.data(), parts[0].state.size_bytes()).code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(*disk_.List(second->path), IsEmpty());
}

TEST_F(ShardTest, SameTensorInTwoShardsIsRefused) {
  const auto staging = store_.Begin(disk_, Meta(50));
  ASSERT_TRUE(staging.ok());
  const std::vector<StagePart> parts = Parts(layouts_, 7);
  std::vector<Shard> shards;
  for (const uint32_t index : {0, 1}) {
    shards.push_back(*WriteShard(disk_, staging->path, index, parts[0]));
  }
  EXPECT_EQ(store_.Publish(disk_, *staging, shards).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(*disk_.List(kFolder), IsEmpty());
}

TEST_F(ShardTest, WhatIsPublishedIsNotBegunAgain) {
  ASSERT_TRUE(store_.Save(disk_, Meta(50), Parts(layouts_, 7)).ok());
  EXPECT_TRUE(store_.Begin(disk_, Meta(50))->already_published);
  EXPECT_FALSE(store_.Begin(disk_, Meta(50, 1))->already_published);
  // One with a file missing is no checkpoint.
  ASSERT_TRUE(
      disk_.RemoveFile(std::string(kFolder) + "/step-00000050/optimizer-00001.safetensors").ok());
  EXPECT_FALSE(store_.Begin(disk_, Meta(50))->already_published);
}

}  // namespace
}  // namespace starling
