#include "runtime/data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/base/rng.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<Tokenizer> Bytes() { return std::move(MakeTokenizer("bytes")).value(); }

// A tokenizer that may not be cut: the number of bytes of a document.
class Counting final : public Tokenizer {
 public:
  std::string name() const override { return "counting"; }
  uint32_t vocabulary() const override { return 1000; }
  uint32_t separator() const override { return 0; }
  bool divisible() const override { return false; }
  absl::Status Encode(const char* text, size_t bytes,
                      std::vector<uint32_t>* tokens) const override {
    if (bytes > 0 && text[0] == '!') return absl::InvalidArgumentError("no exclamations");
    tokens->push_back(static_cast<uint32_t>(bytes));
    return absl::OkStatus();
  }
  std::string Decode(const std::vector<uint32_t>& tokens) const override { return ""; }
};

struct Whole {
  std::vector<std::string> documents;  // decoded, each without its separator
  std::string rest;                    // after the last document's end
  uint64_t lines = 0;
  std::string problem;  // "line: what"
};

// All chunks of a file, put together.
Whole Tokenize(const std::string& text, bool json_lines, uint64_t chunk_bytes,
               DocumentOptions options = {}) {
  options.chunk_bytes = chunk_bytes;
  const auto tokenizer = Bytes();
  const Blob file = Blob::OfString(text);
  Whole whole;
  for (const FileChunk& chunk : ChunksOf(text.size(), json_lines, *tokenizer, options)) {
    const TokenizedChunk part = TokenizeChunk(*tokenizer, file, json_lines, chunk, options);
    size_t begin = 0;
    for (const size_t end : part.document_ends) {
      const auto first = part.tokens.begin();
      whole.documents.push_back(whole.rest + tokenizer->Decode({first + static_cast<long>(begin),
                                                                first + static_cast<long>(end)}));
      whole.rest.clear();
      begin = end;
    }
    whole.rest +=
        tokenizer->Decode({part.tokens.begin() + static_cast<long>(begin), part.tokens.end()});
    if (!part.problem.empty()) {
      whole.problem = std::to_string(whole.lines + part.problem_line) + ": " + part.problem;
      break;
    }
    whole.lines += part.lines;
  }
  return whole;
}

TEST(Documents, NamesTellJsonLines) {
  EXPECT_TRUE(IsJsonLines("a/b.jsonl"));
  EXPECT_TRUE(IsJsonLines("b.ndjson"));
  EXPECT_FALSE(IsJsonLines("b.json"));
  EXPECT_FALSE(IsJsonLines("jsonl/b.txt"));
}

TEST(Documents, TextFileIsOneDocumentWhateverTheChunks) {
  for (uint64_t chunk : {1, 2, 3, 100}) {
    const Whole whole = Tokenize("one\ntwo\n", false, chunk);
    EXPECT_THAT(whole.documents, ElementsAre("one\ntwo\n"));
    EXPECT_EQ(whole.rest, "");
  }
  EXPECT_TRUE(Tokenize("", false, 10).documents.empty());
}

TEST(Documents, SeparatorFollowsEachDocumentIfWanted) {
  const auto tokenizer = Bytes();
  const Blob file = Blob::OfString("hi");
  DocumentOptions options;
  EXPECT_THAT(TokenizeChunk(*tokenizer, file, false, {0, 2}, options).tokens,
              ElementsAre('h', 'i', 256));
  options.separate = false;
  EXPECT_THAT(TokenizeChunk(*tokenizer, file, false, {0, 2}, options).tokens,
              ElementsAre('h', 'i'));
}

TEST(Documents, TextIsNotCutWhereTheTokenizerIsNotDivisible) {
  const Counting counting;
  DocumentOptions options;
  options.chunk_bytes = 2;
  ASSERT_EQ(ChunksOf(5, false, counting, options).size(), 1u);
  EXPECT_EQ(ChunksOf(5, true, counting, options).size(), 3u);
  EXPECT_THAT(TokenizeChunk(counting, Blob::OfString("12345"), false, {0, 5}, options).tokens,
              ElementsAre(5, 0));
  EXPECT_EQ(TokenizeChunk(counting, Blob::OfString("!2345"), false, {0, 5}, options).problem,
            "no exclamations");
}

