#include "checkpoint/shard.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/checkpoint_layout.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

struct FileKind {
  const char* name;
  int64_t begin;  // planes
  int64_t end;
};
constexpr FileKind kFiles[] = {{"parameters", 0, 1}, {"optimizer", 1, kStatePlanes}};

std::string FileName(const FileKind& kind, uint32_t index) {
  return absl::StrFormat("%s-%05d.safetensors", kind.name, index);
}

}  // namespace

std::vector<ManifestParameter> ParametersOf(const StageLayout& layout) {
  std::vector<ManifestParameter> parameters;
  for (const TensorSpec& spec : layout.tensors) {
    if (spec.stored) parameters.push_back({spec.name, spec.shape});
  }
  return parameters;
}

std::vector<std::string> ShardFileNames(uint32_t index) {
  std::vector<std::string> names;
  for (const FileKind& kind : kFiles) names.push_back(FileName(kind, index));
  return names;
}

ShardWriter::ShardWriter(Disk* disk, std::string folder, uint32_t index, StageLayout layout,
                         std::string writer)
    : disk_(disk),
      folder_(std::move(folder)),
      index_(index),
      layout_(std::move(layout)),
      writer_(std::move(writer)) {
  for (const FileKind& kind : kFiles) {
    bool opens_file = true;
    for (int64_t plane = kind.begin; plane < kind.end; ++plane) {
      for (const TensorSpec& spec : layout_.tensors) {
        if (!spec.stored) continue;
        const auto begin = static_cast<uint64_t>(plane * layout_.size + spec.offset);
        pieces_.push_back({begin * sizeof(float),
                           (begin + static_cast<uint64_t>(spec.count)) * sizeof(float),
                           std::exchange(opens_file, false)});
      }
    }
  }
}

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Create(Disk& disk, std::string folder,
                                                                 uint32_t index, StageLayout layout,
                                                                 const std::string& writer) {
  std::unique_ptr<ShardWriter> made(
      new ShardWriter(&disk, std::move(folder), index, std::move(layout), writer));
  for (const TensorSpec& spec : made->layout_.tensors) {
    if (spec.count < 1) return absl::InvalidArgumentError(spec.name + " has no elements");
  }
  made->shard_.parameters = ParametersOf(made->layout_);
  return made;
}

std::string ShardWriter::TemporaryPath(const std::string& name) const {
  return writer_.empty() ? absl::StrCat(folder_, "/", name)
                         : absl::StrCat(folder_, "/.", name, ".", writer_);
}

absl::Status ShardWriter::OpenNextFile() {
  STARLING_RETURN_IF_ERROR(CloseFile());
  const FileKind& kind = kFiles[files_++];
  std::vector<TensorEntry> entries;
  for (int64_t plane = kind.begin; plane < kind.end; ++plane) {
    for (const TensorSpec& spec : layout_.tensors) {
      if (!spec.stored) continue;
      TensorEntry entry;
      entry.name = kPlanePrefix[plane] + spec.name;
      entry.shape = spec.shape;
      entries.push_back(std::move(entry));
    }
  }
  name_ = FileName(kind, index_);
  STARLING_ASSIGN_OR_RETURN(
      file_, SafetensorsWriter::Create(*disk_, TemporaryPath(name_), std::move(entries),
                                       {{"format", "pt"}}));
  return absl::OkStatus();
}

absl::Status ShardWriter::CloseFile() {
  if (file_ == nullptr) return absl::OkStatus();
  STARLING_ASSIGN_OR_RETURN(const SafetensorsWriter::WrittenFile written, file_->Finish());
  file_.reset();
  if (!writer_.empty()) {
    STARLING_RETURN_IF_ERROR(
        disk_->Rename(TemporaryPath(name_), absl::StrCat(folder_, "/", name_)));
  }
  shard_.files.push_back({name_, written.bytes, written.hash});
  return absl::OkStatus();
}

absl::Status ShardWriter::Append(const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  const uint64_t end = position_ + size;
  if (end > static_cast<uint64_t>(kStatePlanes * layout_.size) * sizeof(float)) {
    return absl::InvalidArgumentError("more bytes than the stage's state has");
  }
  while (next_piece_ < pieces_.size() && pieces_[next_piece_].begin < end) {
    const Piece& piece = pieces_[next_piece_];
    if (piece.opens_file && position_ <= piece.begin) STARLING_RETURN_IF_ERROR(OpenNextFile());
    const uint64_t from = std::max(position_, piece.begin);
    const uint64_t to = std::min(end, piece.end);
    STARLING_RETURN_IF_ERROR(file_->AppendBytes(at + (from - position_), to - from));
    if (piece.end > end) break;
    ++next_piece_;
  }
  position_ = end;
  return absl::OkStatus();
}

absl::StatusOr<Shard> ShardWriter::Finish() {
  if (position_ != static_cast<uint64_t>(kStatePlanes * layout_.size) * sizeof(float)) {
    return absl::InvalidArgumentError("bytes of the stage's state are missing");
  }
  STARLING_RETURN_IF_ERROR(CloseFile());
  STARLING_RETURN_IF_ERROR(disk_->SyncDirectory(folder_));
  return std::move(shard_);
}

absl::StatusOr<Shard> WriteShard(Disk& disk, const std::string& folder, uint32_t index,
                                 const StagePart& part, const std::string& writer) {
  if (part.state.dtype() != DType::kF32 ||
      part.state.element_count() != kStatePlanes * part.layout.size) {
    return absl::InvalidArgumentError("a stage's state is not f32 [3 * size]");
  }
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<ShardWriter> shard,
                            ShardWriter::Create(disk, folder, index, part.layout, writer));
  STARLING_RETURN_IF_ERROR(shard->Append(part.state.data(), part.state.size_bytes()));
  return shard->Finish();
}

}  // namespace starling
