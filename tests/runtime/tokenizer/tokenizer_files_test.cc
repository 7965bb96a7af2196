#include "runtime/tokenizer/tokenizer_files.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/tokenizer_json.h"
#include "tests/testing/memory_disk.h"

namespace starling {
namespace {

using starling::testing::MemoryDisk;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Json = nlohmann::ordered_json;

// A tokenizer.json as Hugging Face writes it: 256 bytes in GPT-2's order, then "ab" and " ab".
Json Example() {
  Json vocab = Json::object();
  for (const unsigned char byte : BytesInAlphabetOrder()) {
    vocab[ToByteAlphabet(std::string(1, static_cast<char>(byte)))] = vocab.size();
  }
  vocab["ab"] = 256;
  vocab
      ["\xc4\xa0"
       "ab"] = 257;
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens",
           {{{"id", 258},
             {"content", "<|endoftext|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", {"a b", "\xc4\xa0 ab"}}}}};
}

class TokenizerFilesTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Tokenizer>> Open(const Json& json) {
    disk_.files["/t/tokenizer.json"] = json.dump();
    return OpenTokenizer(disk_, "/t/tokenizer.json");
  }
  std::vector<uint32_t> Encode(const Json& json, const std::string& text) {
    const auto tokenizer = Open(json);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::vector<uint32_t> tokens;
    if (tokenizer.ok()) {
      EXPECT_TRUE((*tokenizer)->Encode(text.data(), text.size(), &tokens).ok());
    }
    return tokens;
  }
  void ExpectRefused(const Json& json, absl::StatusCode code, const std::string& says) {
    const auto tokenizer = Open(json);
    EXPECT_EQ(tokenizer.status().code(), code) << says;
    EXPECT_THAT(std::string(tokenizer.status().message()),
                AllOf(StartsWith("/t/tokenizer.json: "), HasSubstr(says)));
  }

  MemoryDisk disk_;
};

TEST_F(TokenizerFilesTest, ReadsGpt2sShape) {
  EXPECT_THAT(Encode(Example(), "ab ab<|endoftext|>!"), ElementsAre(256, 257, 258, 0));
  const auto tokenizer = Open(Example());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->vocabulary(), 259u);
  EXPECT_EQ((*tokenizer)->separator(), 258u);
  EXPECT_THAT((*tokenizer)->prefix(), IsEmpty());
  EXPECT_EQ((*tokenizer)->Decode({257, 0, 258}), " ab!");
  EXPECT_EQ((*tokenizer)->description(), "byte-level BPE, 2 merges, split by GPT-2's pattern");
}

TEST_F(TokenizerFilesTest, MergesMayBePairs) {
  Json json = Example();
  json["model"]["merges"] = Json::array({Json::array({"a", "b"}), Json::array({"\xc4\xa0", "ab"})});
  EXPECT_THAT(Encode(json, "ab ab"), ElementsAre(256, 257));
}

TEST_F(TokenizerFilesTest, ReadsLlama3sShape) {
  Json json = Example();
  const std::string pattern =
      R"((?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+)";
  json["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"},
                              {"pattern", {{"Regex", pattern}}},
                              {"behavior", "Isolated"},
                              {"invert", false}},
                             {{"type", "ByteLevel"},
                              {"add_prefix_space", false},
                              {"trim_offsets", true},
                              {"use_regex", false}}}}};
  json["added_tokens"] = {
      {{"id", 258}, {"content", "<|begin_of_text|>"}, {"special", true}, {"normalized", false}},
      {{"id", 259}, {"content", "<|end_of_text|>"}, {"special", true}, {"normalized", false}}};
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single",
          {{{"SpecialToken", {{"id", "<|begin_of_text|>"}, {"type_id", 0}}}},
           {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
         {"pair", Json::array()},
         {"special_tokens",
          {{"<|begin_of_text|>",
            {{"id", "<|begin_of_text|>"}, {"ids", {258}}, {"tokens", {"<|begin_of_text|>"}}}}}}}}}};
  json["model"]["ignore_merges"] = true;
  json["model"]["merges"] = Json::array();
  EXPECT_THAT(Encode(json, "ab ab"), ElementsAre(256, 257));
  const auto tokenizer = Open(json);
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_THAT((*tokenizer)->prefix(), ElementsAre(258));
  EXPECT_EQ((*tokenizer)->separator(), 259u);
}

