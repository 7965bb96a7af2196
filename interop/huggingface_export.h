// The tensors of a model as Hugging Face has them: model.safetensors, or several files and an
// index.
#ifndef STARLING_INTEROP_HUGGINGFACE_EXPORT_H_
#define STARLING_INTEROP_HUGGINGFACE_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "interop/huggingface_layout.h"
#include "interop/tensor_files.h"
#include "runtime/env/file_system.h"

namespace starling {

struct HuggingFaceWritten {
  std::vector<std::string> files;  // names in the folder, the index among them
  uint64_t tensors = 0;
  uint64_t bytes = 0;  // of tensors
};

// Writes the parameters that `source` has under our names, into `folder`, which exists. A file has
// at most `max_shard_bytes` of tensors, or one tensor. Files are synced, the folder is not. Memory:
// one matrix, of those that are transposed.
//   errors: as TensorFiles::Read, and what the disk says.
absl::StatusOr<HuggingFaceWritten> WriteHuggingFaceTensors(Disk& disk, const std::string& folder,
                                                           const ModelConfig& model,
                                                           HuggingFaceKind kind,
                                                           const TensorFiles& source,
                                                           uint64_t max_shard_bytes);

}  // namespace starling

#endif  // STARLING_INTEROP_HUGGINGFACE_EXPORT_H_
