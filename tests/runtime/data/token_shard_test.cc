#include "runtime/data/token_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/data/shard_index.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Word(uint32_t word) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(word >> (8 * i)));
  return bytes;
}

// As llm.c writes it, put together here by hand.
std::string LlmC(uint32_t magic, uint32_t version, uint32_t tokens, const std::string& payload) {
  std::string bytes = Word(magic) + Word(version) + Word(tokens);
  bytes.resize(1024, '\0');
  return bytes + payload;
}

absl::StatusOr<TokenShard> Open(const std::string& bytes, ShardFormat format = ShardFormat::kAuto) {
  MemoryDisk disk;
  disk.files["/s.bin"] = bytes;
  return OpenShard(disk, "/s.bin", format);
}

std::vector<int32_t> TokensOf(const TokenShard& shard) {
  TokenStream stream;
  stream.Append(shard.tokens);
  std::vector<int32_t> tokens(stream.size());
  EXPECT_TRUE(stream.Read(0, int64_t{1} << 31, absl::MakeSpan(tokens)).ok());
  return tokens;
}

TEST(OpenShard, ReadsNanoGptsRawTokens) {
  const auto shard = Open(std::string("\x01\x00\x51\xc3\xff\xff", 6));
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(TokensOf(*shard), (std::vector<int32_t>{1, 50001, 65535}));
}

TEST(OpenShard, ReadsLlmCsTokensOfBothWidths) {
  const auto narrow = Open(LlmC(20240520, 1, 2, std::string("\x01\x00\x50\xc4", 4)));
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_EQ(TokensOf(*narrow), (std::vector<int32_t>{1, 50256}));
  const auto wide = Open(LlmC(20240801, 7, 2, Word(128000) + Word(5)));
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_EQ(TokensOf(*wide), (std::vector<int32_t>{128000, 5}));
}

TEST(OpenShard, WrittenHeaderIsLlmCs) {
  EXPECT_EQ(ShardHeader(2, 2), LlmC(20240520, 1, 2, ""));
  EXPECT_EQ(ShardHeader(kMaxShardTokens, 4), LlmC(20240801, 7, 0x7fffffff, ""));
}

TEST(OpenShard, GivenFormatIsTakenAtItsWord) {
  const std::string bytes = LlmC(20240520, 1, 1, std::string("\x07\x00", 2));
  EXPECT_EQ(TokensOf(*Open(bytes, ShardFormat::kRaw)).size(), 513u);
  EXPECT_EQ(TokensOf(*Open(bytes, ShardFormat::kLlmC)).size(), 1u);
}

TEST(OpenShard, BadFileIsRefusedWithPathAndCause) {
  const std::string two("\x01\x00\x02\x00", 4);
  const struct {
    std::string bytes;
    ShardFormat format;
    absl::StatusCode code;
    const char* says;
  } cases[] = {
      {"", ShardFormat::kAuto, absl::StatusCode::kInvalidArgument, "no tokens"},
      {"abc", ShardFormat::kAuto, absl::StatusCode::kDataLoss, "3 bytes are no whole number"},
      {"", ShardFormat::kLlmC, absl::StatusCode::kDataLoss, "too few for llm.c's header"},
      {LlmC(20240520, 1, 0, ""), ShardFormat::kAuto, absl::StatusCode::kInvalidArgument,
       "no tokens"},
      {LlmC(20240520, 1, 2, two).substr(0, 1000), ShardFormat::kAuto, absl::StatusCode::kDataLoss,
       "1000 bytes are too few"},
      {LlmC(20240520, 1, 2, two).substr(0, 1027), ShardFormat::kAuto, absl::StatusCode::kDataLoss,
       "2 tokens of 2 bytes, but 3 bytes follow"},
      {LlmC(20240520, 1, 2, two + "x"), ShardFormat::kAuto, absl::StatusCode::kDataLoss,
       "but 5 bytes follow"},
      {LlmC(20240520, 1, 3, two), ShardFormat::kAuto, absl::StatusCode::kDataLoss, "says 3 tokens"},
      {LlmC(20240520, 1, 0xffffffff, two), ShardFormat::kAuto, absl::StatusCode::kDataLoss,
       "says 4294967295 tokens"},
      {LlmC(20240801, 7, 0x40000001, Word(1)), ShardFormat::kAuto, absl::StatusCode::kDataLoss,
       "says 1073741825 tokens"},  // times four is 4 in 32 bits
      {LlmC(20240520, 2, 2, two), ShardFormat::kAuto, absl::StatusCode::kInvalidArgument,
       "version 2 with magic 20240520 is not known; it should be 1"},
      {LlmC(20240801, 1, 1, two), ShardFormat::kAuto, absl::StatusCode::kInvalidArgument,
       "version 1 with magic 20240801 is not known; it should be 7"},
      {LlmC(20240522, 1, 2, two), ShardFormat::kAuto, absl::StatusCode::kInvalidArgument,
       "magic number 20240522"},
      {LlmC(7, 1, 2, two), ShardFormat::kLlmC, absl::StatusCode::kInvalidArgument,
       "magic number 7 is not llm.c's"},
  };
  for (const auto& one : cases) {
    const auto shard = Open(one.bytes, one.format);
    EXPECT_EQ(shard.status().code(), one.code) << one.says;
    EXPECT_THAT(std::string(shard.status().message()),
                AllOf(StartsWith("/s.bin: "), HasSubstr(one.says)));
  }
}

