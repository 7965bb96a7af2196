// ChunkedBytes: bytes that are given away in chunks: what a FetchIndex and a Fetch are answered
// from. A snapshot is one run of bytes, a round's result one Blob for each part; in either case the
// chunks are cut from the bytes in a row, so all who hold the same bits give the same index.
//
// The chunks are hashed once, when the index is first asked for. Not thread-safe.
#ifndef STARLING_CHECKPOINT_CHUNKED_BYTES_H_
#define STARLING_CHECKPOINT_CHUNKED_BYTES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/blob.h"
#include "runtime/wire/messages.h"

namespace starling {

constexpr uint64_t kChunkBytes = 1 << 20;

class ChunkedBytes {
 public:
  // `result` is what a result's index says beside its chunks.
  explicit ChunkedBytes(std::vector<Blob> pieces, uint64_t chunk_bytes = kChunkBytes,
                        std::optional<ResultRecord> result = std::nullopt);

  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t chunk_bytes() const { return index_.chunk_bytes; }
  const std::vector<Blob>& pieces() const { return pieces_; }
  const std::optional<ResultRecord>& result() const { return index_.result; }

  // Hashes at most about `budget_bytes` more (64 MiB take some 10 ms), so that a large state does
  // not hold up its reactor. Null until all is hashed: ask again.
  const ChunkIndex* Index(uint64_t budget_bytes = uint64_t{64} << 20);

  // The bytes that `fetch` asks for. Shares them, or copies where they lie in several pieces.
  // invalid argument: outside of the bytes, or more than a chunk.
  Chunk Cut(const Fetch& fetch) const;

 private:
  Blob Bytes(uint64_t offset, uint64_t length) const;

  const std::vector<Blob> pieces_;
  uint64_t size_bytes_ = 0;
  ChunkIndex index_;  // chunks: those hashed so far
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_CHUNKED_BYTES_H_