TEST_F(TokenizerFilesTest, DigitsAndLiteralPatternsSplitToo) {
  Json json = Example();
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "Split"}, {"pattern", {{"String", "a("}}}, {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  json["model"]["vocab"]["12"] = 300;
  json["model"]["merges"].push_back("1 2");
  EXPECT_THAT(Encode(json, "12ab"), ElementsAre('1' - '!', '2' - '!', 256));
}

TEST_F(TokenizerFilesTest, NormalizerIsRead) {
  Json json = Example();
  json["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = Open(json);
  ASSERT_TRUE(tokenizer.ok());
  const auto tokens = Encode(json, "e\xcc\x81");
  EXPECT_EQ((*tokenizer)->Decode(tokens), "\xc3\xa9");
}

TEST_F(TokenizerFilesTest, VocabAndMergesAreTheSameTokenizer) {
  disk_.files["/t/vocab.json"] = Example()["model"]["vocab"].dump();
  disk_.files["/t/merges.txt"] = "#version: 0.2\na b\r\n\n\xc4\xa0 ab\n";
  disk_.folders.insert("/t");
  for (const char* path : {"/t", "/t/", "/t/vocab.json", "/t/merges.txt"}) {
    const auto tokenizer = OpenTokenizer(disk_, path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::vector<uint32_t> tokens;
    EXPECT_TRUE((*tokenizer)->Encode("ab ab", 5, &tokens).ok());
    EXPECT_THAT(tokens, ElementsAre(256, 257));
    EXPECT_EQ((*tokenizer)->separator(), 258u);  // nothing says what ends a text
  }
}

TEST_F(TokenizerFilesTest, ConfigSaysWhatBeginsAndEndsAText) {
  disk_.files["/t/tokenizer_config.json"] =
      R"({"bos_token": {"content": "ab"}, "eos_token": "!", "add_bos_token": true})";
  const auto tokenizer = Open(Example());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->separator(), 0u);
  EXPECT_THAT((*tokenizer)->prefix(), ElementsAre(256));
  EXPECT_EQ((*tokenizer)->files().size(), 2u);
  for (const char* bad :
       {"{", "[]", R"({"eos_token": "</s>"})", R"({"bos_token": "<s>", "add_bos_token": true})"}) {
    disk_.files["/t/tokenizer_config.json"] = bad;
    EXPECT_FALSE(Open(Example()).ok()) << bad;
  }
}

TEST_F(TokenizerFilesTest, WrittenTokenizerIsTheSame) {
  const auto first = Open(Example());
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(WriteTokenizer(disk_, **first, "/run/tokenizer").ok());
  const auto second = OpenTokenizer(disk_, "/run/tokenizer");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->name(), (*first)->name());
  EXPECT_EQ(WriteTokenizer(disk_, **first, "/run/tokenizer").code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(TokenizerFilesTest, PrintedFilesAreRead) {
  std::vector<std::string> tokens;
  for (const unsigned char byte : BytesInAlphabetOrder()) {
    tokens.emplace_back(1, static_cast<char>(byte));
  }
  tokens.emplace_back("a\"");
  const Gpt2Files files = PrintGpt2Files(tokens, {{"a", "\""}}, "<|endoftext|>");
  disk_.files["/one/tokenizer.json"] = files.tokenizer_json;
  disk_.files["/two/vocab.json"] = files.vocab_json;
  disk_.files["/two/merges.txt"] = files.merges_txt;
  for (const char* path : {"/one/tokenizer.json", "/two/vocab.json"}) {
    const auto tokenizer = OpenTokenizer(disk_, path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ((*tokenizer)->separator(), 257u);
    EXPECT_EQ((*tokenizer)->vocabulary(), 258u);
    std::vector<uint32_t> out;
    EXPECT_TRUE((*tokenizer)->Encode("!<|endoftext|>", 14, &out).ok());
    EXPECT_THAT(out, ElementsAre(0, 257));
  }
}

TEST_F(TokenizerFilesTest, WhatIsNotSupportedIsNamed) {
  const auto changed = [](const std::function<void(Json&)>& change) {
    Json json = Example();
    change(json);
    return json;
  };
  constexpr auto kNo = absl::StatusCode::kInvalidArgument;
  const auto split = [](const char* behavior, bool invert) {
    return Json{{"type", "Split"},
                {"pattern", {{"Regex", "a"}}},
                {"behavior", behavior},
                {"invert", invert}};
  };
  ExpectRefused(changed([](Json& j) { j["model"]["type"] = "WordPiece"; }), kNo,
                "model.type \"WordPiece\" (only \"BPE\" is) is not supported");
  ExpectRefused(changed([](Json& j) { j["model"]["dropout"] = 0.1; }), kNo, "model.dropout 0.1");
  ExpectRefused(changed([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }), kNo,
                "model.end_of_word_suffix \"</w>\"");
  ExpectRefused(changed([](Json& j) { j["model"]["byte_fallback"] = true; }), kNo,
                "model.byte_fallback");
  ExpectRefused(changed([](Json& j) {
                  j["normalizer"] = {{"type", "Lowercase"}};
                }),
                kNo, "normalizer \"Lowercase\"");
  ExpectRefused(changed([](Json& j) { j["pre_tokenizer"] = nullptr; }), kNo,
                "whose pre_tokenizer is not \"ByteLevel\"");
  ExpectRefused(changed([](Json& j) {
                  j["pre_tokenizer"] = {{"type", "Metaspace"}};
                }),
                kNo, "pre_tokenizer \"Metaspace\"");
  ExpectRefused(changed([&](Json& j) { j["pre_tokenizer"] = split("Removed", false); }), kNo,
                "behavior \"Removed\"");
  ExpectRefused(changed([&](Json& j) { j["pre_tokenizer"] = split("Isolated", true); }), kNo,
                "\"Split\" with invert");
  ExpectRefused(changed([](Json& j) {
                  j["decoder"] = {{"type", "WordPiece"}};
                }),
                kNo, "decoder \"WordPiece\"");
  ExpectRefused(changed([](Json& j) {
                  j["post_processor"] = {{"type", "RobertaProcessing"}};
                }),
                kNo, "post_processor \"RobertaProcessing\"");
  ExpectRefused(changed([](Json& j) { j["added_tokens"][0]["lstrip"] = true; }), kNo,
                "lstrip of the added token \"<|endoftext|>\"");
  ExpectRefused(changed([&](Json& j) {
                  j["pre_tokenizer"] = {
                      {"type", "Sequence"},
                      {"pretokenizers", {{{"type", "ByteLevel"}}, split("Isolated", false)}}};
                }),
                kNo, "pre_tokenizer \"Split\" behind \"ByteLevel\"");
}

TEST_F(TokenizerFilesTest, DamagedTokenizerIsRefusedWithCause) {
  const auto changed = [](const std::function<void(Json&)>& change) {
    Json json = Example();
    change(json);
    return json;
  };
  constexpr auto kBad = absl::StatusCode::kDataLoss;
  ExpectRefused(Json::array(), kBad, "it is no JSON object");
  ExpectRefused(changed([](Json& j) { j.erase("model"); }), kBad, "it has no \"model\"");
  ExpectRefused(changed([](Json& j) { j["model"]["vocab"] = "x"; }), kBad, "it has no vocabulary");
  ExpectRefused(changed([](Json& j) { j["model"].erase("merges"); }), kBad, "no list \"merges\"");
  ExpectRefused(changed([](Json& j) { j["model"]["vocab"]["ab"] = 5; }), kBad, "both have id 5");
  ExpectRefused(changed([](Json& j) { j["model"]["vocab"]["ab"] = -1; }), kBad,
                "the id of \"ab\" is -1");
  ExpectRefused(changed([](Json& j) { j["model"]["vocab"]["ab"] = 1e300; }), kBad,
                "the id of \"ab\" is 1e+300");
  ExpectRefused(changed([](Json& j) { j["model"]["merges"][1] = "ab"; }), kBad,
                "merge 2 (\"ab \") is not two tokens");
  ExpectRefused(changed([](Json& j) { j["model"]["merges"][0] = "a b c"; }), kBad, "merge 1");
  ExpectRefused(changed([](Json& j) { j["model"]["merges"][0] = 7; }), kBad, "merge 1 is 7");
  ExpectRefused(changed([](Json& j) { j["model"]["ignore_merges"] = "yes"; }), kBad,
                "\"ignore_merges\" is \"yes\"");
  ExpectRefused(changed([](Json& j) { j["added_tokens"] = 3; }), kBad, "\"added_tokens\" is no");
  ExpectRefused(changed([](Json& j) { j["added_tokens"][0]["content"] = ""; }), kBad,
                "added token 1 has no \"content\"");
  ExpectRefused(changed([](Json& j) { j["added_tokens"][0]["id"] = 3; }), kBad, "both have id 3");
  ExpectRefused(changed([](Json& j) { j["model"]["vocab"]["<|endoftext|>"] = 299; }), kBad,
                "\"<|endoftext|>\" has two ids, 258 and 299");
  ExpectRefused(changed([](Json& j) { j["normalizer"] = 4; }), kBad, "\"normalizer\" has no");
  ExpectRefused(changed([](Json& j) {
                  j["post_processor"] = {{"type", "TemplateProcessing"}};
                }),
                kBad, "has no \"single\"");
  ExpectRefused(changed([](Json& j) { j["model"]["vocab"].erase("ab"); }),
                absl::StatusCode::kInvalidArgument, "merge 1 (\"a b\") names \"ab\"");
  ExpectRefused(
      changed([](Json& j) {
        j["pre_tokenizer"] = {
            {"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}},
              {{"type", "ByteLevel"}}}}};
      }),
      absl::StatusCode::kInvalidArgument, "the pattern \"(\" is not understood");
}

TEST_F(TokenizerFilesTest, EveryCutOfAFileIsRefused) {
  const std::string whole = Example().dump();
  for (size_t size = 0; size < whole.size(); size += 7) {
    disk_.files["/t/tokenizer.json"] = whole.substr(0, size);
    EXPECT_EQ(OpenTokenizer(disk_, "/t/tokenizer.json").status().code(),
              absl::StatusCode::kDataLoss);
  }
  disk_.files["/t/tokenizer.json"] = "{\"a\": \"\\ud800\"}";
  EXPECT_FALSE(OpenTokenizer(disk_, "/t/tokenizer.json").ok());
}

TEST_F(TokenizerFilesTest, MissingFilesAreNamed) {
  disk_.folders.insert("/empty");
  disk_.files["/half/vocab.json"] = "{\"a\": 0}";
  disk_.folders.insert("/half");
  disk_.files["/x.txt"] = "";
  const struct {
    const char* path;
    absl::StatusCode code;
    const char* says;
  } cases[] = {
      {"/nowhere", absl::StatusCode::kNotFound, "there is no tokenizer \"/nowhere\""},
      {"gpt2", absl::StatusCode::kNotFound, "there is \"bytes\", or give a folder or file"},
      {"/empty", absl::StatusCode::kNotFound, "/empty: has no tokenizer.json"},
      {"/half", absl::StatusCode::kNotFound, "/half/merges.txt"},
      {"/x.txt", absl::StatusCode::kInvalidArgument, "/x.txt: a tokenizer is a folder"},
  };
  for (const auto& one : cases) {
    const auto tokenizer = OpenTokenizer(disk_, one.path);
    EXPECT_EQ(tokenizer.status().code(), one.code) << one.path;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(one.says));
  }
  EXPECT_TRUE(OpenTokenizer(disk_, "bytes").ok());
}

TEST_F(TokenizerFilesTest, ModelBesideAnUnsupportedJsonIsOffered) {
  Json json = Example();
  json["model"]["byte_fallback"] = true;
  disk_.files["/t/tokenizer.model"] = "x";
  ExpectRefused(json, absl::StatusCode::kInvalidArgument,
                "name /t/tokenizer.model to use that one");
}

}  // namespace
}  // namespace starling
