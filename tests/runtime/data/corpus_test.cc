#include "runtime/data/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/data/shard_index.h"
#include "runtime/data/token_shard.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Raw(const std::vector<uint32_t>& tokens) {
  std::string bytes;
  for (const uint32_t token : tokens) {
    bytes.push_back(static_cast<char>(token));
    bytes.push_back(static_cast<char>(token >> 8));
  }
  return bytes;
}

std::vector<int32_t> All(const TokenStream& stream) {
  std::vector<int32_t> tokens(stream.size());
  EXPECT_TRUE(stream.Read(0, 65536, absl::MakeSpan(tokens)).ok());
  return tokens;
}

class CorpusTest : public ::testing::Test {
 protected:
  CorpusTest() {
    disk_.files["/d/a.bin"] = Raw({1, 2, 3});
    disk_.files["/d/b.bin"] = Raw({4, 5});
    disk_.files["/d/c.bin"] = Raw({6, 7, 8, 9});
    config_.data.validation = 0.3;
  }

  // The shards.json of /d, of what is in it.
  ShardIndex IndexOf(const std::vector<std::string>& names) {
    ShardIndex index;
    index.tokenizer = "bytes";
    index.vocabulary = 257;
    for (const std::string& name : names) {
      const TokenShard shard = *OpenShard(disk_, "/d/" + name, ShardFormat::kAuto);
      index.shards[name] = {shard.tokens.tokens(), 9, FingerprintOf(shard.tokens)};
    }
    return index;
  }
  void WriteIndex(const ShardIndex& index) {
    disk_.files["/d/shards.json"] = PrintShardIndex(index);
  }

  absl::StatusOr<Corpus> Load(const std::vector<std::string>& train,
                              const std::vector<std::string>& validation = {}) {
    return LoadShards(disk_, config_, train, validation);
  }
  absl::StatusOr<Corpus> LoadAll() { return Load({"/d/a.bin", "/d/b.bin", "/d/c.bin"}); }

  MemoryDisk disk_;
  RunConfig config_;
};

