// CheckpointStore: the checkpoints of a run, in RUN/checkpoints.
//
// A checkpoint is a folder step-NNNNNNNN with a manifest and safetensors files whose tensors are
// named by parameter (docs/checkpoint_format.md). It appears whole, by one rename after everything
// in it is synced, and disappears whole (invariant I7). Folders that begin with "tmp-" are torn
// saves or removals: never listed, cleared away by the next Save.
//
// Threads: any one at a time per folder; every call blocks on the disk. One process writes (the
// run's trainer); others may read.
//
// Errors are one line that names the checkpoint. not found = no such checkpoint or file;
// data loss = damaged; resource exhausted = disk full; failed precondition = another format
// version; invalid argument = does not fit what was asked for (another model shape, a wrong Blob).
#ifndef STARLING_CHECKPOINT_CHECKPOINT_STORE_H_
#define STARLING_CHECKPOINT_CHECKPOINT_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/manifest.h"
#include "runtime/base/blob.h"
#include "runtime/base/layout.h"
#include "runtime/env/file_system.h"

namespace starling {

struct CheckpointInfo {
  std::string name;  // "step-00000050"
  std::string path;  // of its folder
  Version version{0};
};

// The state of some tensors of the model: usually a stage's, at a decision.
struct StagePart {
  StageLayout layout;
  Blob state;  // f32 [kStatePlanes * layout.size]: parameters, first moments, second moments
};

struct VerifyReport {
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint64_t tensors = 0;
  std::vector<std::string> problems;  // one line each; empty: the checkpoint is sound

  bool ok() const { return problems.empty(); }
};

std::string CheckpointName(Version version);  // "step-00000050"

class CheckpointStore {
 public:
  explicit CheckpointStore(std::string folder) : folder_(std::move(folder)) {}

  // Published checkpoints in the order of their versions, the newest last; none if the folder does
  // not exist. Their content is not looked at.
  absl::StatusOr<std::vector<CheckpointInfo>> List(Disk& disk) const;

  // The newest, or not found.
  absl::StatusOr<CheckpointInfo> Newest(Disk& disk) const;

  // Writes the parts, which together are the whole model, and publishes them as version
  // `meta.version`. A published checkpoint of the same (run, era, version) is left as it is, one of
  // another era replaced. On any error what was there stays and nothing new is listed; the one
  // exception is a failure to sync the folder after the rename, when the checkpoint is there and
  // may not survive a crash of the machine.
  absl::Status Save(Disk& disk, const CheckpointMeta& meta, const std::vector<StagePart>& parts);

  // Removes all but the newest `keep`, which is at least 1.
  absl::Status Prune(Disk& disk, uint64_t keep);

 private:
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  absl::Status ClearLeftovers(Disk& disk);
  absl::Status Publish(Disk& disk, const std::string& temporary, const std::string& name);

  const std::string folder_;
};

absl::StatusOr<Manifest> LoadManifest(Disk& disk, const CheckpointInfo& info);

// Whether the checkpoint holds exactly the tensors of `layouts`, which together are the whole
// model.
absl::Status CheckModelShape(const CheckpointInfo& info, const Manifest& manifest,
                             const std::vector<StageLayout>& layouts);

// The state of the tensors of `layout`, however the checkpoint was cut: f32
// [kStatePlanes * layout.size], gaps zero. The files it reads are checked against their hashes.
absl::StatusOr<Blob> LoadStage(Disk& disk, const CheckpointInfo& info, const StageLayout& layout);

// Reads everything: sizes, hashes, every tensor present, readable and finite. A problem with the
// content is in the report; an error is returned only if the manifest itself cannot be read.
absl::StatusOr<VerifyReport> Verify(Disk& disk, const CheckpointInfo& info);

}  // namespace starling

#endif  // STARLING_CHECKPOINT_CHECKPOINT_STORE_H_
