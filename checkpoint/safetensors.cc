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

constexpr uint64_t kSizeBytes = 8;  // of the header's size

absl::Status Bad(const std::string& name, const std::string& why) {
  return absl::DataLossError(absl::StrCat(name, ": not a safetensors file: ", why));
}

// From the first bytes of a file of `file_bytes`.
absl::StatusOr<uint64_t> HeaderBytes(const std::byte* first, uint64_t file_bytes,
                                     const std::string& name) {
  uint64_t header_bytes = 0;
  for (int i = kSizeBytes - 1; i >= 0; --i) {
    header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(first[i]);
  }
  if (header_bytes > kMaxSafetensorsHeader || header_bytes > file_bytes - kSizeBytes) {
    return Bad(name, absl::StrCat("its header of ", header_bytes, " bytes does not fit"));
  }
  return header_bytes;
}

absl::StatusOr<SafetensorsLayout> ParseLayout(const char* begin, uint64_t header_bytes,
                                              uint64_t file_bytes, const std::string& name) {
  if (header_bytes == 0 || *begin != '{') return Bad(name, "its header is not JSON");
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(begin, begin + header_bytes);
  if (!header.ok()) return InFile(name, header.status());
  SafetensorsLayout layout;
  layout.tensors = std::move(header->tensors);
  layout.metadata = std::move(header->metadata);
  std::sort(layout.tensors.begin(), layout.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  layout.data_begin = kSizeBytes + header_bytes;
  if (auto status = CheckNoGaps(layout.tensors, file_bytes - layout.data_begin); !status.ok()) {
    return InFile(name, status);
  }
  return layout;
}

}  // namespace

absl::StatusOr<SafetensorsLayout> ReadSafetensorsLayout(ReadableFile& file,
                                                        const std::string& name) {
  const uint64_t file_bytes = file.size_bytes();
  if (file_bytes < kSizeBytes) return Bad(name, "shorter than 8 bytes");
  std::byte first[kSizeBytes];
  STARLING_RETURN_IF_ERROR(file.Read(0, first, kSizeBytes));
  STARLING_ASSIGN_OR_RETURN(const uint64_t header_bytes, HeaderBytes(first, file_bytes, name));
  std::string header(static_cast<size_t>(header_bytes), ' ');
  STARLING_RETURN_IF_ERROR(file.Read(kSizeBytes, header.data(), header.size()));
  return ParseLayout(header.data(), header_bytes, file_bytes, name);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(Blob bytes, const std::string& name) {
  const uint64_t file_bytes = bytes.size_bytes();
  if (file_bytes < kSizeBytes) return Bad(name, "shorter than 8 bytes");
  STARLING_ASSIGN_OR_RETURN(const uint64_t header_bytes,
                            HeaderBytes(bytes.data(), file_bytes, name));
  SafetensorsFile file;
  STARLING_ASSIGN_OR_RETURN(file.layout_,
                            ParseLayout(reinterpret_cast<const char*>(bytes.data()) + kSizeBytes,
                                        header_bytes, file_bytes, name));
  for (size_t i = 0; i < file.tensors().size(); ++i) file.by_name_[file.tensors()[i].name] = i;
  file.bytes_ = std::move(bytes);
  return file;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(Blob bytes, disk.Map(path));
  return Parse(std::move(bytes), path);
}

const TensorEntry* SafetensorsFile::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &layout_.tensors[found->second];
}

Blob SafetensorsFile::Tensor(const TensorEntry& entry) const {
  const std::byte* data = bytes_.data() + layout_.data_begin + entry.begin;
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
