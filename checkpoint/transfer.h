// Moving a stage's state between processes: a donor answers Fetch with Chunks of a snapshot, a
// fetcher asks for them and puts them together. Joiners and the checkpoint writer use the same
// code.
//
// Sans-I/O; reactor thread. A snapshot is f32 [kStatePlanes * size] (runtime/base/layout.h), sent
// as bytes. Later: several donors at once and hash-checked chunks.
#ifndef STARLING_CHECKPOINT_TRANSFER_H_
#define STARLING_CHECKPOINT_TRANSFER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/wire/messages.h"

namespace starling {

constexpr uint64_t kChunkBytes = 1 << 20;
constexpr int kChunksInFlight = 4;

// The bytes that `fetch` asks for, out of a snapshot. invalid argument: outside of it.
Chunk CutChunk(const Fetch& fetch, const Blob& snapshot);

// One download. Create, call Start, keep until `done` was called; destroy it to give up.
class StateFetcher {
 public:
  // Sends a Fetch to the donor; the answer is passed to `reply`.
  using Ask = std::function<void(Fetch, std::function<void(const Chunk&)> reply)>;

  struct Want {
    StageId stage{0};
    Era era{0};
    Version version{0};
    int64_t elements = 0;  // kStatePlanes * layout size: anything else is refused
  };

  // `done` is called once: with the snapshot, or
  //   aborted: the donor does not have this state; failed precondition: not yet, ask again;
  //   data loss: it sent something else than was asked for.
  StateFetcher(Want want, Endpoint reply_address, Ask ask,
               std::function<void(absl::StatusOr<Blob>)> done);
  StateFetcher(const StateFetcher&) = delete;
  StateFetcher& operator=(const StateFetcher&) = delete;

  void Start();
  uint64_t received_bytes() const { return received_bytes_; }

 private:
  uint64_t total_bytes() const { return static_cast<uint64_t>(want_.elements) * sizeof(float); }
  void AskNext();
  void OnChunk(uint64_t offset_bytes, uint64_t length_bytes, const Chunk& chunk);
  void Finish(absl::Status status);

  const Want want_;
  const Endpoint reply_address_;
  const Ask ask_;
  std::function<void(absl::StatusOr<Blob>)> done_;  // empty once called
  MutableBlob buffer_;
  uint64_t asked_bytes_ = 0;
  uint64_t received_bytes_ = 0;
  // Replies may come after this fetcher is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_TRANSFER_H_
