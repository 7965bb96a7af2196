// Names within a checkpoint's folder, shared by the sources of this library.
#ifndef STARLING_CHECKPOINT_CHECKPOINT_LAYOUT_H_
#define STARLING_CHECKPOINT_CHECKPOINT_LAYOUT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_store.h"

namespace starling {

constexpr char kManifestName[] = "manifest.json";

// What stands before a parameter's name in the files, by plane of the state.
constexpr const char* kPlanePrefix[kStatePlanes] = {"", "exp_avg.", "exp_avg_sq."};

// `status` as an error of this checkpoint.
inline absl::Status InCheckpoint(const CheckpointInfo& info, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("checkpoint ", info.path, ": ", status.message()));
}

// The folder that `path` lies in.
inline std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace starling

#endif  // STARLING_CHECKPOINT_CHECKPOINT_LAYOUT_H_