TEST_F(CorpusTest, LastShardsAreForValidation) {
  const auto corpus = LoadAll();
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(All(corpus->train), (std::vector<int32_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(All(corpus->validation), (std::vector<int32_t>{6, 7, 8, 9}));
  EXPECT_EQ(corpus->train_files, 2u);
  EXPECT_EQ(corpus->validation_files, 1u);
  EXPECT_FALSE(corpus->tokens_are_bytes());  // nothing says so
}

TEST_F(CorpusTest, SingleShardIsCutAtItsTokens) {
  const auto corpus = Load({"/d/c.bin"});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(All(corpus->train), (std::vector<int32_t>{6, 7}));
  EXPECT_EQ(All(corpus->validation), (std::vector<int32_t>{8, 9}));
  EXPECT_EQ(corpus->validation_files, 0u);
}

TEST_F(CorpusTest, NamedValidationShardsAreNotTrainedOn) {
  const auto corpus = Load({"/d/a.bin", "/d/b.bin", "/d/c.bin"}, {"/d/a.bin"});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(All(corpus->train), (std::vector<int32_t>{4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(All(corpus->validation), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(Load({"/d/a.bin"}, {"/d/a.bin"}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CorpusTest, IdentityIsOfTheTokensAndTheirSplitNotOfNames) {
  const std::string whole = LoadAll()->sha256;
  EXPECT_EQ(whole.size(), 64u);
  disk_.files["/e/z.bin"] = disk_.files["/d/c.bin"];
  EXPECT_EQ(Load({"/d/a.bin", "/d/b.bin", "/e/z.bin"})->sha256, whole);
  EXPECT_NE(Load({"/d/b.bin", "/d/a.bin", "/d/c.bin"})->sha256, whole);
  config_.data.validation = 0.5;
  EXPECT_NE(LoadAll()->sha256, whole);
  config_.data.validation = 0.3;
  disk_.files["/d/b.bin"] = Raw({4, 6});
  EXPECT_NE(LoadAll()->sha256, whole);
}

TEST_F(CorpusTest, ListedShardsSayTheirTokenizer) {
  WriteIndex(IndexOf({"a.bin", "b.bin", "c.bin"}));
  config_.model.vocabulary = 257;
  const auto corpus = LoadAll();
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_TRUE(corpus->tokens_are_bytes());
}

TEST_F(CorpusTest, MistakesAreNamedWithKeyFileAndWhatToDo) {
  const auto expect = [&](absl::StatusCode code, const std::string& where, const char* says) {
    const auto corpus = LoadAll();
    EXPECT_EQ(corpus.status().code(), code) << says;
    EXPECT_THAT(std::string(corpus.status().message()),
                AllOf(StartsWith("data.shards: " + where + ": "), HasSubstr(says)));
  };
  const std::string b = disk_.files["/d/b.bin"];
  const ShardIndex index = IndexOf({"a.bin", "b.bin", "c.bin"});
  // Found without shards.json, in what is read of each shard at the start.
  disk_.files["/d/b.bin"] = Raw({4, 256});
  expect(absl::StatusCode::kInvalidArgument, "/d/b.bin",
         "token 1 is 256, not below model.vocabulary = 256; set it");
  disk_.files["/d/b.bin"] = b;
  WriteIndex(index);
  expect(absl::StatusCode::kInvalidArgument, "/d/shards.json",
         "the vocabulary of these shards is 257, more than model.vocabulary = 256; set "
         "model.vocabulary = 257 or more");
  config_.model.vocabulary = 257;
  EXPECT_TRUE(LoadAll().ok());
  config_.data.tokenizer = "gpt2";
  expect(absl::StatusCode::kInvalidArgument, "/d/shards.json",
         "of tokenizer \"bytes\", but data.tokenizer says \"gpt2\"");
  config_.data.tokenizer = "";
  disk_.files["/d/b.bin"] = Raw({4, 5, 5});
  expect(absl::StatusCode::kDataLoss, "/d/b.bin", "holds 3 tokens, but shards.json says 2");
  disk_.files["/d/b.bin"] = Raw({5, 4});
  expect(absl::StatusCode::kDataLoss, "/d/b.bin", "not those that shards.json lists");
  disk_.files["/d/b.bin"] = b.substr(1);
  expect(absl::StatusCode::kDataLoss, "/d/b.bin", "3 bytes are no whole number");
  disk_.files["/d/b.bin"] = b;
  WriteIndex(IndexOf({"a.bin", "c.bin"}));
  expect(absl::StatusCode::kInvalidArgument, "/d/b.bin", "is not in the shards.json beside it");
  disk_.files["/d/shards.json"] = "{}";
  expect(absl::StatusCode::kDataLoss, "/d/shards.json", "not a list of shards");
}

TEST_F(CorpusTest, ShardsOfTwoTokenizersAreNotMixed) {
  WriteIndex(IndexOf({"a.bin", "b.bin", "c.bin"}));
  config_.model.vocabulary = 257;
  disk_.files["/e/z.bin"] = Raw({1});
  ShardIndex other;
  other.tokenizer = "gpt2";
  other.vocabulary = 200;
  other.shards["z.bin"] = {1, 1, FingerprintOf(OpenShard(disk_, "/e/z.bin", {})->tokens)};
  disk_.files["/e/shards.json"] = PrintShardIndex(other);
  const auto corpus = Load({"/d/a.bin", "/e/z.bin"});
  EXPECT_EQ(corpus.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(corpus.status().message()),
              HasSubstr("of tokenizer \"gpt2\", but /d/shards.json says \"bytes\""));
}

TEST_F(CorpusTest, LargeShardIsOnlySampledAtTheStart) {
  // A token between the sampled places is found when its window is read, not before.
  std::vector<uint32_t> tokens(20000, 7);
  tokens[5000] = 300;
  disk_.files["/d/a.bin"] = Raw(tokens);
  config_.data.validation = 0;
  const auto corpus = Load({"/d/a.bin"});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  std::vector<int32_t> window(10);
  EXPECT_TRUE(corpus->train.Read(0, 256, absl::MakeSpan(window)).ok());
  EXPECT_FALSE(corpus->train.Read(4995, 256, absl::MakeSpan(window)).ok());
}

}  // namespace
}  // namespace starling
