#include "checkpoint/chunk_donor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint64_t kChunk = 1 << 20;

class ChunkDonorTest : public testing::Test {
 protected:
  struct Sent {
    Endpoint to;
    uint64_t request;
    MessageBody body;
  };

  ChunkDonorTest() { Begin({}); }
  void Begin(ChunkDonor::Options options) {
    donor_ = std::make_unique<ChunkDonor>(
        &env_, options,
        [this](Content content, StageId, Era, Version version) -> absl::StatusOr<ChunkedBytes*> {
          if (content != Content::kState) return absl::AbortedError("no results");
          if (version > Version{5}) return absl::FailedPreconditionError("not yet");
          if (version < Version{5} || gone_) return absl::AbortedError("gone");
          return &bytes_;
        },
        [this](const Endpoint& to, uint64_t request, MessageBody body) {
          sent_.push_back({to, request, std::move(body)});
        });
  }
  Fetch FetchOf(uint64_t chunk, uint64_t version = 5) {
    Fetch fetch;
    fetch.version = Version{version};
    fetch.offset_bytes = chunk * kChunk;
    fetch.length_bytes = kChunk;
    fetch.reply_address = TestEndpoint("asker");
    return fetch;
  }
  std::vector<uint64_t> TakeRequests() {
    std::vector<uint64_t> requests;
    for (const Sent& sent : sent_) requests.push_back(sent.request);
    sent_.clear();
    return requests;
  }
  absl::StatusCode CodeOf(const Sent& sent) { return std::get<Chunk>(sent.body).code; }

  FakeEnv env_;
  ChunkedBytes bytes_{{Blob::OfFloats(std::vector<float>(8 * kChunk / 4))}, kChunk};
  bool gone_ = false;
  std::vector<Sent> sent_;
  std::unique_ptr<ChunkDonor> donor_;
};

TEST_F(ChunkDonorTest, AnIndexAndChunksAreAnsweredAtOnce) {
  FetchIndex fetch;
  fetch.version = Version{5};
  fetch.reply_address = TestEndpoint("asker");
  donor_->OnFetchIndex(fetch, 7);
  donor_->OnFetch(FetchOf(2), 8);
  ASSERT_THAT(sent_, SizeIs(2));
  EXPECT_EQ(sent_[0].to, TestEndpoint("asker"));
  EXPECT_EQ(sent_[0].request, 7u);
  EXPECT_THAT(std::get<ChunkIndex>(sent_[0].body).chunks, SizeIs(8));
  EXPECT_EQ(std::get<Chunk>(sent_[1].body).offset_bytes, 2 * kChunk);
  EXPECT_EQ(donor_->sent_bytes(), kChunk);
}

TEST_F(ChunkDonorTest, WhatIsNotThereIsRefusedWithItsCode) {
  FetchIndex fetch;
  fetch.version = Version{6};
  donor_->OnFetchIndex(fetch, 1);
  donor_->OnFetch(FetchOf(0, 6), 2);
  donor_->OnFetch(FetchOf(0, 4), 3);
  donor_->OnFetch(FetchOf(8), 4);
  ASSERT_THAT(sent_, SizeIs(4));
  EXPECT_EQ(std::get<ChunkIndex>(sent_[0].body).code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(sent_[1]), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(sent_[2]), absl::StatusCode::kAborted);
  EXPECT_EQ(CodeOf(sent_[3]), absl::StatusCode::kInvalidArgument);
}

TEST_F(ChunkDonorTest, ChunksLeaveInOrderAtTheBoundedRate) {
  Begin({2.0 * kChunk, 64});
  for (uint64_t i = 0; i < 8; ++i) donor_->OnFetch(FetchOf(i), i);
  EXPECT_THAT(TakeRequests(), ElementsAre(0));
  EXPECT_EQ(donor_->waiting(), 7u);
  env_.Advance(absl::Seconds(1.01));
  EXPECT_THAT(TakeRequests(), ElementsAre(1, 2));
  env_.Advance(absl::Seconds(2.5));
  EXPECT_THAT(TakeRequests(), ElementsAre(3, 4, 5, 6, 7));
  EXPECT_EQ(donor_->waiting(), 0u);
  EXPECT_EQ(env_.timers(), 0u);
}

TEST_F(ChunkDonorTest, ARepeatOfOneThatWaitsChangesNothing) {
  Begin({2.0 * kChunk, 64});
  for (int repeat = 0; repeat < 5; ++repeat) {
    for (uint64_t i = 1; i < 4; ++i) donor_->OnFetch(FetchOf(i), i);
    if (repeat == 0) {
      EXPECT_THAT(TakeRequests(), ElementsAre(1));
      donor_->OnFetch(FetchOf(1), 1);  // the answer was lost: it waits like any other
    }
  }
  EXPECT_EQ(donor_->waiting(), 3u);
}

TEST_F(ChunkDonorTest, MoreThanMayWaitAreToldToComeBack) {
  Begin({2.0 * kChunk, 3});
  for (uint64_t i = 0; i < 6; ++i) donor_->OnFetch(FetchOf(i), i);
  ASSERT_THAT(sent_, SizeIs(3));
  EXPECT_EQ(CodeOf(sent_[0]), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOf(sent_[1]), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOf(sent_[2]), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(donor_->waiting(), 3u);
}

TEST_F(ChunkDonorTest, AHostileLengthDoesNotUseUpTheRate) {
  Begin({2.0 * kChunk, 64});
  Fetch hostile = FetchOf(0);
  hostile.length_bytes = ~uint64_t{0};
  donor_->OnFetch(hostile, 1);
  EXPECT_EQ(CodeOf(sent_[0]), absl::StatusCode::kInvalidArgument);
  TakeRequests();
  donor_->OnFetch(FetchOf(0), 2);
  EXPECT_THAT(TakeRequests(), ElementsAre(2));
}

TEST_F(ChunkDonorTest, WhatIsGoneWhileItWaitedIsRefused) {
  Begin({2.0 * kChunk, 64});
  donor_->OnFetch(FetchOf(0), 1);
  donor_->OnFetch(FetchOf(1), 2);
  gone_ = true;
  env_.Advance(absl::Seconds(1));
  ASSERT_THAT(sent_, SizeIs(2));
  EXPECT_EQ(CodeOf(sent_[1]), absl::StatusCode::kAborted);
}

TEST_F(ChunkDonorTest, DestroyedItLeavesNoTimer) {
  Begin({2.0 * kChunk, 64});
  for (uint64_t i = 0; i < 3; ++i) donor_->OnFetch(FetchOf(i), i);
  donor_.reset();
  EXPECT_EQ(env_.timers(), 0u);
}

}  // namespace
}  // namespace starling
