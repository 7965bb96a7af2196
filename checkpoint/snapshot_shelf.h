// SnapshotShelf: the snapshots that a replica is giving away. A snapshot stays while it is being
// fetched, even when the replica itself has moved on: a joiner gets one consistent version, and the
// steps do not wait for it.
//
// Bounded: at most Options::snapshots (each is a whole copy of the stage's state); a new one takes
// the place of the one that was not asked for the longest. Those not asked for in Options::keep are
// let go. Sans-I/O, one thread; the time is passed in.
#ifndef STARLING_CHECKPOINT_SNAPSHOT_SHELF_H_
#define STARLING_CHECKPOINT_SNAPSHOT_SHELF_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "checkpoint/chunked_bytes.h"
#include "runtime/base/blob.h"
#include "runtime/base/ids.h"

namespace starling {

class SnapshotShelf {
 public:
  struct Options {
    size_t snapshots = 2;
    absl::Duration keep = absl::Seconds(30);  // since it was last asked for
    uint64_t chunk_bytes = kChunkBytes;       // the same at all donors of a run
  };

  explicit SnapshotShelf(Options options) : options_(options) {}

  // Replaces nothing: a second snapshot of the same version has the same bits.
  void Put(Era era, Version version, Blob snapshot, absl::Time now);

  // Notes that it was asked for. Null: not here. Valid until the next call of Put, Expire or Clear.
  ChunkedBytes* Find(Era era, Version version, absl::Time now);
  bool Holds(Era era, Version version) const { return shelf_.count({era, version}) != 0; }

  // Lets go of those not asked for recently. Call it now and then: with each heartbeat.
  void Expire(absl::Time now);
  void Clear() { shelf_.clear(); }

  size_t size() const { return shelf_.size(); }
  uint64_t held_bytes() const;

 private:
  struct Entry {
    ChunkedBytes bytes;
    absl::Time asked;
  };

  const Options options_;
  std::map<std::pair<Era, Version>, Entry> shelf_;
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_SNAPSHOT_SHELF_H_
