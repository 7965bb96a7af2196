// HuggingFaceFolder: a model in Hugging Face's layout, to be taken over.
//
//   STARLING_ASSIGN_OR_RETURN(const HuggingFaceFolder folder, HuggingFaceFolder::Open(disk, path));
//   folder.config().model                        what config.json says
//   folder.AppendState(layout, append)           version 0 of a stage
//
// Opening reads headers only, and finds that the tensors are those of config.json: each there once
// with its shape, no other. Nothing in a folder is ever run; pickled files are not read.
//
// Errors, one line that names the file: not found = a file is missing; data loss = damaged, or its
// tensors are not those of config.json; invalid argument = something that is not supported, which
// is named; what the disk says. Threads: any one at a time; calls block on the disk.
#ifndef STARLING_INTEROP_HUGGINGFACE_FOLDER_H_
#define STARLING_INTEROP_HUGGINGFACE_FOLDER_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "interop/huggingface_config.h"
#include "interop/tensor_files.h"
#include "interop/tensor_pieces.h"
#include "runtime/base/layout.h"
#include "runtime/env/file_system.h"

namespace starling {

// The keys of [model] as "model.width=128", for ParseRunFile.
std::vector<std::string> ModelOverrides(const ModelConfig& model);

class HuggingFaceFolder {
 public:
  static absl::StatusOr<HuggingFaceFolder> Open(Disk& disk, const std::string& folder);

  const HuggingFaceConfig& config() const { return config_; }
  // What is not taken over as it is, for the user.
  const std::vector<std::string>& notices() const { return config_.notices; }

  // The state of a stage of config().model, also where the run unties what is tied there, f32
  // [kStatePlanes * layout.size], in pieces: parameters as they are there, gaps and moments zero.
  // Memory: one matrix, of those that are transposed.
  absl::Status AppendState(const StageLayout& layout, const AppendBytes& append) const;

 private:
  // Where one of our parameters comes from.
  struct Origin {
    std::string tensor;  // its name there
    bool transposed = false;
    std::vector<int64_t> tensor_shape;
    int64_t first_row = 0;
  };

  explicit HuggingFaceFolder(std::string path) : path_(std::move(path)) {}
  absl::Status ReadConfig(Disk& disk);
  absl::Status OpenFiles(Disk& disk);
  absl::Status OpenIndexed(Disk& disk, const std::string& index);
  absl::Status FindTensors();
  absl::StatusOr<std::string> FindTensor(const HuggingFaceTensor& wanted) const;
  absl::Status FindTiedHead();
  absl::Status CheckHeadIsEmbedding(const std::string& head, const std::string& embedding) const;
  absl::Status CheckNoOthers() const;
  absl::Status AppendParameter(const TensorSpec& spec, const AppendBytes& append) const;

  std::string path_;
  HuggingFaceConfig config_;
  TensorFiles files_;
  std::map<std::string, Origin> origins_;  // by our names
};

}  // namespace starling

#endif  // STARLING_INTEROP_HUGGINGFACE_FOLDER_H_
