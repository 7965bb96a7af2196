// Token shards: files of tokens as nanoGPT, llm.c and Megatron-LM write them. docs/data.md has the
// formats.
//
//   raw     u16 tokens, little-endian, nothing else (nanoGPT)
//   llm.c   256 x i32: magic, version, tokens, zeros; then the tokens: u16 with magic 20240520 and
//           version 1 (GPT-2), u32 with 20240801 and 7 (Llama 3)
//   megatron  tokens and nothing else, with an .idx file beside it (megatron_index.h)
#ifndef STARLING_RUNTIME_DATA_TOKEN_SHARD_H_
#define STARLING_RUNTIME_DATA_TOKEN_SHARD_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/base/hash.h"
#include "runtime/config/run_config.h"
#include "runtime/data/token_stream.h"
#include "runtime/env/file_system.h"

namespace starling {

constexpr uint64_t kShardHeaderBytes = 1024;
constexpr uint64_t kMaxShardTokens = (uint64_t{1} << 31) - 1;  // what a header can say

struct TokenShard {
  std::string path;
  TokenStream::Piece tokens;  // mapped; the file must not change while a copy lives
};

// Maps a shard and checks its header or index and its length; no token is read. Errors, one line
// with the path: invalid argument = not a shard of that format; data loss = cut off or of another
// length than its header says; else what the disk says.
absl::StatusOr<TokenShard> OpenShard(Disk& disk, const std::string& path, ShardFormat format);

// A hash of the number of tokens and of those at its begin, middle and end: tells shards apart
// without reading them whole. The same tokens have the same one in either format.
Hash128 FingerprintOf(const TokenStream::Piece& tokens);

// The first bytes of an llm.c shard. `token_bytes` is 2 or 4.
std::string ShardHeader(uint64_t tokens, uint32_t token_bytes);

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_TOKEN_SHARD_H_
