// Our reading of sentencepiece models against the original, over models that it trains here.
#include "runtime/tokenizer/sentencepiece.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/rng.h"
#include "runtime/tokenizer/utf8.h"
#include "tests/runtime/tokenizer/sentencepiece_oracle.h"

namespace starling {
namespace {

using starling::testing::SentencePieceOracle;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Fields of protocol buffers, put together by hand.
std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  return bytes + static_cast<char>(value);
}
std::string Number(uint64_t field, uint64_t value) { return Varint(field << 3) + Varint(value); }
std::string Bytes(uint64_t field, const std::string& value) {
  return Varint(field << 3 | 2) + Varint(value.size()) + value;
}
std::string Float(uint64_t field, float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  std::string bytes = Varint(field << 3 | 5);
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(bits >> (8 * i)));
  return bytes;
}
std::string Piece(const std::string& text, float score, uint64_t type = 1) {
  return Bytes(1, Bytes(1, text) + Float(2, score) + Number(3, type));
}
std::string Reserved() { return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3); }
const char kS[] = "\xe2\x96\x81";

absl::StatusOr<std::unique_ptr<Tokenizer>> Make(const std::string& bytes, bool begin = false) {
  auto model = ParseSentencePieceModel(bytes);
  if (!model.ok()) return model.status();
  return MakeSentencePiece(*std::move(model), begin, {{"tokenizer.model", bytes}});
}

std::vector<uint32_t> Encode(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<uint32_t> tokens;
  EXPECT_TRUE(tokenizer.Encode(text.data(), text.size(), &tokens).ok());
  return tokens;
}

std::vector<std::string> Sentences() {
  const char* const words[] = {
      "the",     "quick",       "brown",        "fox",
      "jumps",   "over",        "lazy",         "dog",
      "streams", "of",          "tokens",       "42",
      "1999",    "caf\xc3\xa9", "na\xc3\xafve", "\xe6\x97\xa5\xe6\x9c\xac",
      "x=y+z;",  "don't",       "HELLO",        "\xef\xbd\x81\xef\xbd\x82"};
  Rng rng(3);
  std::vector<std::string> sentences;
  for (int i = 0; i < 400; ++i) {
    std::string sentence;
    for (uint64_t n = 3 + rng.Below(12); n > 0; --n) {
      sentence += std::string(words[rng.Below(20)]) + " ";
    }
    sentences.push_back(sentence);
  }
  return sentences;
}

// Words, odd spaces, marks, full-width letters, emoji, and bytes that are no UTF-8.
std::vector<std::string> Texts() {
  std::vector<std::string> texts = Sentences();
  texts.resize(50);
  for (const char* text : {"",
                           " ",
                           "   ",
                           "a",
                           "  two  spaces  ",
                           "tab\tand\nnewline\r\n",
                           "\xe3\x80\x80wide space",
                           "no\xc2\xa0"
                           "break",
                           "cafe\xcc\x81",
                           "\xef\xac\x81 ligature",
                           "\xef\xbc\xa1\xef\xbc\xa2",
                           "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9",
                           "bad \xff\xc0\x80 bytes \xed\xa0\x80",
                           "<s>",
                           "</s> <unk>",
                           "<0x41>",
                           "<sep>a<sep>",
                           "\xe2\x96\x81_\xe2\x96\x81",
                           "\xe2\x82",
                           "zzzzzzzzzzzzzzzz",
                           "\xe4\xba\xac\xe9\x83\xbd\xe5\xba\x9c x \xe9\x83\xbd"}) {
    texts.emplace_back(text);
  }
  texts.emplace_back("nul\0byte", 8);
  Rng rng(7);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (uint64_t n = rng.Below(40); n > 0; --n) {
      switch (rng.Below(4)) {
        case 0:
          AppendUtf8(static_cast<uint32_t>(rng.Below(0xd7ff)), &text);
          break;
        case 1:
          text.push_back(static_cast<char>(rng.Next()));
          break;
        default:
          text.push_back("the foxdg  \t"[rng.Below(12)]);
      }
    }
    texts.push_back(text);
  }
  return texts;
}

TEST(SentencePiece, EncodesAndDecodesLikeTheOriginal) {
  for (const char* options :
       {"--model_type=unigram --vocab_size=120", "--model_type=bpe --vocab_size=120",
        "--model_type=unigram --vocab_size=350 --byte_fallback=true",
        "--model_type=bpe --vocab_size=360 --byte_fallback=true --split_digits=true",
        "--model_type=bpe --vocab_size=140 --normalization_rule_name=identity "
        "--remove_extra_whitespaces=false",
        "--model_type=unigram --vocab_size=130 --add_dummy_prefix=false "
        "--user_defined_symbols=<sep>,th,\xe9\x83\xbd",
        "--model_type=bpe --vocab_size=150 --user_defined_symbols=<sep>,fox "
        "--normalization_rule_name=nmt_nfkc_cf",
        "--model_type=unigram --vocab_size=110 --treat_whitespace_as_suffix=true"}) {
    const std::string model = SentencePieceOracle::Train(
        std::string(options) + " --hard_vocab_limit=false --character_coverage=0.99", Sentences());
    ASSERT_FALSE(model.empty()) << options;
    const SentencePieceOracle oracle(model);
    ASSERT_TRUE(oracle.ok());
    const auto ours = Make(model);
    ASSERT_TRUE(ours.ok()) << ours.status();
    for (const std::string& text : Texts()) {
      const std::vector<uint32_t> tokens = Encode(**ours, text);
      ASSERT_EQ(tokens, oracle.Encode(text)) << options << "\n" << ::testing::PrintToString(text);
      const bool bytes = std::string(options).find("byte_fallback") != std::string::npos;
      const bool suffix = std::string(options).find("suffix") != std::string::npos;
      if (!bytes && !suffix) {
        ASSERT_EQ((*ours)->Decode(tokens), oracle.Decode(tokens)) << options << "\n" << text;
      }
    }
  }
}

