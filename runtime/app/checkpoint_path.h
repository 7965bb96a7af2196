// Checkpoints as users name them: a run's directory, or one checkpoint's.
#ifndef STARLING_RUNTIME_APP_CHECKPOINT_PATH_H_
#define STARLING_RUNTIME_APP_CHECKPOINT_PATH_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/checkpoint_store.h"
#include "runtime/env/file_system.h"

namespace starling {

// All of a run's, the newest last, or the one that `path` is. Not found: neither.
absl::StatusOr<std::vector<CheckpointInfo>> FindCheckpoints(Disk& disk, std::string path);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_CHECKPOINT_PATH_H_
