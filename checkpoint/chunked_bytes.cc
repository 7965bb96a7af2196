#include "checkpoint/chunked_bytes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace starling {

ChunkedBytes::ChunkedBytes(std::vector<Blob> pieces, uint64_t chunk_bytes,
                           std::optional<ResultRecord> result)
    : pieces_(std::move(pieces)) {
  STARLING_CHECK_GT(chunk_bytes, 0u);
  for (const Blob& piece : pieces_) size_bytes_ += piece.size_bytes();
  index_.total_bytes = size_bytes_;
  index_.chunk_bytes = chunk_bytes;
  index_.result = std::move(result);
}

const ChunkIndex* ChunkedBytes::Index(uint64_t budget_bytes) {
  uint64_t hashed = 0;
  uint64_t offset = index_.chunks.size() * index_.chunk_bytes;
  while (offset < size_bytes_ && hashed < budget_bytes) {
    const uint64_t length = std::min(index_.chunk_bytes, size_bytes_ - offset);
    const Blob bytes = Bytes(offset, length);
    index_.chunks.push_back(HashBytes(bytes.data(), bytes.size_bytes()));
    offset += length;
    hashed += length;
  }
  return offset >= size_bytes_ ? &index_ : nullptr;
}

Chunk ChunkedBytes::Cut(const Fetch& fetch) const {
  Chunk chunk;
  chunk.offset_bytes = fetch.offset_bytes;
  chunk.total_bytes = size_bytes_;
  if (fetch.offset_bytes > size_bytes_ || fetch.length_bytes > size_bytes_ - fetch.offset_bytes ||
      fetch.length_bytes > index_.chunk_bytes) {
    chunk.code = absl::StatusCode::kInvalidArgument;
    chunk.error = "bytes outside of what there is, or more than a chunk, were asked for";
    return chunk;
  }
  chunk.bytes = Bytes(fetch.offset_bytes, fetch.length_bytes);
  return chunk;
}

Blob ChunkedBytes::Bytes(uint64_t offset, uint64_t length) const {
  const std::vector<int64_t> shape = {static_cast<int64_t>(length)};
  size_t piece = 0;
  while (piece < pieces_.size() && offset >= pieces_[piece].size_bytes()) {
    offset -= pieces_[piece++].size_bytes();
  }
  if (length == 0) return Blob();
  if (length <= pieces_[piece].size_bytes() - offset) {
    return Blob(pieces_[piece].owner(), pieces_[piece].data() + offset, DType::kU8, shape);
  }
  MutableBlob joined = MutableBlob::Uninitialized(DType::kU8, shape);
  for (uint64_t done = 0; done < length; ++piece, offset = 0) {
    const uint64_t part = std::min<uint64_t>(length - done, pieces_[piece].size_bytes() - offset);
    std::memcpy(joined.data() + done, pieces_[piece].data() + offset, part);
    done += part;
  }
  return std::move(joined).Freeze();
}

}  // namespace starling
