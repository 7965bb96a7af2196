#include "interop/tensor_files.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "codec/codec.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

std::optional<Encoding> EncodingOf(TensorType type) {
  if (type == TensorType::kF32) return Encoding::kRaw;
  if (type == TensorType::kF16) return Encoding::kF16;
  if (type == TensorType::kBF16) return Encoding::kBF16;
  return std::nullopt;
}

bool AllFinite(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

}  // namespace

absl::Status TensorFiles::Add(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, disk.OpenToRead(path));
  STARLING_ASSIGN_OR_RETURN(SafetensorsLayout layout, ReadSafetensorsLayout(*file, path));
  for (TensorEntry& entry : layout.tensors) {
    const std::string name = entry.name;
    const uint64_t begin = layout.data_begin + entry.begin;
    const auto [there, fresh] =
        places_.emplace(name, Place{files_.size(), std::move(entry), begin});
    if (!fresh) {
      return absl::DataLossError(
          absl::StrCat(path, ": ", name, " is in ", PathOf(there->second), " already"));
    }
  }
  paths_.push_back(path);
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

const TensorFiles::Place* TensorFiles::Find(const std::string& name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &found->second;
}

bool TensorFiles::IsReadable(TensorType type) { return EncodingOf(type).has_value(); }

absl::Status TensorFiles::Read(const std::string& name, int64_t first, int64_t count,
                               float* to) const {
  const Place* const place = Find(name);
  STARLING_CHECK(place != nullptr);
  const TensorEntry& entry = place->entry;
  STARLING_CHECK_LE(0, first);
  STARLING_CHECK_LE(0, count);
  STARLING_CHECK_LE(first + count, ElementCount(entry.shape));
  const std::optional<Encoding> encoding = EncodingOf(entry.type);
  const auto in_file = [&](const std::string& why) {
    return absl::StrCat(PathOf(*place), ": ", name, " ", why);
  };
  if (!encoding) {
    return absl::InvalidArgumentError(
        in_file(absl::StrCat("is ", ToString(entry.type), ": only F32, F16 and BF16 are read")));
  }
  const size_t width = SizeOf(entry.type);
  std::vector<std::byte> bytes(static_cast<size_t>(std::min(count, kPieceElements)) * width);
  for (int64_t done = 0; done < count;) {
    const int64_t piece = std::min(count - done, kPieceElements);
    const size_t size = static_cast<size_t>(piece) * width;
    const uint64_t offset = place->begin + static_cast<uint64_t>(first + done) * width;
    const absl::Status status = files_[place->file]->Read(offset, bytes.data(), size);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(PathOf(*place), ": ", status.message()));
    }
    STARLING_RETURN_IF_ERROR(Decode(*encoding, bytes.data(), size, 0,
                                    absl::MakeSpan(to + done, static_cast<size_t>(piece))));
    if (!AllFinite(to + done, piece)) {
      return absl::DataLossError(in_file("holds a number that is not finite"));
    }
    done += piece;
  }
  return absl::OkStatus();
}

}  // namespace starling