TEST(Documents, JsonLinesGiveTheTextOfTheirKeyOnly) {
  DocumentOptions options;
  const std::string lines =
      "{\"text\": \"one\"}\n"
      "\n"
      "  \r\n"
      "{\"id\": 7, \"meta\": {\"text\": \"inner\"}, \"list\": [\"x\"], \"text\": "
      "\"t\\u00e4\\n\"}\r\n"
      "{\"text\": \"\"}\n"
      "{\"text\": \"first\", \"text\": \"second\"}\n"
      "{\"title\": \"other\", \"text\": \"last\"}";
  EXPECT_THAT(Tokenize(lines, true, 1000).documents,
              ElementsAre("one", "t\xc3\xa4\n", "second", "last"));
  options.text_key = "title";
  EXPECT_THAT(Tokenize("{\"text\": \"no\", \"title\": \"yes\"}", true, 1000, options).documents,
              ElementsAre("yes"));
}

TEST(Documents, DrawnJsonLinesAreTheSameInChunksOfAnySize) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Rng rng(seed);
    std::string file;
    std::vector<std::string> texts;
    const uint64_t lines = rng.Below(12);
    for (uint64_t i = 0; i < lines; ++i) {
      if (rng.Chance(0.2)) {
        file += rng.Chance(0.5) ? "\n" : "  \n";
        continue;
      }
      texts.push_back(std::string(1 + rng.Below(30), static_cast<char>('a' + rng.Below(26))));
      file += "{\"text\": \"" + texts.back() + "\"}\n";
    }
    if (!file.empty() && rng.Chance(0.5)) file.pop_back();  // no newline at the end
    for (uint64_t chunk = 1; chunk < file.size() + 2; ++chunk) {
      const Whole whole = Tokenize(file, true, chunk);
      ASSERT_EQ(whole.documents, texts) << "seed " << seed << " chunk " << chunk;
      ASSERT_EQ(whole.lines, Tokenize(file, true, 1 << 20).lines);
      ASSERT_EQ(whole.problem, "");
    }
  }
}

TEST(Documents, BadLineIsCountedAndNamedInChunksOfAnySize) {
  const struct {
    const char* line;
    const char* says;
  } cases[] = {
      {"{\"text\": \"cut off", "is no JSON"},
      {"{\"text\": \"two\"} {\"text\": \"objects\"}", "is no JSON"},
      {"{'text': 'quotes'}", "is no JSON, at byte 2"},
      {"[\"text\"]", "is no JSON object"},
      {"\"text\"", "is no JSON object"},
      {"{\"txet\": \"x\"}", "has no \"text\""},
      {"{\"meta\": {\"text\": \"x\"}}", "has no \"text\""},
      {"{}", "has no \"text\""},
      {"{\"text\": 5}", "\"text\" is no text"},
      {"{\"text\": null}", "\"text\" is no text"},
      {"{\"text\": [\"x\"]}", "\"text\" is no text"},
      {"{\"text\": {\"text\": \"x\"}}", "\"text\" is no text"},
      {"{\"text\": \"a\xff\xfe\"}", "is no UTF-8"},
      {"{\"text\": \"a\xc3\"}", "is no UTF-8"},
      {"{\"text\": \"\\ud800\"}", "is no JSON"},
  };
  for (const auto& one : cases) {
    const std::string file =
        "{\"text\": \"good\"}\n\n" + std::string(one.line) + "\n{\"text\": \"more\"}\n";
    for (uint64_t chunk : {1, 5, 16, 17, 18, 19, 1000}) {
      const Whole whole = Tokenize(file, true, chunk);
      EXPECT_THAT(whole.problem, testing::StartsWith("3: ")) << one.line << " chunk " << chunk;
      EXPECT_THAT(whole.problem, HasSubstr(one.says));
      EXPECT_EQ(whole.problem.find('\n'), std::string::npos);
      EXPECT_THAT(whole.documents, ElementsAre("good"));
    }
  }
}

TEST(ByteTokenizer, GivesEveryByteAndLeavesSeparatorsOut) {
  const auto tokenizer = Bytes();
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  std::vector<uint32_t> tokens;
  ASSERT_TRUE(tokenizer->Encode(all.data(), all.size(), &tokens).ok());
  EXPECT_EQ(tokens.size(), 256u);
  for (const uint32_t token : tokens) EXPECT_LT(token, tokenizer->vocabulary());
  tokens.insert(tokens.begin() + 5, tokenizer->separator());
  EXPECT_EQ(tokenizer->Decode(tokens), all);
  EXPECT_EQ(MakeTokenizer("morse").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace starling
