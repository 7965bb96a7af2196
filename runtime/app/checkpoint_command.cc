#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/checkpoint_store.h"
#include "runtime/app/checkpoint_path.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/posix_disk.h"

namespace starling {

absl::Status ListCheckpoints(const std::string& run_directory) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                            FindCheckpoints(disk, run_directory));
  for (const CheckpointInfo& info : checkpoints) {
    const absl::StatusOr<Manifest> manifest = LoadManifest(disk, info);
    if (!manifest.ok()) {
      PrintLine(absl::StrCat(info.name, "  ", manifest.status().message()));
      continue;
    }
    uint64_t bytes = 0;
    for (const ManifestFile& file : manifest->files) bytes += file.bytes;
    PrintLine(absl::StrFormat("%s  step %6d  era %d  %10s  %d tensors' parameters  %s", info.name,
                              Value(info.version), Value(manifest->meta.era),
                              FormatBytes(static_cast<int64_t>(bytes)), manifest->parameters.size(),
                              info.path));
  }
  return absl::OkStatus();
}

absl::Status VerifyCheckpoints(const std::string& path) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                            FindCheckpoints(disk, path));
  std::vector<std::string> damaged;
  for (const CheckpointInfo& info : checkpoints) {
    const absl::StatusOr<VerifyReport> report = Verify(disk, info);
    if (report.ok() && report->ok()) {
      PrintLine(absl::StrCat(info.path, ": ok, ", report->tensors, " tensors in ", report->files,
                             " files, ", FormatBytes(static_cast<int64_t>(report->bytes))));
      continue;
    }
    damaged.push_back(info.name);
    if (!report.ok()) PrintLine(std::string(report.status().message()));
    if (!report.ok()) continue;
    for (const std::string& problem : report->problems) {
      PrintLine(absl::StrCat(info.path, ": ", problem));
    }
  }
  if (damaged.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(damaged.size(), " of ", checkpoints.size(),
                                          " checkpoints damaged, the first is ", damaged[0],
                                          "; resume takes the newest that is whole"));
}

}  // namespace starling
