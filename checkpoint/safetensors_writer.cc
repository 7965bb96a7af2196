#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/safetensors_header.h"
#include "runtime/base/planted.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;  // hashed and written while in cache
constexpr uint64_t kDataAlignment = 64;            // of the first tensor in the file

// The 8 bytes of size and the JSON, padded with spaces as the format allows. Offsets are those of
// `entries`.
std::string HeaderOf(const std::vector<TensorEntry>& entries,
                     const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const TensorEntry& entry : entries) {
    header[entry.name] = {{"dtype", ToString(entry.type)},
                          {"shape", entry.shape},
                          {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((kDataAlignment - (8 + text.size()) % kDataAlignment) % kDataAlignment, ' ');
  std::string out;
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(text.size() >> (8 * i) & 0xff));
  return out + text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    Disk& disk, const std::string& path, std::vector<TensorEntry> entries,
    const std::map<std::string, std::string>& metadata) {
  std::set<std::string> names = {"__metadata__"};
  uint64_t data_bytes = 0;
  for (TensorEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor name ", entry.name, " is taken"));
    }
    const std::optional<uint64_t> bytes = BytesOf(entry);
    if (!bytes) return absl::InvalidArgumentError(absl::StrCat(entry.name, ": too many elements"));
    entry.begin = data_bytes;
    entry.end = data_bytes += *bytes;
  }
  const std::string header = HeaderOf(entries, metadata);
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  std::unique_ptr<SafetensorsWriter> writer(
      new SafetensorsWriter(path, std::move(entries), data_bytes, std::move(file)));
  STARLING_RETURN_IF_ERROR(writer->Write(header.data(), header.size()));
  return writer;
}

absl::Status SafetensorsWriter::Append(const Blob& tensor) {
  if (next_ == entries_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": one tensor more than the header announces"));
  }
  const TensorEntry& entry = entries_[next_];
  const std::optional<DType> dtype = DTypeOf(entry.type);
  const std::vector<int64_t> shape =
      dtype ? entry.shape : std::vector<int64_t>{static_cast<int64_t>(entry.end - entry.begin)};
  if (tensor.dtype() != dtype.value_or(DType::kU8) || tensor.shape() != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor ", entry.name, " is not of the type and shape announced"));
  }
  ++next_;
  return AppendBytes(tensor.data(), tensor.size_bytes());
}

absl::Status SafetensorsWriter::AppendBytes(const void* data, size_t size) {
  if (size > left_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", size - left_bytes_, " bytes more than the header announces"));
  }
  left_bytes_ -= size;
  return Write(data, size);
}

absl::StatusOr<SafetensorsWriter::WrittenFile> SafetensorsWriter::Finish() {
  if (left_bytes_ > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", left_bytes_, " bytes of its tensors are missing"));
  }
  if (!Planted(Bug::kPublishBeforeSync)) STARLING_RETURN_IF_ERROR(file_->Sync());
  return WrittenFile{bytes_, hash_.Finish()};
}

absl::Status SafetensorsWriter::Write(const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const size_t piece = std::min(size, kPieceBytes);
    hash_.Update(at, piece);
    STARLING_RETURN_IF_ERROR(file_->Append(at, piece));
    bytes_ += piece;
    at += piece;
    size -= piece;
  }
  return absl::OkStatus();
}

}  // namespace starling
