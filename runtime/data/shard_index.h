// ShardIndex: shards.json, which `starling tokenize` writes beside its shards: what made them, how
// large their tokens are, and how to tell that they are still the same. docs/data.md has the
// format.
#ifndef STARLING_RUNTIME_DATA_SHARD_INDEX_H_
#define STARLING_RUNTIME_DATA_SHARD_INDEX_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/data/token_shard.h"

namespace starling {

inline constexpr char kShardIndexName[] = "shards.json";
// The folder beside it with the files of the tokenizer, where that has any.
inline constexpr char kShardTokenizerName[] = "tokenizer";

struct ShardEntry {
  uint64_t tokens = 0;
  uint32_t maximum = 0;  // the largest token
  Hash128 fingerprint;   // FingerprintOf
};

struct ShardIndex {
  std::string tokenizer;                     // Tokenizer::name
  uint32_t vocabulary = 0;                   // every token is below it
  std::optional<uint32_t> separator;         // the token after each document
  std::map<std::string, ShardEntry> shards;  // by name within the folder
};

std::string PrintShardIndex(const ShardIndex& index);

// Errors, one line without the path: data loss = not such a file, or what it says cannot be; failed
// precondition = of another format version, which is named.
absl::StatusOr<ShardIndex> ParseShardIndex(const std::string& text);

// Whether the shard is the one that was listed. Reads a few pages of it. Data loss: it is not.
absl::Status CheckListed(const ShardEntry& entry, const TokenShard& shard);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_SHARD_INDEX_H_
