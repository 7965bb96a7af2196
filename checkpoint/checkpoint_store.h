// CheckpointStore: the checkpoints of a run, in RUN/checkpoints.
//
// A checkpoint is a folder step-NNNNNNNN with a manifest and safetensors files whose tensors are
// named by parameter (docs/checkpoint_format.md). It appears whole, by one rename after everything
// in it is synced, and disappears whole (invariant I7): whatever moment a process is killed or a
// machine loses power, the checkpoint that was there or the new one is there, complete. Folders
// that begin with "tmp-" are torn saves or removals: never listed, cleared away by the next save.
//
// A save in one go is Save. In parts, so that nobody holds the whole model:
//
//   STARLING_ASSIGN_OR_RETURN(Staging staging, store.Begin(disk, meta, "1"));
//   ... WriteShard(disk, staging.path, stage, part)     for each stage, anywhere, in any order
//   STARLING_RETURN_IF_ERROR(store.Publish(disk, staging, shards));   // or Abandon
//
// Threads: any one at a time per folder; every call blocks on the disk. One process begins,
// publishes and removes (the run's trainer); others may write shards, and read.
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
#include "checkpoint/shard.h"
#include "runtime/base/blob.h"
#include "runtime/base/layout.h"
#include "runtime/env/file_system.h"

namespace starling {

struct CheckpointInfo {
  std::string name;  // "step-00000050"
  std::string path;  // of its folder
  Version version{0};
  Era era{0};           // as its manifest has it
  std::string problem;  // why its manifest cannot be used; empty: it can
};

// A save under way.
struct Staging {
  CheckpointMeta meta;
  std::string path;                // of the folder that shards are written to
  bool already_published = false;  // the same (run, era, version): there is nothing to do
};

struct VerifyReport {
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint64_t tensors = 0;
  std::vector<std::string> problems;  // one line each; empty: the checkpoint is sound
  // Files that the manifest does not list, hidden ones left out. They do no harm: nothing reads
  // them.
  std::vector<std::string> strangers;

  bool ok() const { return problems.empty(); }
};

std::string CheckpointName(Version version);  // "step-00000050"

// Whether a path can be Staging::path: replicas write nowhere else.
bool IsStagingPath(const std::string& path);

class CheckpointStore {
 public:
  explicit CheckpointStore(std::string folder) : folder_(std::move(folder)) {}

  // Published checkpoints, the newest last; none if the folder does not exist. The order is that of
  // (era, version): what a later era saved is newer, however low its version. Of their content only
  // the manifests are read; one that cannot be used counts to the latest era there is.
  absl::StatusOr<std::vector<CheckpointInfo>> List(Disk& disk) const;

  // The newest, or not found.
  absl::StatusOr<CheckpointInfo> Newest(Disk& disk) const;

  // Where a version stands, or will stand. Says nothing of whether it does.
  CheckpointInfo At(Era era, Version version) const;

  // --- saving ---------------------------------------------------------------------------

  // Writes the parts, which together are the whole model, and publishes them as version
  // `meta.version`. A published checkpoint of the same (run, era, version) is left as it is, one of
  // another era replaced. On any error what was there stays and nothing new is listed; the one
  // exception is a failure to sync the folder after the rename, when the checkpoint is there and
  // may not survive a crash of the machine.
  absl::Status Save(Disk& disk, const CheckpointMeta& meta, const std::vector<StagePart>& parts);

  // Clears leftovers and makes the folder for the shards. `attempt`, plain letters and digits, must
  // be another one at each call for this version while earlier writers may still be at work;
  // leftovers that they keep from being removed stay for the next save.
  absl::StatusOr<Staging> Begin(Disk& disk, const CheckpointMeta& meta,
                                const std::string& attempt = "");

  // Makes a checkpoint of the shards, which together are the whole model (invalid argument: a
  // tensor twice). data loss: a shard's file is not there in its size, as where the trainer and
  // the writer see different file systems. On error: as Save; the staging folder is removed.
  absl::Status Publish(Disk& disk, const Staging& staging, const std::vector<Shard>& shards);

  // Gives a save up. What cannot be removed is cleared by the next one.
  void Abandon(Disk& disk, const Staging& staging);

  // --- removing -------------------------------------------------------------------------

  // What Prune would remove: all but the newest `keep`, which is at least 1, and the versions above
  // 0 that are multiples of `keep_every` (0: none). Only complete checkpoints count, and incomplete
  // ones are left for the user.
  absl::StatusOr<std::vector<CheckpointInfo>> Doomed(Disk& disk, uint64_t keep,
                                                     uint64_t keep_every) const;
  absl::Status Prune(Disk& disk, uint64_t keep, uint64_t keep_every = 0);

  // Removes torn saves and removals.
  absl::Status ClearLeftovers(Disk& disk);

  // Names of torn saves and removals, and of what a crash has left under another name.
  absl::StatusOr<std::vector<std::string>> Leftovers(Disk& disk) const;

 private:
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  absl::Status SyncWhereItStands(Disk& disk) const;
  absl::Status TakeTheName(Disk& disk, const std::string& temporary, const std::string& name);
  absl::Status Remove(Disk& disk, const CheckpointInfo& info);

  const std::string folder_;
};

// --- reading ----------------------------------------------------------------------------

constexpr uint64_t kMaxManifestBytes = 64 << 20;

absl::StatusOr<Manifest> LoadManifest(Disk& disk, const CheckpointInfo& info);

// Whether these files are in `folder`, each in its size. Data loss: not.
absl::Status CheckFiles(Disk& disk, const std::string& folder,
                        const std::vector<ManifestFile>& files);

// Whether every file is there in its size. Reads no content but the manifest's. Data loss: not.
absl::Status CheckComplete(Disk& disk, const CheckpointInfo& info);

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
