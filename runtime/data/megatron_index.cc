#include "runtime/data/megatron_index.h"

#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr char kMagic[] = "MMIDIDX\0";  // and the zero that ends it: 9 bytes
constexpr size_t kMagicBytes = 9;
constexpr uint64_t kVersion = 1;
constexpr uint64_t kHeaderBytes = kMagicBytes + 8 + 1 + 8 + 8;

uint64_t Read(const Blob& bytes, uint64_t at, uint32_t size) {
  uint64_t value = 0;
  for (uint32_t i = 0; i < size; ++i) {
    value |= static_cast<uint64_t>(bytes.data()[at + i]) << (8 * i);
  }
  return value;
}

absl::StatusOr<uint32_t> TokenBytes(uint64_t code) {
  constexpr const char* kNames[] = {"",      "uint8", "int8",  "int16", "int32",
                                    "int64", "float", "float", "uint16"};
  switch (code) {
    case 1:
      return 1;
    case 4:
      return 4;
    case 8:
      return 2;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("tokens of type ", code,
                       code >= 1 && code <= 8 ? absl::StrCat(" (", kNames[code], ")") : "",
                       " are not supported; 1 (uint8), 4 (int32) and 8 (uint16) are"));
  }
}

// The lengths and places of sequences, one behind the other without a gap.
absl::Status CheckSequences(const Blob& bytes, uint64_t bin_bytes, const MegatronIndex& index) {
  const uint64_t lengths = kHeaderBytes;
  const uint64_t places = lengths + 4 * index.sequences;
  uint64_t expected = 0;
  for (uint64_t i = 0; i < index.sequences; ++i) {
    const uint64_t length = Read(bytes, lengths + 4 * i, 4);
    const uint64_t place = Read(bytes, places + 8 * i, 8);
    if (length > std::numeric_limits<int32_t>::max()) {
      return absl::DataLossError(absl::StrCat("sequence ", i, " has a negative length"));
    }
    if (place != expected) {
      return absl::DataLossError(absl::StrCat("sequence ", i, " is at byte ", place,
                                              ", but those before it end at byte ", expected));
    }
    expected += length * index.token_bytes;  // at most bin_bytes + 2^33
    if (expected > bin_bytes) break;
  }
  if (expected == bin_bytes) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "its sequences end at byte ", expected, expected > bin_bytes ? " or later" : "",
      ", but the .bin file has ", bin_bytes, " bytes; one of the two is cut off or another's"));
}

absl::Status CheckDocuments(const Blob& bytes, uint64_t entries, const MegatronIndex& index) {
  const uint64_t begin = kHeaderBytes + 12 * index.sequences;
  uint64_t previous = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t first = Read(bytes, begin + 8 * i, 8);
    if ((i == 0 && first != 0) || first < previous || first > index.sequences) {
      return absl::DataLossError(
          absl::StrCat("document ", i, " begins at sequence ", first, ", which cannot be"));
    }
    previous = first;
  }
  if (previous == index.sequences) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("its documents end at sequence ", previous, " of ", index.sequences));
}

}  // namespace

bool IsMegatronIndex(const Blob& bytes) {
  return bytes.size_bytes() >= kMagicBytes && std::memcmp(bytes.data(), kMagic, kMagicBytes) == 0;
}

absl::StatusOr<MegatronIndex> ParseMegatronIndex(const Blob& bytes, uint64_t bin_bytes) {
  if (!IsMegatronIndex(bytes)) {
    return absl::InvalidArgumentError("is no index of Megatron-LM: it does not begin with MMIDIDX");
  }
  const uint64_t size = bytes.size_bytes();
  if (size < kHeaderBytes) {
    return absl::DataLossError(absl::StrCat(size, " bytes are too few for an index's header"));
  }
  const uint64_t version = Read(bytes, kMagicBytes, 8);
  if (version != kVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("version ", version, " is not known; it should be ", kVersion));
  }
  MegatronIndex index;
  STARLING_ASSIGN_OR_RETURN(index.token_bytes, TokenBytes(Read(bytes, kMagicBytes + 8, 1)));
  index.sequences = Read(bytes, kMagicBytes + 9, 8);
  const uint64_t entries = Read(bytes, kMagicBytes + 17, 8);
  const bool possible = index.sequences <= size / 12 && entries <= size / 8;
  const uint64_t least = possible ? kHeaderBytes + 12 * index.sequences + 8 * entries : 0;
  if (!possible || (size != least && size != least + index.sequences)) {
    return absl::DataLossError(absl::StrCat("the header says ", index.sequences, " sequences and ",
                                            entries, " entries of documents, which are not ", size,
                                            " bytes; it is cut off or damaged"));
  }
  if (entries == 0) return absl::DataLossError("it has no documents");
  STARLING_RETURN_IF_ERROR(CheckSequences(bytes, bin_bytes, index));
  STARLING_RETURN_IF_ERROR(CheckDocuments(bytes, entries, index));
  index.tokens = bin_bytes / index.token_bytes;
  index.documents = entries - 1;
  return index;
}

}  // namespace starling