TEST(OpenShard, EveryTruncationOfAShardIsRefused) {
  const std::string whole = LlmC(20240520, 1, 3, std::string("\x01\x00\x02\x00\x03\x00", 6));
  ASSERT_TRUE(Open(whole).ok());
  for (size_t size = 4; size < whole.size(); ++size) {
    EXPECT_EQ(Open(whole.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
}

TEST(OpenShard, MissingFileIsNamed) {
  MemoryDisk disk;
  const auto shard = OpenShard(disk, "/none.bin", ShardFormat::kAuto);
  EXPECT_EQ(shard.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(shard.status().message()), HasSubstr("/none.bin"));
}

TEST(Fingerprint, IsOfTheTokensNotOfTheFormatAndSeesEachOfAFewThousand) {
  std::string payload;
  for (int i = 0; i < 6000; ++i) payload.push_back(static_cast<char>(i * 7));
  const auto print = [](const std::string& bytes) { return FingerprintOf(Open(bytes)->tokens); };
  const Hash128 whole = print(payload);
  EXPECT_EQ(print(LlmC(20240520, 1, 3000, payload)), whole);
  EXPECT_NE(print(payload.substr(2)), whole);
  for (size_t at = 0; at < payload.size(); at += 13) {
    std::string other = payload;
    other[at] = static_cast<char>(other[at] + 1);
    EXPECT_NE(print(other), whole) << at;
  }
}

TEST(Fingerprint, SeesBeginMiddleAndEndOfALargeShard) {
  const std::string payload(100000, 'x');
  const auto print = [](const std::string& bytes) { return FingerprintOf(Open(bytes)->tokens); };
  for (const size_t at : {0u, 50000u, 99999u}) {
    std::string other = payload;
    other[at] = 'y';
    EXPECT_NE(print(other), print(payload)) << at;
  }
}

// --- shards.json -----------------------------------------------------------------------

ShardIndex AnIndex() {
  ShardIndex index;
  index.tokenizer = "bytes";
  index.vocabulary = 257;
  index.separator = 256;
  index.shards["train_000000.bin"] = {1000, 256, {1, 2}};
  index.shards["val_000000.bin"] = {10, 255, {3, 4}};
  return index;
}

TEST(ShardIndex, ReadsBackWhatIsPrinted) {
  const auto index = ParseShardIndex(PrintShardIndex(AnIndex()));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(PrintShardIndex(*index), PrintShardIndex(AnIndex()));
  EXPECT_EQ(index->shards.at("val_000000.bin").maximum, 255u);
  EXPECT_EQ(index->separator, 256u);
  ShardIndex without = AnIndex();
  without.separator.reset();
  EXPECT_FALSE(ParseShardIndex(PrintShardIndex(without))->separator.has_value());
}

TEST(ShardIndex, EveryTruncationIsRefused) {
  const std::string text = PrintShardIndex(AnIndex());
  for (size_t size = 0; size + 2 < text.size(); ++size) {
    EXPECT_EQ(ParseShardIndex(text.substr(0, size)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(ShardIndex, WhatCannotBeIsRefusedAndNamed) {
  const struct {
    const char* from;
    const char* to;
    absl::StatusCode code;
    const char* says;
  } cases[] = {
      {"\"starling-shards\"", "\"something\"", absl::StatusCode::kDataLoss, "format"},
      {"\"format_version\": 1", "\"format_version\": 2", absl::StatusCode::kFailedPrecondition,
       "format version 2"},
      {"\"vocabulary\": 257", "\"vocabulary\": -1", absl::StatusCode::kDataLoss, "vocabulary"},
      {"\"vocabulary\": 257", "\"vocabulary\": 256", absl::StatusCode::kDataLoss,
       "shard 1: \"maximum\""},
      {"\"tokens\": 10,", "\"tokens\": 1e99,", absl::StatusCode::kDataLoss, "shard 2: \"tokens\""},
      {"\"tokens\": 10,", "", absl::StatusCode::kDataLoss, "shard 2: \"tokens\""},
      {"val_000000", "train_000000", absl::StatusCode::kDataLoss, "shard 2: \"name\""},
      {"\"tokenizer\": \"bytes\"", "\"tokenizer\": 3", absl::StatusCode::kDataLoss, "tokenizer"},
      {"\"shards\": [", "\"shards\": [[],", absl::StatusCode::kDataLoss, "shard 1"},
      {"0000000000000001", "000000000000000g", absl::StatusCode::kDataLoss, "fingerprint"},
  };
  for (const auto& one : cases) {
    std::string text = PrintShardIndex(AnIndex());
    const size_t at = text.find(one.from);
    ASSERT_NE(at, std::string::npos) << one.from;
    text.replace(at, std::string(one.from).size(), one.to);
    const auto index = ParseShardIndex(text);
    EXPECT_EQ(index.status().code(), one.code) << one.to;
    EXPECT_THAT(std::string(index.status().message()), HasSubstr(one.says));
  }
}

}  // namespace
}  // namespace starling
