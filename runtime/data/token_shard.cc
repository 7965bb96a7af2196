#include "runtime/data/token_shard.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/megatron_index.h"

namespace starling {
namespace {

constexpr uint32_t kMagic16 = 20240520;
constexpr uint32_t kVersion16 = 1;
constexpr uint32_t kMagic32 = 20240801;
constexpr uint32_t kVersion32 = 7;
// Magic numbers of llm.c are dates. As raw tokens these would begin with one above 54000, which
// GPT-2's vocabulary does not have.
constexpr uint32_t kLikeMagicLow = 20240000;
constexpr uint32_t kLikeMagicHigh = 20249999;
constexpr uint64_t kSampleBytes = 4096;

uint32_t Word(const Blob& bytes, uint64_t index) {
  uint32_t word = 0;
  for (uint64_t i = 0; i < 4; ++i) {
    word |= static_cast<uint32_t>(bytes.data()[4 * index + i]) << (8 * i);
  }
  return word;
}

void PutWord(uint32_t word, uint64_t index, std::string* bytes) {
  for (uint64_t i = 0; i < 4; ++i) (*bytes)[4 * index + i] = static_cast<char>(word >> (8 * i));
}

bool HasHeader(const Blob& bytes, ShardFormat format) {
  if (format != ShardFormat::kAuto) return format == ShardFormat::kLlmC;
  if (bytes.size_bytes() < 4) return false;
  const uint32_t magic = Word(bytes, 0);
  return magic >= kLikeMagicLow && magic <= kLikeMagicHigh;
}

absl::StatusOr<TokenShard> OpenRaw(const std::string& path, Blob bytes) {
  if (bytes.size_bytes() % 2 != 0) {
    return absl::DataLossError(absl::StrCat(path, ": ", bytes.size_bytes(),
                                            " bytes are no whole number of 2-byte tokens; it is "
                                            "cut off, or no raw shard"));
  }
  return TokenShard{path, {path, std::move(bytes), 2, 0}};
}

absl::StatusOr<TokenShard> OpenWithHeader(const std::string& path, const Blob& bytes) {
  if (bytes.size_bytes() < kShardHeaderBytes) {
    return absl::DataLossError(absl::StrCat(path, ": ", bytes.size_bytes(),
                                            " bytes are too few for llm.c's header of ",
                                            kShardHeaderBytes));
  }
  const uint32_t magic = Word(bytes, 0);
  const uint32_t version = Word(bytes, 1);
  const uint64_t tokens = Word(bytes, 2);
  if (magic != kMagic16 && magic != kMagic32) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": magic number ", magic, " is not llm.c's ", kMagic16, " or ", kMagic32,
                     "; for files without a header set data.shard_format = \"raw\""));
  }
  const uint32_t wanted = magic == kMagic16 ? kVersion16 : kVersion32;
  if (version != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": version ", version, " with magic ",
                                                   magic, " is not known; it should be ", wanted));
  }
  const uint32_t token_bytes = magic == kMagic16 ? 2 : 4;
  const uint64_t payload = bytes.size_bytes() - kShardHeaderBytes;
  if (tokens > kMaxShardTokens || payload != tokens * token_bytes) {
    return absl::DataLossError(absl::StrCat(path, ": the header says ", tokens, " tokens of ",
                                            token_bytes, " bytes, but ", payload,
                                            " bytes follow it; it is cut off or damaged"));
  }
  return TokenShard{
      path,
      {path, bytes.Slice(static_cast<int64_t>(kShardHeaderBytes), static_cast<int64_t>(payload)),
       token_bytes, 0}};
}

// "/a/b.idx" of "/a/b.bin".
std::string IndexPathOf(const std::string& path) {
  const bool is_bin = absl::EndsWith(path, ".bin");
  return (is_bin ? path.substr(0, path.size() - 4) : path) + ".idx";
}

absl::StatusOr<bool> HasIndex(Disk& disk, const std::string& path, ShardFormat format) {
  if (format != ShardFormat::kAuto) return format == ShardFormat::kMegatron;
  if (!disk.Exists(IndexPathOf(path))) return false;
  STARLING_ASSIGN_OR_RETURN(const Blob bytes, disk.Map(IndexPathOf(path)));
  return IsMegatronIndex(bytes);
}

absl::StatusOr<TokenShard> OpenWithIndex(Disk& disk, const std::string& path, Blob bytes) {
  const std::string index_path = IndexPathOf(path);
  if (!disk.Exists(index_path)) {
    return absl::NotFoundError(
        absl::StrCat(path, ": has no ", index_path, " beside it, as Megatron's shards have"));
  }
  STARLING_ASSIGN_OR_RETURN(const Blob index_bytes, disk.Map(index_path));
  const absl::StatusOr<MegatronIndex> index = ParseMegatronIndex(index_bytes, bytes.size_bytes());
  if (!index.ok()) {
    return absl::Status(index.status().code(),
                        absl::StrCat(index_path, ": ", index.status().message()));
  }
  return TokenShard{path, {path, std::move(bytes), index->token_bytes, 0}};
}

absl::StatusOr<TokenShard> OpenAny(Disk& disk, const std::string& path, ShardFormat format) {
  STARLING_ASSIGN_OR_RETURN(Blob bytes, disk.Map(path));
  const bool may_be_index = format == ShardFormat::kAuto || format == ShardFormat::kMegatron;
  if (may_be_index && IsMegatronIndex(bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is an index of Megatron-LM; name the .bin files only"));
  }
  STARLING_ASSIGN_OR_RETURN(const bool has_index, HasIndex(disk, path, format));
  if (has_index) return OpenWithIndex(disk, path, std::move(bytes));
  return HasHeader(bytes, format) ? OpenWithHeader(path, bytes) : OpenRaw(path, std::move(bytes));
}

}  // namespace

absl::StatusOr<TokenShard> OpenShard(Disk& disk, const std::string& path, ShardFormat format) {
  STARLING_ASSIGN_OR_RETURN(TokenShard shard, OpenAny(disk, path, format));
  if (shard.tokens.tokens() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": holds no tokens"));
  }
  return shard;
}

Hash128 FingerprintOf(const TokenStream::Piece& tokens) {
  const uint64_t size = tokens.bytes.size_bytes();
  const uint64_t length = std::min(size, kSampleBytes);
  Hasher128 hasher;
  const std::string head = absl::StrCat(tokens.tokens(), "x", tokens.token_bytes, "\n");
  hasher.Update(head.data(), head.size());
  for (const uint64_t begin : {uint64_t{0}, (size - length) / 2, size - length}) {
    hasher.Update(tokens.bytes.data() + begin, length);
  }
  return hasher.Finish();
}

std::string ShardHeader(uint64_t tokens, uint32_t token_bytes) {
  STARLING_CHECK_LE(tokens, kMaxShardTokens);
  STARLING_CHECK(token_bytes == 2 || token_bytes == 4);
  std::string header(kShardHeaderBytes, '\0');
  PutWord(token_bytes == 2 ? kMagic16 : kMagic32, 0, &header);
  PutWord(token_bytes == 2 ? kVersion16 : kVersion32, 1, &header);
  PutWord(static_cast<uint32_t>(tokens), 2, &header);
  return header;
}

}  // namespace starling
