// The manifest of a checkpoint: what state it is, what made it, and the hashes of its files.
//
// Printed as JSON with a checksum of its own, and read strictly: a manifest that is not byte for
// byte what PrintManifest would print is refused, so no flipped bit goes unseen.
#ifndef STARLING_CHECKPOINT_MANIFEST_H_
#define STARLING_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"

namespace starling {

constexpr uint32_t kCheckpointFormat = 2;  // grows when older builds could not read the result

// What is saved beside the tensors.
struct CheckpointMeta {
  RunId run{0};
  Era era{0};
  Version version{0};       // the step that made it; 0 = as initialized
  uint64_t updates = 0;     // optimizer updates applied: version less the steps skipped
  uint64_t sequences = 0;   // of training data consumed (runtime/data/data_feed.h)
  std::string text_sha256;  // of the text (runtime/data/text.h)
  std::string config_toml;  // the run file, resolved
};

struct ManifestParameter {
  std::string name;
  std::vector<int64_t> shape;
};

struct ManifestFile {
  std::string name;  // within the checkpoint's folder
  uint64_t bytes = 0;
  Hash128 hash;  // of all of them
};

struct Manifest {
  CheckpointMeta meta;
  std::vector<ManifestParameter> parameters;  // in the order of their names
  std::vector<ManifestFile> files;            // without the manifest itself
};

std::string PrintManifest(const Manifest& manifest);

// Errors, one line: data loss = altered or not a manifest; failed precondition = of another format
// version, which is named.
absl::StatusOr<Manifest> ParseManifest(const std::string& text);

}  // namespace starling

#endif  // STARLING_CHECKPOINT_MANIFEST_H_
