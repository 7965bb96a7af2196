// The JSON header of a safetensors file, shared by the sources of this library.
#ifndef STARLING_CHECKPOINT_SAFETENSORS_HEADER_H_
#define STARLING_CHECKPOINT_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"

namespace starling {

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // in the order of their names in the text
  std::map<std::string, std::string> metadata;
};

// Each entry is checked by itself: its size is that of its type and shape. How entries lie beside
// one another is not looked at. Errors as SafetensorsFile::Parse, without the file's name.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const char* begin, const char* end);

// Elements times their size, or nothing if that is no sensible number.
std::optional<uint64_t> BytesOf(const TensorEntry& entry);

}  // namespace starling

#endif  // STARLING_CHECKPOINT_SAFETENSORS_HEADER_H_
