// ShardSaver: writes a replica's part of a checkpoint onto a file system that the trainer sees too
// (checkpoint.store = "shared"; docs/checkpoint_format.md).
//
// The trainer first has a snapshot held, so that steps go on, then says where it is to be written,
// and publishes what all stages' replicas have written. One snapshot is held: that of the newest
// save heard of, until it is written or let go, or nothing more is heard of it. What is written is
// checked against the hash that the state is known by.
//
// Reactor thread; files are written by jobs of Files. StateDonor, Files and PeerLinks outlive it.
#ifndef STARLING_RUNTIME_PEER_SHARD_SAVER_H_
#define STARLING_RUNTIME_PEER_SHARD_SAVER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "checkpoint/shard.h"
#include "runtime/base/blob.h"
#include "runtime/base/layout.h"
#include "runtime/env/env.h"
#include "runtime/env/file_system.h"
#include "runtime/peer/peer_links.h"
#include "runtime/peer/state_donor.h"

namespace starling {

class ShardSaver {
 public:
  // `files` may be null: then it writes nothing, and says so.
  ShardSaver(StageId stage, StageLayout layout, Env* env, Files* files, StateDonor* donor,
             PeerLinks* links);
  ShardSaver(const ShardSaver&) = delete;
  ShardSaver& operator=(const ShardSaver&) = delete;

  void OnSaveShard(const SaveShard& order, uint64_t request);
  // Lets go of a snapshot that nothing is heard of any more; call it now and then.
  void Tidy();

 private:
  struct Save {
    uint64_t number = 0;
    StateName state;
    std::optional<Blob> snapshot;
    bool writing = false;
    uint64_t hold_request = 0;  // the newest of each kind
    uint64_t write_request = 0;
    std::optional<ShardSaved> held;  // the answers
    std::optional<ShardSaved> written;
    absl::Time heard;
  };

  void Hold(const SaveShard& order, uint64_t request);
  void OnSnapshot(uint64_t number, absl::StatusOr<Blob> snapshot);
  void Write(const SaveShard& order, uint64_t request);
  void OnWritten(uint64_t number, const absl::Status& status, const Shard& shard);
  void Answer(uint64_t request, const ShardSaved& answer);

  const StageId stage_;
  const StageLayout layout_;
  Env* const env_;
  Files* const files_;
  StateDonor* const donor_;
  PeerLinks* const links_;
  std::optional<Save> save_;
  // Completions may come after this is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_SHARD_SAVER_H_
