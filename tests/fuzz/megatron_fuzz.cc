// ParseMegatronIndex: whatever the bytes, it answers; what it accepts describes the .bin file.
#include "runtime/base/check.h"
#include "runtime/data/megatron_index.h"
#include "tests/fuzz/fuzz_driver.h"

namespace starling {
namespace {

constexpr uint64_t kBinBytes = 12;

void Put(uint64_t value, int size, std::string* bytes) {
  for (int i = 0; i < size; ++i) bytes->push_back(static_cast<char>(value >> (8 * i)));
}

// So many sequences in a file of kBinBytes, one to a document.
std::string Index(uint64_t type, uint64_t token_bytes, uint64_t sequences) {
  std::string bytes("MMIDIDX\0\0", 9);
  Put(1, 8, &bytes);
  Put(type, 1, &bytes);
  Put(sequences, 8, &bytes);
  Put(sequences + 1, 8, &bytes);
  const uint64_t length = kBinBytes / token_bytes / sequences;
  for (uint64_t i = 0; i < sequences; ++i) Put(length, 4, &bytes);
  for (uint64_t i = 0; i < sequences; ++i) Put(i * length * token_bytes, 8, &bytes);
  for (uint64_t i = 0; i <= sequences; ++i) Put(i, 8, &bytes);
  return bytes;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {Index(1, 1, 3), Index(8, 2, 1), Index(8, 2, 3), Index(4, 4, 3)};
}

void FuzzOne(const std::string& input) {
  const auto index = ParseMegatronIndex(Blob::OfString(input), kBinBytes);
  if (!index.ok()) {
    STARLING_CHECK(absl::IsDataLoss(index.status()) || absl::IsInvalidArgument(index.status()));
    return;
  }
  STARLING_CHECK_EQ(index->tokens * index->token_bytes, kBinBytes);
  STARLING_CHECK(input.size() >= 12 * index->sequences);
}

}  // namespace starling