TEST(SentencePiece, UnigramTakesTheLikeliestCut) {
  const auto tokenizer = Make(Reserved() + Piece(kS, -2) + Piece("a", -1) + Piece("b", -1) +
                              Piece("ab", -1.5f) + Piece(std::string(kS) + "a", -2.5f));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // "_ab": _a b = -3.5, _ ab = -3.5 (first found stays), _ a b = -4.
  EXPECT_THAT(Encode(**tokenizer, "aab"), ElementsAre(7, 6));               // _a ab
  EXPECT_THAT(Encode(**tokenizer, "a  ?? b"), ElementsAre(7, 3, 0, 3, 5));  // one unknown
  EXPECT_EQ((*tokenizer)->Decode({7, 6, 3, 5}), "aab b");
  EXPECT_EQ((*tokenizer)->TextOf(7), " a");
  EXPECT_EQ((*tokenizer)->separator(), 2u);
  EXPECT_EQ((*tokenizer)->vocabulary(), 8u);
}

TEST(SentencePiece, BpeMergesTheBestScoreLeftmostFirst) {
  const auto tokenizer = Make(Reserved() + Piece(kS, -9) + Piece("a", -9) + Piece("aa", -1) +
                                  Piece("aaa", -2) + Bytes(2, Number(3, 2)),
                              /*begin=*/true);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Encode(**tokenizer, "aaaaa"), ElementsAre(3, 5, 6));  // _ aa aaa
  EXPECT_THAT((*tokenizer)->prefix(), ElementsAre(1));
}

TEST(SentencePiece, UnknownCharactersBecomeBytesWhereTheModelHasThem) {
  std::string bytes = Reserved();
  for (int i = 0; i < 256; ++i) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", i);
    bytes += Piece(text, 0, 6);
  }
  bytes += Piece(kS, -2) + Bytes(2, Number(35, 1));
  const auto tokenizer = Make(bytes);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Encode(**tokenizer, "\xe2\x82\xac"), ElementsAre(259, 3 + 0xe2, 3 + 0x82, 3 + 0xac));
  EXPECT_EQ((*tokenizer)->Decode({259, 3 + 0xe2, 3 + 0x82, 3 + 0xac}), "\xe2\x82\xac");
}

TEST(SentencePiece, BadModelIsRefusedWithCause) {
  const std::string good = Reserved() + Piece("a", -1);
  ASSERT_TRUE(Make(good).ok());
  const struct {
    std::string bytes;
    absl::StatusCode code;
    const char* says;
  } cases[] = {
      {"", absl::StatusCode::kDataLoss, "it has no pieces"},
      {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", absl::StatusCode::kDataLoss, "cut off"},
      {"{\"model\": 1}", absl::StatusCode::kDataLoss, "cut off"},
      {good.substr(0, good.size() - 1), absl::StatusCode::kDataLoss, "cut off"},
      {Piece("a", -1), absl::StatusCode::kDataLoss, "no unknown piece"},
      {good + Piece("<u2>", 0, 2), absl::StatusCode::kDataLoss, "two unknown pieces"},
      {good + Piece("a", -2), absl::StatusCode::kDataLoss, "piece 4 is there twice"},
      {good + Piece("", -2), absl::StatusCode::kDataLoss, "piece 4 has no text"},
      {good + Piece("b", 0.0f / 0.0f), absl::StatusCode::kDataLoss, "no score"},
      {good + Piece("b", 0, 9), absl::StatusCode::kDataLoss, "piece 4 is of type 9"},
      {good + Piece("b", 0, 6), absl::StatusCode::kDataLoss, "the piece 4 is no byte's"},
      {good + Bytes(2, Number(3, 4)), absl::StatusCode::kInvalidArgument,
       "model_type 4 is not supported"},
      {good + Bytes(2, Number(35, 1)), absl::StatusCode::kDataLoss, "falls back on bytes"},
      {good + Bytes(3, Bytes(2, "abc")), absl::StatusCode::kDataLoss, "precompiled_charsmap"},
      {good + Bytes(3, Bytes(2, std::string("\xff\xff\xff\x7fxxxx", 8))),
       absl::StatusCode::kDataLoss, "precompiled_charsmap"},
  };
  for (const auto& one : cases) {
    const auto made = Make(one.bytes);
    EXPECT_EQ(made.status().code(), one.code) << one.says;
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(one.says));
  }
  EXPECT_FALSE(Make(Piece("<unk>", 0, 2) + Piece("a", -1), /*begin=*/true).ok());
}

}  // namespace
}  // namespace starling
