#include "checkpoint/safetensors.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/safetensors_header.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

// The tensors must fill the bytes behind the header, one after another.
absl::Status CheckNoGaps(const std::vector<TensorEntry>& tensors, uint64_t data_bytes) {
  uint64_t expected = 0;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.begin != expected) {
      return absl::DataLossError(
          absl::StrCat("tensor ", tensor.name,
                       (tensor.begin < expected ? ": overlaps" : ": leaves a gap behind"),
                       " the one before it"));
    }
    expected = tensor.end;
  }
  if (expected != data_bytes) {
    return absl::DataLossError(
        absl::StrCat("its tensors are ", expected, " bytes, but it holds ", data_bytes));
  }
  return absl::OkStatus();
}

absl::Status InFile(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(name, ": ", status.message()));
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(Blob bytes, const std::string& name) {
  const auto bad = [&](const std::string& why) {
    return absl::DataLossError(absl::StrCat(name, ": not a safetensors file: ", why));
  };
  if (bytes.size_bytes() < 8) return bad("shorter than 8 bytes");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) {
    header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(bytes.data()[i]);
  }
  if (header_bytes > kMaxSafetensorsHeader || header_bytes > bytes.size_bytes() - 8) {
    return bad(absl::StrCat("its header of ", header_bytes, " bytes does not fit"));
  }
  const char* begin = reinterpret_cast<const char*>(bytes.data()) + 8;
  if (header_bytes == 0 || *begin != '{') return bad("its header is not JSON");
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(begin, begin + header_bytes);
  if (!header.ok()) return InFile(name, header.status());

  SafetensorsFile file;
  file.tensors_ = std::move(header->tensors);
  file.metadata_ = std::move(header->metadata);
  std::sort(file.tensors_.begin(), file.tensors_.end(),
            [](const TensorEntry& a, const TensorEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  file.data_begin_ = 8 + header_bytes;
  if (auto status = CheckNoGaps(file.tensors_, bytes.size_bytes() - file.data_begin_);
      !status.ok()) {
    return InFile(name, status);
  }
  for (size_t i = 0; i < file.tensors_.size(); ++i) file.by_name_[file.tensors_[i].name] = i;
  file.bytes_ = std::move(bytes);
  return file;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(Blob bytes, disk.Map(path));
  return Parse(std::move(bytes), path);
}

const TensorEntry* SafetensorsFile::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

Blob SafetensorsFile::Tensor(const TensorEntry& entry) const {
  const std::byte* data = bytes_.data() + data_begin_ + entry.begin;
  const std::optional<DType> dtype = DTypeOf(entry.type);
  if (!dtype) {
    return Blob(bytes_.owner(), data, DType::kU8, {static_cast<int64_t>(entry.end - entry.begin)});
  }
  if (reinterpret_cast<uintptr_t>(data) % SizeOf(*dtype) != 0) {
    return Blob::CopyOf(data, *dtype, entry.shape);
  }
  return Blob(bytes_.owner(), data, *dtype, entry.shape);
}

}  // namespace starling
