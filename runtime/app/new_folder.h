// A folder that a command makes: it appears whole, or not at all.
#ifndef STARLING_RUNTIME_APP_NEW_FOLDER_H_
#define STARLING_RUNTIME_APP_NEW_FOLDER_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "runtime/env/file_system.h"

namespace starling {

std::string WithoutSlashes(std::string path);  // at its end

// Already exists: `path` or the folder it would be made in ("PATH.tmp") is there.
absl::Status CheckNewFolder(Disk& disk, const std::string& path);

// Has `fill` make and fill a temporary folder, whose files it syncs; then renames it to `path`. On
// any error nothing is left. Already exists: as CheckNewFolder.
absl::Status MakeNewFolder(Disk& disk, const std::string& path,
                           const std::function<absl::Status(const std::string& folder)>& fill);

// A file of `bytes`, synced.
absl::Status WriteNewFile(Disk& disk, const std::string& path, const std::string& bytes);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_NEW_FOLDER_H_
