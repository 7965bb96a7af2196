// ResultLog: what the last decisions summed for a replica's stage, so that a newcomer with an older
// snapshot can catch up by replaying them, without anyone's pausing.
//
//   log.Put(era, record, round.gradient());   // when a decision was applied
//   absl::StatusOr<ChunkedBytes*> held = log.Find(era, version);
//
// The results form a chain without a gap: of one era, versions in a row, each one's `before` the
// previous one's `after`. What does not continue the chain begins it anew. Bounded in bytes and in
// number: the oldest go first. A result shares its bytes with the round's, which would be freed
// otherwise.
//
// Sans-I/O; one thread.
#ifndef STARLING_CHECKPOINT_RESULT_LOG_H_
#define STARLING_CHECKPOINT_RESULT_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/chunked_bytes.h"
#include "runtime/base/blob.h"
#include "runtime/base/ids.h"
#include "runtime/wire/messages.h"

namespace starling {

class ResultLog {
 public:
  struct Options {
    uint64_t bytes = uint64_t{256} << 20;  // 0: keeps nothing
    size_t results = 64;
    uint64_t chunk_bytes = kChunkBytes;  // the same at all donors of a run
  };

  explicit ResultLog(Options options) : options_(options) {}

  // The result that made `record.version`: its parts in a row, f32; none for a skip. A version that
  // is held already changes nothing.
  void Put(Era era, const ResultRecord& record, std::vector<Blob> pieces);

  // The result that made `version`. Valid until the next Put or Clear.
  //   aborted: no such result here (any more); failed precondition: not decided yet, ask again.
  absl::StatusOr<ChunkedBytes*> Find(Era era, Version version);

  void Clear();

  // Lets go of all but the newest ones.
  void KeepNewest(size_t count);

  // The versions that the results make; 0 if there is none.
  Version oldest() const;
  Version newest() const;
  size_t size() const { return results_.size(); }
  uint64_t held_bytes() const { return held_bytes_; }

 private:
  void DropOldest();
  const ResultRecord& Last() const { return *results_.back().result(); }
  bool Continues(Era era, const ResultRecord& record) const;

  const Options options_;
  Era era_{0};
  std::deque<ChunkedBytes> results_;  // versions in a row
  uint64_t held_bytes_ = 0;
};

// Whether `record` is what comes after `state`: the next version, from that hash, in which a skip
// changes nothing.
//   data loss: it is not, with what differs.
absl::Status CheckChain(const StateName& state, const ResultRecord& record);

}  // namespace starling

#endif  // STARLING_CHECKPOINT_RESULT_LOG_H_
