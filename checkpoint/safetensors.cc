#include "checkpoint/safetensors.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using nlohmann::json;

// The header as JSON, or nothing if it is malformed or names a key twice.
std::optional<json> ParseHeader(const char* begin, const char* end) {
  bool twice = false;
  std::vector<std::set<std::string>> open;  // keys of the objects being read
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key) {
      twice |= !open.back().insert(parsed.get<std::string>()).second;
    }
    return true;
  };
  json header = json::parse(begin, end, watch, /*allow_exceptions=*/false);
  if (twice || !header.is_object()) return std::nullopt;
  return header;
}

std::optional<DType> DTypeOf(const std::string& name) {
  if (name == "U8") return DType::kU8;
  if (name == "I32") return DType::kI32;
  if (name == "I64") return DType::kI64;
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

// Elements times their size, or nothing if that is no sensible number.
std::optional<uint64_t> BytesOf(const TensorEntry& entry) {
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  uint64_t bytes = SizeOf(entry.dtype);
  for (const int64_t extent : entry.shape) {
    const auto size = static_cast<uint64_t>(extent);
    if (size != 0 && bytes > kMost / size) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

bool ReadNumbers(const json& list, std::vector<int64_t>* out) {
  if (!list.is_array()) return false;
  for (const json& item : list) {
    if (!item.is_number_unsigned()) return false;
    const auto number = item.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    out->push_back(static_cast<int64_t>(number));
  }
  return true;
}

// One tensor's entry, checked by itself.
absl::StatusOr<TensorEntry> ReadEntry(const std::string& name, const json& value) {
  const auto bad = [&](const char* why) {
    return absl::DataLossError(absl::StrCat("tensor ", name, ": ", why));
  };
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
      !value.contains("shape") || !value.contains("data_offsets") || !value["dtype"].is_string()) {
    return bad("is not described by dtype, shape and data_offsets");
  }
  TensorEntry entry;
  entry.name = name;
  const auto dtype_name = value["dtype"].get<std::string>();
  const std::optional<DType> dtype = DTypeOf(dtype_name);
  if (!dtype) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, ": element type ", dtype_name, " is not supported"));
  }
  entry.dtype = *dtype;
  std::vector<int64_t> offsets;
  if (!ReadNumbers(value["shape"], &entry.shape)) return bad("has a bad shape");
  if (!ReadNumbers(value["data_offsets"], &offsets) || offsets.size() != 2) {
    return bad("has bad data_offsets");
  }
  entry.begin = static_cast<uint64_t>(offsets[0]);
  entry.end = static_cast<uint64_t>(offsets[1]);
  const std::optional<uint64_t> bytes = BytesOf(entry);
  if (entry.begin > entry.end || !bytes || *bytes != entry.end - entry.begin) {
    return bad("has a size that is not that of its shape");
  }
  return entry;
}

absl::Status ReadMetadata(const json& value, std::map<std::string, std::string>* metadata) {
  if (!value.is_object()) return absl::DataLossError("__metadata__ is not a map of text");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return absl::DataLossError("__metadata__ is not a map of text");
    (*metadata)[key] = text.get<std::string>();
  }
  return absl::OkStatus();
}

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
  const std::optional<json> header = ParseHeader(begin, begin + header_bytes);
  if (!header) return bad("its header is not JSON with unique names");

  SafetensorsFile file;
  for (const auto& [key, value] : header->items()) {
    if (key == "__metadata__") {
      if (auto status = ReadMetadata(value, &file.metadata_); !status.ok()) {
        return InFile(name, status);
      }
      continue;
    }
    absl::StatusOr<TensorEntry> entry = ReadEntry(key, value);
    if (!entry.ok()) return InFile(name, entry.status());
    file.tensors_.push_back(*std::move(entry));
  }
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
  if (reinterpret_cast<uintptr_t>(data) % SizeOf(entry.dtype) != 0) {
    return Blob::CopyOf(data, entry.dtype, entry.shape);
  }
  return Blob(bytes_.owner(), data, entry.dtype, entry.shape);
}

}  // namespace starling
