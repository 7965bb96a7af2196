#include <cstring>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint_layout.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/safetensors.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

absl::Status OtherShape(const CheckpointInfo& info, const std::string& how) {
  return absl::InvalidArgumentError(
      absl::StrCat("checkpoint ", info.path, " is of another model shape: ", how));
}

absl::Status OtherShape(const CheckpointInfo& info, const TensorSpec& spec,
                        const std::vector<int64_t>& there) {
  return OtherShape(info, absl::StrCat(spec.name, " is ", ShapeText(there), " there and ",
                                       ShapeText(spec.shape), " here"));
}

// The tensors of a checkpoint by name. Files are hashed when a tensor of theirs is first used.
class OpenCheckpoint {
 public:
  OpenCheckpoint(Disk& disk, CheckpointInfo info) : disk_(disk), info_(std::move(info)) {}

  absl::Status Open() {
    STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk_, info_));
    for (const ManifestFile& listed : manifest.files) {
      absl::StatusOr<SafetensorsFile> file =
          SafetensorsFile::Open(disk_, info_.path + "/" + listed.name);
      if (!file.ok()) return InCheckpoint(info_, file.status());
      for (const TensorEntry& entry : file->tensors()) {
        tensors_[entry.name] = {files_.size(), entry};
      }
      files_.push_back({*std::move(file), listed, false});
    }
    return absl::OkStatus();
  }

  // Copies a plane of the tensor `spec` to `to`.
  absl::Status Copy(const TensorSpec& spec, int64_t plane, float* to) {
    const std::string name = kPlanePrefix[plane] + spec.name;
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return OtherShape(info_, absl::StrCat("it has no ", name));
    const TensorEntry& entry = found->second.entry;
    if (entry.shape != spec.shape) return OtherShape(info_, spec, entry.shape);
    if (entry.dtype != DType::kF32) {
      return absl::InvalidArgumentError(absl::StrCat("checkpoint ", info_.path, ": ", name, " is ",
                                                     ToString(entry.dtype), ", not f32"));
    }
    STARLING_RETURN_IF_ERROR(CheckHash(found->second.file));
    const Blob tensor = files_[found->second.file].content.Tensor(entry);
    if (!tensor.empty()) std::memcpy(to, tensor.data(), tensor.size_bytes());
    return absl::OkStatus();
  }

 private:
  struct File {
    SafetensorsFile content;
    ManifestFile listed;
    bool hash_checked = false;
  };
  struct Place {
    size_t file = 0;
    TensorEntry entry;
  };

  absl::Status CheckHash(size_t index) {
    File& file = files_[index];
    if (file.hash_checked) return absl::OkStatus();
    const Blob& bytes = file.content.bytes();
    if (bytes.size_bytes() != file.listed.bytes ||
        Sha256Hex(bytes.data(), bytes.size_bytes()) != file.listed.sha256) {
      return absl::DataLossError(
          absl::StrCat("checkpoint ", info_.path, " is damaged: ", file.listed.name,
                       " is not what the manifest says; move it away to use an older one"));
    }
    file.hash_checked = true;
    return absl::OkStatus();
  }

  Disk& disk_;
  const CheckpointInfo info_;
  std::vector<File> files_;
  std::map<std::string, Place> tensors_;
};

}  // namespace

absl::StatusOr<Manifest> LoadManifest(Disk& disk, const CheckpointInfo& info) {
  const absl::StatusOr<std::string> text = disk.Read(info.path + "/" + kManifestName);
  if (!text.ok()) return InCheckpoint(info, text.status());
  absl::StatusOr<Manifest> manifest = ParseManifest(*text);
  if (!manifest.ok()) return InCheckpoint(info, manifest.status());
  if (manifest->meta.version != info.version) {
    return InCheckpoint(info, absl::DataLossError(absl::StrCat("its manifest is of step ",
                                                               Value(manifest->meta.version))));
  }
  return manifest;
}

absl::Status CheckModelShape(const CheckpointInfo& info, const Manifest& manifest,
                             const std::vector<StageLayout>& layouts) {
  std::map<std::string, std::vector<int64_t>> there;
  for (const ManifestParameter& parameter : manifest.parameters) {
    there[parameter.name] = parameter.shape;
  }
  for (const StageLayout& layout : layouts) {
    for (const TensorSpec& spec : layout.tensors) {
      const auto found = there.find(spec.name);
      if (found == there.end()) {
        return OtherShape(info, absl::StrCat("it has no ", spec.name));
      }
      if (found->second != spec.shape) return OtherShape(info, spec, found->second);
      there.erase(found);
    }
  }
  if (there.empty()) return absl::OkStatus();
  return OtherShape(info, absl::StrCat(there.begin()->first, " has no place here"));
}

absl::StatusOr<Blob> LoadStage(Disk& disk, const CheckpointInfo& info, const StageLayout& layout) {
  OpenCheckpoint checkpoint(disk, info);
  STARLING_RETURN_IF_ERROR(checkpoint.Open());
  MutableBlob state = MutableBlob::Zeros(DType::kF32, {kStatePlanes * layout.size});
  float* const to = state.As<float>().data();
  for (int64_t plane = 0; plane < kStatePlanes; ++plane) {
    for (const TensorSpec& spec : layout.tensors) {
      STARLING_RETURN_IF_ERROR(
          checkpoint.Copy(spec, plane, to + plane * layout.size + spec.offset));
    }
  }
  return std::move(state).Freeze();
}

}  // namespace starling
