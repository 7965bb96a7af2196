#include "checkpoint/transfer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "runtime/base/layout.h"

namespace starling {

Chunk CutChunk(const Fetch& fetch, const Blob& snapshot) {
  Chunk chunk;
  chunk.offset_bytes = fetch.offset_bytes;
  chunk.total_bytes = snapshot.size_bytes();
  if (fetch.offset_bytes > chunk.total_bytes ||
      fetch.length_bytes > chunk.total_bytes - fetch.offset_bytes) {
    chunk.code = absl::StatusCode::kInvalidArgument;
    chunk.error = "bytes outside of the snapshot were asked for";
    return chunk;
  }
  chunk.bytes = Blob(snapshot.owner(), snapshot.data() + fetch.offset_bytes, DType::kU8,
                     {static_cast<int64_t>(fetch.length_bytes)});
  return chunk;
}

StateFetcher::StateFetcher(Want want, Endpoint reply_address, Ask ask,
                           std::function<void(absl::StatusOr<Blob>)> done)
    : want_(want),
      reply_address_(std::move(reply_address)),
      ask_(std::move(ask)),
      done_(std::move(done)),
      buffer_(MutableBlob::Uninitialized(DType::kF32, {want.elements})) {}

void StateFetcher::Start() {
  for (int i = 0; i < kChunksInFlight; ++i) AskNext();
}

void StateFetcher::AskNext() {
  if (asked_bytes_ >= total_bytes() && asked_bytes_ > 0) return;
  const uint64_t offset = asked_bytes_;
  const uint64_t length = std::min(kChunkBytes, total_bytes() - offset);
  asked_bytes_ += length;
  Fetch fetch;
  fetch.stage = want_.stage;
  fetch.era = want_.era;
  fetch.version = want_.version;
  fetch.offset_bytes = offset;
  fetch.length_bytes = length;
  fetch.reply_address = reply_address_;
  ask_(std::move(fetch),
       [this, offset, length, alive = std::weak_ptr<bool>(alive_)](const Chunk& chunk) {
         if (!alive.expired()) OnChunk(offset, length, chunk);
       });
}

void StateFetcher::OnChunk(uint64_t offset_bytes, uint64_t length_bytes, const Chunk& chunk) {
  if (!done_) return;
  if (chunk.code != absl::StatusCode::kOk) {
    Finish(absl::Status(chunk.code, chunk.error));
    return;
  }
  if (chunk.offset_bytes != offset_bytes || chunk.bytes.size_bytes() != length_bytes ||
      chunk.total_bytes != total_bytes()) {
    Finish(absl::DataLossError("the donor's snapshot has another size than this stage's state"));
    return;
  }
  std::memcpy(buffer_.data() + offset_bytes, chunk.bytes.data(), length_bytes);
  received_bytes_ += length_bytes;
  if (received_bytes_ == total_bytes()) {
    Finish(absl::OkStatus());
  } else {
    AskNext();
  }
}

void StateFetcher::Finish(absl::Status status) {
  auto done = std::move(done_);
  done_ = nullptr;
  if (status.ok()) {
    done(std::move(buffer_).Freeze());
  } else {
    done(std::move(status));
  }
}

}  // namespace starling
