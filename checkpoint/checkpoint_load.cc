#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

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

constexpr size_t kPieceBytes = size_t{256} << 10;  // hashed while in cache

// The tensors of a checkpoint by name. First every tensor that is wanted is found; then each file
// that holds some is read once, from end to end: each piece to where it belongs, and hashed there.
class OpenCheckpoint {
 public:
  OpenCheckpoint(Disk& disk, CheckpointInfo info) : disk_(disk), info_(std::move(info)) {}

  absl::Status Open() {
    STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk_, info_));
    for (const ManifestFile& listed : manifest.files) {
      absl::StatusOr<std::unique_ptr<ReadableFile>> file =
          disk_.OpenToRead(info_.path + "/" + listed.name);
      if (!file.ok()) return InCheckpoint(info_, file.status());
      absl::StatusOr<SafetensorsLayout> layout = ReadSafetensorsLayout(**file, listed.name);
      if (!layout.ok()) return InCheckpoint(info_, layout.status());
      for (TensorEntry& entry : layout->tensors) {
        const std::string name = entry.name;
        tensors_[name] = {files_.size(), std::move(entry)};
      }
      files_.push_back({*std::move(file), layout->data_begin, listed, {}});
    }
    return absl::OkStatus();
  }

  // A plane of the tensor `spec` is to be copied to `to`.
  absl::Status Want(const TensorSpec& spec, int64_t plane, float* to) {
    const std::string name = kPlanePrefix[plane] + spec.name;
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return Misfit(OtherShape(info_, absl::StrCat("it has no ", name)));
    }
    const TensorEntry& entry = found->second.entry;
    if (entry.shape != spec.shape) return Misfit(OtherShape(info_, spec, entry.shape));
    if (entry.type != TensorType::kF32) {
      return Misfit(absl::InvalidArgumentError(absl::StrCat(
          "checkpoint ", info_.path, ": ", name, " is ", ToString(entry.type), ", not F32")));
    }
    File& file = files_[found->second.file];
    const uint64_t begin = file.data_begin + entry.begin;
    file.wanted[begin] = {begin + (entry.end - entry.begin), reinterpret_cast<std::byte*>(to)};
    return absl::OkStatus();
  }

  absl::Status Copy() {
    for (const File& file : files_) {
      if (!file.wanted.empty()) STARLING_RETURN_IF_ERROR(ReadFile(file, file.wanted));
    }
    return absl::OkStatus();
  }

 private:
  struct Wanted {
    uint64_t end = 0;  // bytes of the file
    std::byte* to = nullptr;
  };
  using WantedMap = std::map<uint64_t, Wanted>;  // by where it begins
  struct File {
    std::unique_ptr<ReadableFile> content;
    uint64_t data_begin = 0;
    ManifestFile listed;
    WantedMap wanted;
  };
  struct Place {
    size_t file = 0;
    TensorEntry entry;
  };

  absl::Status ReadFile(const File& file, const WantedMap& wanted) const {
    const uint64_t size = file.content->size_bytes();
    std::vector<std::byte> unwanted(kPieceBytes);
    Hasher128 hash;
    auto next = wanted.begin();
    for (uint64_t at = 0; at < size && size == file.listed.bytes;) {
      if (next != wanted.end() && at == next->second.end) ++next;
      const bool inside = next != wanted.end() && at >= next->first;
      const uint64_t border =
          next == wanted.end() ? size : (inside ? next->second.end : next->first);
      const auto piece = static_cast<size_t>(std::min<uint64_t>(border - at, kPieceBytes));
      std::byte* const to = inside ? next->second.to + (at - next->first) : unwanted.data();
      if (absl::Status status = file.content->Read(at, to, piece); !status.ok()) {
        return InCheckpoint(info_, status);
      }
      hash.Update(to, piece);
      at += piece;
    }
    if (size == file.listed.bytes && hash.Finish() == file.listed.hash) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("checkpoint ", info_.path, " is damaged: ", file.listed.name,
                     " is not what the manifest says; move it away to use an older one"));
  }

  // The cause of `status` may be damage to the names and shapes in a file: that comes first.
  absl::Status Misfit(absl::Status status) const {
    for (const File& file : files_) {
      STARLING_RETURN_IF_ERROR(ReadFile(file, {}));
    }
    return status;
  }

  Disk& disk_;
  const CheckpointInfo info_;
  std::vector<File> files_;
  std::map<std::string, Place> tensors_;
};

// The gaps of a run that is otherwise written in full.
void ZeroGaps(const StageLayout& layout, float* plane) {
  int64_t end = 0;
  for (const TensorSpec& spec : layout.tensors) {
    std::fill(plane + end, plane + spec.offset, 0.0f);
    end = spec.offset + spec.count;
  }
  std::fill(plane + end, plane + layout.size, 0.0f);
}

}  // namespace

absl::StatusOr<Manifest> LoadManifest(Disk& disk, const CheckpointInfo& info) {
  const std::string path = info.path + "/" + kManifestName;
  const absl::StatusOr<uint64_t> bytes = disk.FileSize(path);
  if (!bytes.ok()) return InCheckpoint(info, bytes.status());
  if (*bytes > kMaxManifestBytes) {
    return InCheckpoint(info, absl::DataLossError(absl::StrCat(
                                  kManifestName, " is too large: ", *bytes, " bytes")));
  }
  const absl::StatusOr<std::string> text = disk.Read(path);
  if (!text.ok()) return InCheckpoint(info, text.status());
  absl::StatusOr<Manifest> manifest = ParseManifest(*text);
  if (!manifest.ok()) {
    return InCheckpoint(
        info, absl::Status(manifest.status().code(),
                           absl::StrCat(kManifestName, ": ", manifest.status().message())));
  }
  if (manifest->meta.version != info.version) {
    return InCheckpoint(info, absl::DataLossError(absl::StrCat(kManifestName, " is of step ",
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
      if (!spec.stored) continue;  // another layout has it too
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
  MutableBlob state = MutableBlob::Uninitialized(DType::kF32, {kStatePlanes * layout.size});
  for (int64_t plane = 0; plane < kStatePlanes; ++plane) {
    float* const to = state.As<float>().data() + plane * layout.size;
    ZeroGaps(layout, to);
    for (const TensorSpec& spec : layout.tensors) {
      STARLING_RETURN_IF_ERROR(checkpoint.Want(spec, plane, to + spec.offset));
    }
  }
  STARLING_RETURN_IF_ERROR(checkpoint.Copy());
  return std::move(state).Freeze();
}

}  // namespace starling
