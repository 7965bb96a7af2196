#include "runtime/app/checkpoint_path.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {

absl::StatusOr<std::vector<CheckpointInfo>> FindCheckpoints(Disk& disk, std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (!disk.Exists(path)) return absl::NotFoundError(absl::StrCat(path, " does not exist"));
  if (disk.Exists(path + "/checkpoints")) {
    STARLING_ASSIGN_OR_RETURN(std::vector<CheckpointInfo> all,
                              CheckpointStore(path + "/checkpoints").List(disk));
    if (!all.empty()) return all;
    return absl::NotFoundError(absl::StrCat(path, " has no checkpoint yet"));
  }
  // A checkpoint's own folder stands among its siblings.
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash);
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> siblings,
                            CheckpointStore(folder).List(disk));
  for (const CheckpointInfo& info : siblings) {
    if (info.name == path.substr(slash + 1)) return std::vector<CheckpointInfo>{info};
  }
  return absl::NotFoundError(
      absl::StrCat(path, " is neither the directory of a run nor of a checkpoint"));
}

}  // namespace starling
