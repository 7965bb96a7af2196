// MegatronIndex: the .idx file beside a .bin file of tokens, as Megatron-LM writes them.
//
//   "MMIDIDX\0\0", u64 version (1), u8 type of a token, u64 sequences, u64 entries of documents,
//   i32 [sequences] lengths, i64 [sequences] places in the .bin file in bytes,
//   i64 [entries] first sequence of each document, and the number of sequences at the end
//
// All little-endian. A byte per sequence may follow (modes of multimodal data).
#ifndef STARLING_RUNTIME_DATA_MEGATRON_INDEX_H_
#define STARLING_RUNTIME_DATA_MEGATRON_INDEX_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"

namespace starling {

struct MegatronIndex {
  uint32_t token_bytes = 0;  // 1, 2 or 4, without sign or (4) never negative
  uint64_t tokens = 0;
  uint64_t sequences = 0;
  uint64_t documents = 0;
};

// Whether bytes begin like such a file.
bool IsMegatronIndex(const Blob& bytes);

// Reads an index and checks every field of it, against each other and against the length of the
// .bin file. Errors, one line without the path: invalid argument = not such a file, or of a version
// or type that is not supported; data loss = cut off, or fields that cannot be.
absl::StatusOr<MegatronIndex> ParseMegatronIndex(const Blob& bytes, uint64_t bin_bytes);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_MEGATRON_INDEX_H_
