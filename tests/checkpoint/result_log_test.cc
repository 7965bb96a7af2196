#include "checkpoint/result_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace starling {
namespace {

using testing::HasSubstr;

constexpr Era kEra{2};

Hash128 HashOf(uint64_t version) { return {version, 7}; }

// What made `version` out of the one before.
ResultRecord Record(uint64_t version) {
  ResultRecord record;
  record.decision = 100 + version;
  record.version = Version{version};
  record.before = HashOf(version - 1);
  record.after = HashOf(version);
  return record;
}

std::vector<Blob> Pieces() { return {Blob::OfFloats({1, 2}), Blob::OfFloats({3})}; }  // 12 bytes

class ResultLogTest : public testing::Test {
 protected:
  void PutThrough(uint64_t first, uint64_t last) {
    for (uint64_t version = first; version <= last; ++version) {
      log_.Put(kEra, Record(version), Pieces());
    }
  }
  absl::StatusCode CodeOf(Era era, uint64_t version) {
    return log_.Find(era, Version{version}).status().code();
  }

  ResultLog log_{ResultLog::Options{60, 100, 8}};
};

TEST_F(ResultLogTest, WhatWasPutIsFoundByItsVersion) {
  PutThrough(5, 7);
  const auto found = log_.Find(kEra, Version{6});
  ASSERT_TRUE(found.ok());
  EXPECT_EQ((*found)->result()->decision, 106u);
  EXPECT_EQ((*found)->size_bytes(), 12u);
  const ChunkIndex* index = (*found)->Index();
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->chunks.size(), 2u);
  EXPECT_EQ(index->result->after, HashOf(6));
}

TEST_F(ResultLogTest, BytesAreBoundedAndTheOldestGoFirst) {
  PutThrough(1, 20);
  EXPECT_EQ(log_.size(), 5u);
  EXPECT_EQ(log_.held_bytes(), 60u);
  EXPECT_EQ(log_.oldest(), Version{16});
  EXPECT_EQ(log_.newest(), Version{20});
  EXPECT_EQ(CodeOf(kEra, 15), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(log_.Find(kEra, Version{15}).status().message()),
              HasSubstr("the oldest kept made 16"));
}

TEST_F(ResultLogTest, NewestAreKeptAndTheChainGoesOnFromThem) {
  PutThrough(1, 4);
  log_.KeepNewest(1);
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_EQ(log_.held_bytes(), 12u);
  EXPECT_EQ(CodeOf(kEra, 3), absl::StatusCode::kAborted);
  PutThrough(5, 5);
  EXPECT_EQ(log_.oldest(), Version{4});
  log_.KeepNewest(7);
  EXPECT_EQ(log_.size(), 2u);
}

TEST_F(ResultLogTest, NumbersAreBoundedToo) {
  ResultLog log(ResultLog::Options{1 << 20, 3, 8});
  for (uint64_t version = 1; version <= 9; ++version) {
    ResultRecord record = Record(version);
    record.skip = true;
    log.Put(kEra, record, {});
  }
  EXPECT_EQ(log.size(), 3u);
  EXPECT_EQ(log.held_bytes(), 0u);
}

TEST_F(ResultLogTest, AResultLargerThanTheBudgetIsNotKept) {
  PutThrough(1, 2);
  log_.Put(kEra, Record(3), {Blob::OfFloats(std::vector<float>(100))});
  EXPECT_EQ(log_.size(), 0u);
  EXPECT_EQ(log_.held_bytes(), 0u);
  EXPECT_EQ(CodeOf(kEra, 3), absl::StatusCode::kAborted);
  PutThrough(4, 5);
  EXPECT_EQ(log_.oldest(), Version{4});
}

TEST_F(ResultLogTest, AVersionNotMadeYetIsToBeAskedForAgain) {
  PutThrough(1, 2);
  EXPECT_EQ(CodeOf(kEra, 3), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ResultLogTest, PutAgainItChangesNothing) {
  PutThrough(1, 3);
  ResultRecord other = Record(2);
  other.decision = 9;
  log_.Put(kEra, other, {});
  EXPECT_EQ(log_.size(), 3u);
  EXPECT_EQ((*log_.Find(kEra, Version{2}))->result()->decision, 102u);
}

TEST_F(ResultLogTest, AGapAnotherStateOrAnotherEraBeginsAnew) {
  PutThrough(1, 3);
  log_.Put(kEra, Record(5), Pieces());
  EXPECT_EQ(log_.oldest(), Version{5});
  EXPECT_EQ(CodeOf(kEra, 3), absl::StatusCode::kAborted);

  ResultRecord other = Record(6);
  other.before = HashOf(99);
  log_.Put(kEra, other, Pieces());
  EXPECT_EQ(log_.oldest(), Version{6});

  log_.Put(Next(kEra), Record(7), Pieces());
  EXPECT_EQ(log_.oldest(), Version{7});
  EXPECT_EQ(CodeOf(kEra, 6), absl::StatusCode::kAborted);
  EXPECT_EQ(log_.held_bytes(), 12u);
}

TEST_F(ResultLogTest, AnEmptyLogHasNothing) {
  EXPECT_EQ(CodeOf(kEra, 1), absl::StatusCode::kAborted);
  EXPECT_EQ(log_.newest(), Version{0});
}

TEST(CheckChain, OnlyTheNextVersionFromTheSameStateFollows) {
  const StateName state{kEra, Version{4}, HashOf(4)};
  EXPECT_TRUE(CheckChain(state, Record(5)).ok());
  EXPECT_EQ(CheckChain(state, Record(6)).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CheckChain(state, Record(4)).code(), absl::StatusCode::kDataLoss);
  ResultRecord other = Record(5);
  other.before = HashOf(77);
  EXPECT_EQ(CheckChain(state, other).code(), absl::StatusCode::kDataLoss);
  ResultRecord skip = Record(5);
  skip.skip = true;
  EXPECT_EQ(CheckChain(state, skip).code(), absl::StatusCode::kDataLoss)
      << "a skip changes nothing";
  skip.after = skip.before;
  EXPECT_TRUE(CheckChain(state, skip).ok());
}

}  // namespace
}  // namespace starling
