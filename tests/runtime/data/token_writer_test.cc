#include "runtime/data/token_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/base/rng.h"
#include "runtime/data/corpus.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Tokens as they are given; how many there are is the test's choice.
class Numbers final : public Tokenizer {
 public:
  explicit Numbers(uint32_t vocabulary) : vocabulary_(vocabulary) {}
  std::string name() const override { return "numbers"; }
  uint32_t vocabulary() const override { return vocabulary_; }
  uint32_t separator() const override { return vocabulary_; }
  bool divisible() const override { return true; }
  absl::Status Encode(const char*, size_t, std::vector<uint32_t>*) const override {
    return absl::OkStatus();
  }
  std::string Decode(const std::vector<uint32_t>&) const override { return ""; }

 private:
  const uint32_t vocabulary_;
};

using Documents = std::vector<std::vector<uint32_t>>;

Documents Drawn(uint64_t seed, uint32_t vocabulary) {
  Rng rng(seed);
  Documents documents(1 + rng.Below(30));
  for (auto& document : documents) {
    document.resize(1 + rng.Below(40));
    for (uint32_t& token : document) token = static_cast<uint32_t>(rng.Below(vocabulary));
  }
  return documents;
}

absl::Status Write(MemoryDisk* disk, const Documents& documents, const Tokenizer& tokenizer,
                   const TokenWriterOptions& options, Rng* rng = nullptr) {
  auto writer = TokenWriter::Begin(disk, "/out", tokenizer, options);
  if (!writer.ok()) return writer.status();
  for (const auto& document : documents) {
    // In parts, as large documents come.
    size_t begin = 0;
    while (rng != nullptr && begin < document.size() && rng->Chance(0.5)) {
      const size_t part = rng->Below(document.size() - begin);
      if (auto s = (*writer)->Add(document.data() + begin, part, false); !s.ok()) return s;
      begin += part;
    }
    if (auto s = (*writer)->Add(document.data() + begin, document.size() - begin, true); !s.ok()) {
      return s;
    }
  }
  return (*writer)->Publish();
}

std::vector<int32_t> TokensOf(MemoryDisk* disk, const std::string& kind,
                              std::vector<uint64_t>* lengths) {
  const ShardIndex index = *ParseShardIndex(disk->files.at("/out/shards.json"));
  TokenStream stream;
  for (const auto& [name, entry] : index.shards) {
    if (name.compare(0, kind.size(), kind) != 0) continue;
    const TokenShard shard = *OpenShard(*disk, "/out/" + name, ShardFormat::kLlmC);
    EXPECT_TRUE(CheckListed(entry, shard).ok());
    lengths->push_back(shard.tokens.tokens());
    stream.Append(shard.tokens);
  }
  std::vector<int32_t> tokens(stream.size());
  EXPECT_TRUE(stream.Read(0, int64_t{1} << 31, absl::MakeSpan(tokens)).ok());
  return tokens;
}

TEST(IsForValidation, TakesTheShareSpreadOverAllDocuments) {
  for (const double share : {0.1, 0.5, 0.25, 0.003}) {
    uint64_t taken = 0;
    for (uint64_t n = 0; n < 10000; ++n) {
      taken += IsForValidation(share, n) ? 1 : 0;
      ASSERT_NEAR(static_cast<double>(taken), share * static_cast<double>(n + 1), 1.0);
    }
  }
  EXPECT_TRUE(IsForValidation(0.1, 0));
  for (uint64_t n = 0; n < 1000; ++n) EXPECT_FALSE(IsForValidation(0, n));
}

TEST(TokenWriter, DrawnDocumentsComeBackWhateverTheShardSize) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const uint32_t vocabulary = seed % 2 == 0 ? 300 : 100000;
    const Documents documents = Drawn(seed, vocabulary);
    TokenWriterOptions options;
    options.shard_tokens = 1 + seed * 3;
    options.validation = seed % 3 == 0 ? 0.2 : 0;
    MemoryDisk disk;
    Rng rng(seed);
    const absl::Status status = Write(&disk, documents, Numbers(vocabulary), options, &rng);
    if (documents.size() == 1 && options.validation > 0) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      continue;
    }
    ASSERT_TRUE(status.ok()) << status;
    std::vector<int32_t> wanted[2];
    for (size_t i = 0; i < documents.size(); ++i) {
      auto& to = wanted[IsForValidation(options.validation, i) ? 1 : 0];
      to.insert(to.end(), documents[i].begin(), documents[i].end());
    }
    for (int kind = 0; kind < 2; ++kind) {
      std::vector<uint64_t> lengths;
      ASSERT_EQ(TokensOf(&disk, kind == 0 ? "train" : "val", &lengths), wanted[kind]) << seed;
      for (size_t i = 0; i + 1 < lengths.size(); ++i) EXPECT_EQ(lengths[i], options.shard_tokens);
    }
    EXPECT_EQ(disk.Exists("/out.tmp"), false);
  }
}

