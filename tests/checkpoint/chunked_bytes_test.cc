#include "checkpoint/chunked_bytes.h"

#include <gtest/gtest.h>

#include <limits>

namespace starling {
namespace {

constexpr uint64_t kChunk = 16;

Fetch Range(uint64_t offset, uint64_t length) {
  Fetch fetch;
  fetch.offset_bytes = offset;
  fetch.length_bytes = length;
  return fetch;
}

TEST(ChunkedBytes, TheIndexHasTheHashOfEachChunk) {
  const Blob state = Blob::OfFloats({1, 2, 3, 4, 5, 6});
  ChunkedBytes bytes({state}, kChunk);
  const ChunkIndex* index = bytes.Index();
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->total_bytes, 24u);
  EXPECT_EQ(index->chunk_bytes, kChunk);
  ASSERT_EQ(index->chunks.size(), 2u);
  EXPECT_EQ(index->chunks[0], HashBytes(state.data(), 16));
  EXPECT_EQ(index->chunks[1], HashBytes(state.data() + 16, 8));
  EXPECT_FALSE(index->result);
}

TEST(ChunkedBytes, PiecesMakeTheSameIndexAndChunksAsOneRun) {
  const Blob whole = Blob::OfFloats({1, 2, 3, 4, 5, 6, 7, 8, 9});
  ChunkedBytes one({whole}, kChunk);
  ChunkedBytes many({whole.Slice(0, 1), whole.Slice(1, 0), whole.Slice(1, 5), whole.Slice(6, 3)},
                    kChunk);
  EXPECT_EQ(many.Index()->chunks, one.Index()->chunks);
  for (uint64_t offset = 0; offset < 36; offset += 4) {
    for (uint64_t length = 0; length <= kChunk && offset + length <= 36; length += 4) {
      EXPECT_EQ(many.Cut(Range(offset, length)).bytes.ToStringBytes(),
                one.Cut(Range(offset, length)).bytes.ToStringBytes());
    }
  }
}

TEST(ChunkedBytes, AChunkSharesTheBytesWhereTheyLieInARow) {
  const Blob whole = Blob::OfFloats({1, 2, 3, 4, 5, 6});
  const ChunkedBytes bytes({whole}, kChunk);
  EXPECT_EQ(bytes.Cut(Range(8, 16)).bytes.data(), whole.data() + 8);
}

TEST(ChunkedBytes, HashingIsDoneInSlicesOfABudget) {
  ChunkedBytes bytes({Blob::OfFloats(std::vector<float>(40))}, kChunk);
  EXPECT_EQ(bytes.Index(5 * kChunk), nullptr);
  EXPECT_NE(bytes.Index(5 * kChunk), nullptr);
  EXPECT_EQ(bytes.Index(0)->chunks.size(), 10u);
}

TEST(ChunkedBytes, BytesOutsideOrMoreThanAChunkAreRefused) {
  const ChunkedBytes bytes({Blob::OfFloats({1, 2, 3, 4, 5, 6})}, kChunk);
  const auto code = [&](uint64_t offset, uint64_t length) {
    return bytes.Cut(Range(offset, length)).code;
  };
  EXPECT_EQ(code(8, 16), absl::StatusCode::kOk);
  EXPECT_EQ(code(24, 0), absl::StatusCode::kOk);
  EXPECT_EQ(code(0, 17), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(12, 16), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(25, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(4, std::numeric_limits<uint64_t>::max()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(std::numeric_limits<uint64_t>::max(), 4), absl::StatusCode::kInvalidArgument);
}

TEST(ChunkedBytes, NothingHasAnIndexWithoutChunks) {
  ChunkedBytes bytes({}, kChunk, ResultRecord{});
  ASSERT_NE(bytes.Index(), nullptr);
  EXPECT_TRUE(bytes.Index()->chunks.empty());
  EXPECT_TRUE(bytes.Index()->result);
  EXPECT_EQ(bytes.Cut(Range(0, 0)).code, absl::StatusCode::kOk);
}

}  // namespace
}  // namespace starling
