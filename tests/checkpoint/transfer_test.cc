#include "checkpoint/transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <limits>
#include <optional>

namespace starling {
namespace {

using testing::Each;
using testing::Le;
using testing::SizeIs;

constexpr int64_t kElements = (3 * kChunkBytes + 400) / sizeof(float);  // three and a bit chunks

Blob State(int64_t elements) {
  MutableBlob state = MutableBlob::Uninitialized(DType::kF32, {elements});
  for (int64_t i = 0; i < elements; ++i) state.As<float>()[i] = static_cast<float>(i % 8191);
  return std::move(state).Freeze();
}

// Keeps the fetches until the test answers them.
class StateFetcherTest : public testing::Test {
 protected:
  struct Asked {
    Fetch fetch;
    std::function<void(const Chunk&)> reply;
  };

  StateFetcherTest() { Begin(kElements); }
  void Begin(int64_t elements) {
    asked_.clear();
    fetcher_ = std::make_unique<StateFetcher>(
        StateFetcher::Want{StageId{2}, Era{3}, Version{4}, elements}, Endpoint{"me", "me too"},
        [this](Fetch fetch, std::function<void(const Chunk&)> reply) {
          asked_.push_back({std::move(fetch), std::move(reply)});
        },
        [this](absl::StatusOr<Blob> result) {
          ++done_;
          result_ = std::move(result);
        });
    fetcher_->Start();
  }
  // Answers the oldest fetch, or the newest.
  void Answer(const Blob& snapshot, bool newest = false) {
    const Asked asked = newest ? asked_.back() : asked_.front();
    newest ? asked_.pop_back() : asked_.pop_front();
    asked.reply(CutChunk(asked.fetch, snapshot));
  }
  absl::StatusCode Code() const {
    return result_ ? result_->status().code() : absl::StatusCode::kUnknown;
  }

  const Blob state_ = State(kElements);
  std::deque<Asked> asked_;
  int done_ = 0;
  std::optional<absl::StatusOr<Blob>> result_;
  std::unique_ptr<StateFetcher> fetcher_;
};

TEST_F(StateFetcherTest, ChunksInAnyOrderMakeUpTheState) {
  for (bool newest : {false, true}) {
    Begin(kElements);
    result_.reset();
    while (!asked_.empty()) Answer(state_, newest);
    ASSERT_TRUE(result_ && result_->ok());
    ASSERT_EQ((*result_)->shape(), state_.shape());
    EXPECT_EQ((*result_)->dtype(), DType::kF32);
    EXPECT_EQ(std::memcmp((*result_)->data(), state_.data(), state_.size_bytes()), 0);
    EXPECT_EQ(fetcher_->received_bytes(), state_.size_bytes());
  }
  EXPECT_EQ(done_, 2);
}

TEST_F(StateFetcherTest, AsksNameTheStateAndAreBoundedInSizeAndNumber) {
  Begin(10 * kElements);
  const Blob state = State(10 * kElements);
  uint64_t next = 0;
  while (!asked_.empty()) {
    EXPECT_THAT(asked_, SizeIs(Le(static_cast<size_t>(kChunksInFlight))));
    const Fetch& fetch = asked_.front().fetch;
    EXPECT_EQ(fetch.stage, StageId{2});
    EXPECT_EQ(fetch.era, Era{3});
    EXPECT_EQ(fetch.version, Version{4});
    EXPECT_EQ(fetch.reply_address.control, "me");
    EXPECT_EQ(fetch.offset_bytes, next);
    EXPECT_LE(fetch.length_bytes, kChunkBytes);
    next += fetch.length_bytes;
    Answer(state);
  }
  EXPECT_EQ(next, 10 * kElements * sizeof(float));
}

TEST_F(StateFetcherTest, StateOfOneChunkIsAskedForOnce) {
  Begin(3);
  EXPECT_EQ(asked_.size(), 1u);
  Answer(State(3));
  EXPECT_TRUE(result_ && result_->ok());
}

TEST_F(StateFetcherTest, DonorThatRefusesEndsItWithItsCodeOnce) {
  for (auto code : {absl::StatusCode::kAborted, absl::StatusCode::kFailedPrecondition}) {
    Begin(kElements);
    done_ = 0;
    Chunk refusal;
    refusal.code = code;
    refusal.error = "no such state";
    while (!asked_.empty()) {
      const Asked asked = asked_.front();
      asked_.pop_front();
      asked.reply(refusal);
    }
    EXPECT_EQ(Code(), code);
    EXPECT_EQ(done_, 1);
  }
}

TEST_F(StateFetcherTest, SnapshotOfAnotherSizeIsDataLoss) {
  for (int64_t elements : {kElements + 1, kElements * 2}) {
    Begin(kElements);
    Answer(State(elements));
    EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(StateFetcherTest, ChunkFromAnotherPlaceOrCutShortIsDataLoss) {
  Chunk right = CutChunk(asked_.front().fetch, state_);
  Chunk elsewhere = right;
  elsewhere.offset_bytes += 4;
  Chunk cut = right;
  cut.bytes = Blob::OfString("short");
  for (const Chunk& wrong : {elsewhere, cut}) {
    Begin(kElements);
    asked_.front().reply(wrong);
    EXPECT_EQ(Code(), absl::StatusCode::kDataLoss);
    asked_.back().reply(right);
    EXPECT_EQ(Code(), absl::StatusCode::kDataLoss) << "later chunks change nothing";
  }
}

TEST_F(StateFetcherTest, RepliesAfterItIsGoneAreHarmless) {
  fetcher_.reset();
  while (!asked_.empty()) Answer(state_);
  EXPECT_EQ(done_, 0);
}

TEST(CutChunk, AskBeyondTheSnapshotIsRefused) {
  const Blob state = State(10);
  const auto code = [&](uint64_t offset, uint64_t length) {
    Fetch fetch;
    fetch.offset_bytes = offset;
    fetch.length_bytes = length;
    return CutChunk(fetch, state).code;
  };
  EXPECT_EQ(code(0, 40), absl::StatusCode::kOk);
  EXPECT_EQ(code(40, 0), absl::StatusCode::kOk);
  EXPECT_EQ(code(0, 41), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(41, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(4, std::numeric_limits<uint64_t>::max()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::numeric_limits<uint64_t>::max(), 4), absl::StatusCode::kInvalidArgument);
}

TEST(CutChunk, BytesAreSharedWithTheSnapshot) {
  const Blob state = State(10);
  Fetch fetch;
  fetch.offset_bytes = 8;
  fetch.length_bytes = 12;
  const Chunk chunk = CutChunk(fetch, state);
  EXPECT_EQ(chunk.bytes.data(), state.data() + 8);
  EXPECT_EQ(chunk.bytes.size_bytes(), 12u);
  EXPECT_EQ(chunk.total_bytes, 40u);
}

}  // namespace
}  // namespace starling
