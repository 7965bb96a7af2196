#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;  // hashed and written while in cache
constexpr uint64_t kDataAlignment = 64;          // of the first tensor in the file

std::string DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return "U8";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
  }
  STARLING_CHECK_MSG(false, "no such element type");
  return "";
}

// The 8 bytes of size and the JSON, padded with spaces as the format allows.
std::string HeaderOf(const std::vector<TensorEntry>& entries,
                     const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t begin = 0;
  for (const TensorEntry& entry : entries) {
    const uint64_t end =
        begin + static_cast<uint64_t>(ElementCount(entry.shape)) * SizeOf(entry.dtype);
    header[entry.name] = {
        {"dtype", DTypeName(entry.dtype)}, {"shape", entry.shape}, {"data_offsets", {begin, end}}};
    begin = end;
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
  for (const TensorEntry& entry : entries) {
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor name ", entry.name, " is taken"));
    }
  }
  const std::string header = HeaderOf(entries, metadata);
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  std::unique_ptr<SafetensorsWriter> writer(
      new SafetensorsWriter(std::move(entries), std::move(file)));
  STARLING_RETURN_IF_ERROR(writer->Write(header.data(), header.size()));
  return writer;
}

absl::Status SafetensorsWriter::Append(const Blob& tensor) {
  if (next_ == entries_.size()) {
    return absl::InvalidArgumentError("one tensor more than the header announces");
  }
  const TensorEntry& entry = entries_[next_];
  if (tensor.dtype() != entry.dtype || tensor.shape() != entry.shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", entry.name, " is not of the type and shape announced"));
  }
  ++next_;
  return Write(tensor.data(), tensor.size_bytes());
}

absl::StatusOr<SafetensorsWriter::WrittenFile> SafetensorsWriter::Finish() {
  if (next_ != entries_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", entries_[next_].name, " is missing"));
  }
  STARLING_RETURN_IF_ERROR(file_->Sync());
  return WrittenFile{bytes_, hash_.FinishHex()};
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
