// The files of one stage's state within a checkpoint: a shard.
//
// A shard is written as a stream, by whoever holds the state: the trainer, for what its replicas
// send it, or each replica itself where all see one file system (checkpoint_store.h says how shards
// become a checkpoint). Memory is a header's worth, however large the state.
//
//   STARLING_ASSIGN_OR_RETURN(auto writer, ShardWriter::Create(disk, folder, index, layout));
//   for (...) STARLING_RETURN_IF_ERROR(writer->Append(data, size));
//   STARLING_ASSIGN_OR_RETURN(Shard shard, writer->Finish());
//
// Threads: any one at a time; every call blocks on the disk. Errors: invalid argument = other bytes
// than the layout's; or what the disk says (resource exhausted: full; not found: the folder has
// gone, which means that the save was given up).
#ifndef STARLING_CHECKPOINT_SHARD_H_
#define STARLING_CHECKPOINT_SHARD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"
#include "runtime/base/blob.h"
#include "runtime/base/layout.h"
#include "runtime/env/file_system.h"

namespace starling {

// The state of some tensors of the model: usually a stage's, at a decision.
struct StagePart {
  StageLayout layout;
  Blob state;  // f32 [kStatePlanes * layout.size]: parameters, first moments, second moments
};

// What a manifest says of a shard.
struct Shard {
  std::vector<ManifestFile> files;
  std::vector<ManifestParameter> parameters;
};

// What a shard of this layout has: all but those that another stage's has.
std::vector<ManifestParameter> ParametersOf(const StageLayout& layout);

// The files of shard `index`, in the order in which they are written.
std::vector<std::string> ShardFileNames(uint32_t index);

class ShardWriter {
 public:
  // Begins shard `index` in `folder`, which exists. `writer` is empty if nobody else may be writing
  // the same shard; otherwise it names this attempt: files are then written under a hidden name of
  // its own and renamed when they are whole, so that the last one wins (all hold the same bytes).
  static absl::StatusOr<std::unique_ptr<ShardWriter>> Create(Disk& disk, std::string folder,
                                                             uint32_t index, StageLayout layout,
                                                             const std::string& writer = "");

  // The next bytes of f32 [kStatePlanes * layout.size], however they are cut; the gaps of the
  // layout are dropped, and the tensors that another stage stores.
  absl::Status Append(const void* data, size_t size);

  // Every byte must have come. Afterwards everything is synced, the folder too.
  absl::StatusOr<Shard> Finish();

 private:
  // A run of bytes of the state that goes into a file: a plane of a tensor.
  struct Piece {
    uint64_t begin = 0;
    uint64_t end = 0;
    bool opens_file = false;
  };

  ShardWriter(Disk* disk, std::string folder, uint32_t index, StageLayout layout,
              std::string writer);
  absl::Status OpenNextFile();
  absl::Status CloseFile();
  std::string TemporaryPath(const std::string& name) const;

  Disk* const disk_;
  const std::string folder_;
  const uint32_t index_;
  const StageLayout layout_;
  const std::string writer_;
  std::vector<Piece> pieces_;  // in order
  size_t next_piece_ = 0;
  uint64_t position_ = 0;  // bytes of the state that have come
  int files_ = 0;          // opened so far
  std::string name_;       // of the open one
  std::unique_ptr<SafetensorsWriter> file_;
  Shard shard_;
};

// The whole part at once.
absl::StatusOr<Shard> WriteShard(Disk& disk, const std::string& folder, uint32_t index,
                                 const StagePart& part, const std::string& writer = "");

}  // namespace starling

#endif  // STARLING_CHECKPOINT_SHARD_H_