TEST(TokenWriter, IndexSaysVocabularySeparatorAndLargestToken) {
  MemoryDisk disk;
  TokenWriterOptions options;
  options.shard_tokens = 2;
  ASSERT_TRUE(Write(&disk, {{1, 5, 2}}, Numbers(300), options).ok());
  ShardIndex index = *ParseShardIndex(disk.files.at("/out/shards.json"));
  EXPECT_EQ(index.vocabulary, 301u);
  EXPECT_EQ(index.separator, 300u);
  EXPECT_EQ(index.shards.at("train_000000.bin").maximum, 5u);
  EXPECT_EQ(index.shards.at("train_000001.bin").maximum, 2u);
  disk.files.clear();
  disk.folders.erase("/out");
  options.separate = false;
  ASSERT_TRUE(Write(&disk, {{1, 5, 2}}, Numbers(300), options).ok());
  index = *ParseShardIndex(disk.files.at("/out/shards.json"));
  EXPECT_EQ(index.vocabulary, 300u);
  EXPECT_FALSE(index.separator.has_value());
}

TEST(TokenWriter, TokensBeyondSixteenBitsTakeThirtyTwo) {
  for (const uint32_t vocabulary : {65535u, 65536u}) {  // and one more for the separator
    MemoryDisk disk;
    ASSERT_TRUE(Write(&disk, {{1, 2, 3}}, Numbers(vocabulary), {}).ok());
    const auto shard = OpenShard(disk, "/out/train_000000.bin", ShardFormat::kAuto);
    EXPECT_EQ(shard->tokens.token_bytes, vocabulary == 65535 ? 2u : 4u);
  }
}

TEST(TokenWriter, WhatIsThereIsNeverOverwritten) {
  MemoryDisk disk;
  disk.folders.insert("/out");
  disk.files["/out/precious"] = "x";
  const auto before = disk.files;
  const absl::Status status = Write(&disk, {{1}}, Numbers(300), {});
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/out is not empty"));
  EXPECT_EQ(disk.files, before);
  disk.files = {{"/out.tmp", "x"}};
  EXPECT_EQ(Write(&disk, {{1}}, Numbers(300), {}).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(disk.files.size(), 1u);
  disk.files.clear();  // an empty folder is no loss
  EXPECT_TRUE(Write(&disk, {{1}}, Numbers(300), {}).ok());
}

TEST(TokenWriter, FailureAtEveryCallLeavesNothingOrAll) {
  const Documents documents = Drawn(3, 300);
  TokenWriterOptions options;
  options.shard_tokens = 50;
  options.validation = 0.2;
  uint64_t failures = 0;
  for (uint64_t call = 0;; ++call) {
    MemoryDisk disk;
    disk.calls_until_failure = call;
    const absl::Status status = Write(&disk, documents, Numbers(300), options);
    EXPECT_FALSE(disk.Exists("/out.tmp")) << call;
    if (disk.changing_calls <= call) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    ++failures;
    EXPECT_FALSE(status.ok()) << call;
    // Only the sync of the folder above comes after the one rename.
    if (disk.Exists("/out")) {
      EXPECT_TRUE(disk.files.count("/out/shards.json") == 1) << call;
    } else {
      EXPECT_THAT(disk.files, IsEmpty()) << call;
    }
  }
  EXPECT_GT(failures, 20u);
}

TEST(TokenWriter, FullDiskIsSaidAndLeavesNothing) {
  const Documents documents(40, std::vector<uint32_t>(1000, 7));
  MemoryDisk disk;
  disk.budget_bytes = 30000;
  EXPECT_EQ(Write(&disk, documents, Numbers(300), {}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(disk.files, IsEmpty());
}

TEST(TokenWriter, NothingToTrainOnIsRefused) {
  MemoryDisk disk;
  TokenWriterOptions options;
  EXPECT_THAT(std::string(Write(&disk, {}, Numbers(300), options).message()),
              HasSubstr("no text to train on"));
  options.validation = 0.1;
  EXPECT_THAT(std::string(Write(&disk, {{1, 2}}, Numbers(300), options).message()),
              HasSubstr("one document only"));
  EXPECT_THAT(disk.files, IsEmpty());
}

}  // namespace
}  // namespace starling
