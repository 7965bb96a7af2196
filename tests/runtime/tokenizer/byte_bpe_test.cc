#include "runtime/tokenizer/byte_bpe.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/rng.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/utf8.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Tokens = std::vector<uint32_t>;

// Every byte is the token of its number; merges make 256, 257, ...
ByteBpeParts PartsWith(const std::vector<std::pair<std::string, std::string>>& merges) {
  ByteBpeParts parts;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    parts.model.tokens.emplace_back(std::string(1, static_cast<char>(byte)), byte);
  }
  for (const auto& [left, right] : merges) {
    parts.model.tokens.emplace_back(left + right, static_cast<uint32_t>(parts.model.tokens.size()));
  }
  parts.model.merges = merges;
  parts.patterns = {kGpt2Pattern};
  return parts;
}

std::unique_ptr<Tokenizer> Make(ByteBpeParts parts) {
  auto tokenizer = MakeByteBpe(std::move(parts));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

Tokens Encode(const Tokenizer& tokenizer, const std::string& text) {
  Tokens tokens;
  const absl::Status status = tokenizer.Encode(text.data(), text.size(), &tokens);
  EXPECT_TRUE(status.ok()) << status;
  return tokens;
}

void ExpectRoundTrip(const Tokenizer& tokenizer, const std::string& text) {
  ASSERT_EQ(tokenizer.Decode(Encode(tokenizer, text)), text) << ::testing::PrintToString(text);
}

TEST(ByteAlphabet, IsGpt2sTable) {
  EXPECT_EQ(ToByteAlphabet(" a\n\t\x7f"),
            "\xc4\xa0"
            "a\xc4\x8a\xc4\x89\xc4\xa1");
  EXPECT_EQ(ToByteAlphabet("\xa0\xad\xff"), "\xc5\x82\xc5\x83\xc3\xbf");
  EXPECT_EQ(ToByteAlphabet(std::string(1, '\0')), "\xc4\x80");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  std::string back;
  ASSERT_TRUE(FromByteAlphabet(ToByteAlphabet(all), &back));
  EXPECT_EQ(back, all);
  for (const char* other : {" ", "\n", "\xc5\x84", "\xe2\x82\xac", "\xff", "\xc2\xad"}) {
    EXPECT_FALSE(FromByteAlphabet(other, &back)) << other;
  }
  const auto order = BytesInAlphabetOrder();
  ASSERT_EQ(order.size(), 256u);
  EXPECT_EQ(order[0], '!');
  EXPECT_EQ(order[187], 255);
  EXPECT_EQ(order[188], 0);
  EXPECT_EQ(order[255], 0xad);
}

TEST(ByteBpe, MergesByRank) {
  // hello: he(1) first, then ll(2)? No: l+o has rank 0.
  const auto tokenizer = Make(PartsWith({{"l", "o"}, {"h", "e"}, {"l", "l"}, {"l", "lo"}}));
  EXPECT_THAT(Encode(*tokenizer, "hello"), ElementsAre(257, 259));  // he, l + lo
  EXPECT_THAT(Encode(*tokenizer, "hell"), ElementsAre(257, 258));
  EXPECT_THAT(Encode(*tokenizer, "llo"), ElementsAre(259));
}

TEST(ByteBpe, OfEqualRanksTheLeftmostIsMerged) {
  const auto tokenizer = Make(PartsWith({{"a", "a"}, {"aa", "a"}}));
  EXPECT_THAT(Encode(*tokenizer, "aaa"), ElementsAre(257));
  EXPECT_THAT(Encode(*tokenizer, "aaaa"), ElementsAre(256, 256));
  EXPECT_THAT(Encode(*tokenizer, "aaaaa"), ElementsAre(256, 257));
}

TEST(ByteBpe, LaterMergeOfLowerRankIsMadeAsSoonAsItCan) {
  // "abc": b+c (rank 1) makes a+bc (rank 0) possible, before d+e (rank 2).
  const auto tokenizer = Make(PartsWith({{"a", "bc"}, {"b", "c"}, {"d", "e"}, {"c", "d"}}));
  EXPECT_THAT(Encode(*tokenizer, "abcde"), ElementsAre(256, 258));
}

TEST(ByteBpe, WordIsNotMergedWhereMergesDoNotMakeIt) {
  ByteBpeParts parts = PartsWith({{"a", "b"}});
  parts.model.tokens.emplace_back("bcd", 300);
  EXPECT_THAT(Encode(*Make(parts), "bcd"), ElementsAre('b', 'c', 'd'));
  parts.model.ignore_merges = true;  // as Llama 3 has it
  EXPECT_THAT(Encode(*Make(parts), "bcd"), ElementsAre(300));
  EXPECT_THAT(Encode(*Make(parts), "abcd"), ElementsAre(256, 'c', 'd'));
}

TEST(ByteBpe, LongWordsMergeAsShortOnesDo) {
  // The long way of merging against a plain one, over words of two letters.
  const auto tokenizer = Make(PartsWith(
      {{"a", "b"}, {"b", "a"}, {"ab", "ab"}, {"a", "a"}, {"abab", "a"}, {"aa", "ba"}, {"b", "b"}}));
  const auto plain = [&](std::string word) {
    std::vector<std::string> symbols;
    for (const char c : word) symbols.emplace_back(1, c);
    const std::vector<std::pair<std::string, std::string>> merges = {
        {"a", "b"}, {"b", "a"}, {"ab", "ab"}, {"a", "a"}, {"abab", "a"}, {"aa", "ba"}, {"b", "b"}};
    while (true) {
      size_t rank = merges.size();
      size_t place = 0;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        for (size_t r = 0; r < rank; ++r) {
          if (merges[r].first != symbols[i] || merges[r].second != symbols[i + 1]) continue;
          rank = r;
          place = i;
        }
      }
      if (rank == merges.size()) return symbols;
      symbols[place] += symbols[place + 1];
      symbols.erase(symbols.begin() + static_cast<long>(place) + 1);
    }
  };
  Rng rng(1);
  for (int i = 0; i < 300; ++i) {
    std::string word;
    for (uint64_t n = 1 + rng.Below(120); n > 0; --n) word.push_back("ab"[rng.Below(2)]);
    std::vector<std::string> texts;
    for (const uint32_t token : Encode(*tokenizer, word)) texts.push_back(tokenizer->TextOf(token));
    ASSERT_EQ(texts, plain(word)) << word;
  }
}

TEST(ByteBpe, WordsAreMergedApart) {
  const auto tokenizer = Make(PartsWith({{" ", "b"}, {"a", " "}, {"a", "b"}}));
  EXPECT_THAT(Encode(*tokenizer, "a b ab"), ElementsAre('a', 256, ' ', 258));
}

TEST(ByteBpe, EveryCodePointComesBack) {
  const auto tokenizer = Make(PartsWith({{"\xc3", "\xa9"}, {"\xe2", "\x82"}, {"\xf0", "\x9f"}}));
  std::string text;
  for (uint32_t code_point = 0; code_point < 0x110000; ++code_point) {
    AppendUtf8(code_point, &text);  // surrogates, which are no UTF-8, too
    if (code_point % 0x1000 != 0xfff) continue;
    ExpectRoundTrip(*tokenizer, text);
    text.clear();
  }
}

TEST(ByteBpe, BytesThatAreNoUtf8AreWordsOfTheirOwnAndComeBack) {
  const auto tokenizer = Make(PartsWith({{"a", "\xff"}, {"\xff", "\xfe"}, {"\xfe", " "}}));
  EXPECT_THAT(Encode(*tokenizer, "a\xff\xfe b"), ElementsAre('a', 257, ' ', 'b'));
  for (const char* text :
       {"\xc0\x80", "\xed\xa0\x80\xed\xb0\x80", "\xe0\x80\x80", "\xf4\x90\x80\x80", "\x80", "x\xc3",
        "\xff\xff\xff", "a\xf0\x9f\x98", "\xf8\x88\x80\x80\x80", "e\xcc\x81\xcc", " \xff \xff"}) {
    ExpectRoundTrip(*tokenizer, text);
  }
  ExpectRoundTrip(*tokenizer, std::string("a\0b\0", 4));
}

TEST(ByteBpe, ArbitraryBytesComeBack) {
  const auto tokenizer = Make(PartsWith(
      {{" ", "t"}, {"h", "e"}, {" t", "he"}, {"\xe2", "\x80"}, {"\n", "\n"}, {"\xff", "\xff"}}));
  Rng rng(11);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (uint64_t n = rng.Below(200); n > 0; --n) {
      const bool any = rng.Chance(0.5);
      text.push_back(any ? static_cast<char>(rng.Next()) : " the\n\xe2\x80\x8d\xff"[rng.Below(9)]);
    }
    ExpectRoundTrip(*tokenizer, text);
  }
}

TEST(ByteBpe, JoinersAndNormalFormsStayAsTheyAreWithoutNormalizer) {
  const auto tokenizer = Make(PartsWith({}));
  for (const char* text :
       {"e\xcc\x81", "\xc3\xa9", "\xe2\x80\x8d",
        "\xef\xbb\xbf"
        "bom",
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
        "\xf0\x9f\x8f\xb3\xef\xb8\x8f\xe2\x80\x8d\xf0\x9f\x8c\x88"}) {
    ExpectRoundTrip(*tokenizer, text);
  }
}

TEST(ByteBpe, NormalFormIsAppliedToWhatIsUtf8) {
  ByteBpeParts parts = PartsWith({});
  parts.normal_form = NormalForm::kNfc;
  const auto composed = Make(parts);
  EXPECT_EQ(composed->Decode(Encode(*composed, "cafe\xcc\x81")), "caf\xc3\xa9");
  EXPECT_EQ(composed->Decode(Encode(*composed,
                                    "e\xcc\x81\xff"
                                    "e\xcc\x81")),
            "\xc3\xa9\xff\xc3\xa9");
  EXPECT_EQ(composed->Decode(Encode(*composed, std::string("\0e\xcc\x81", 4))),
            std::string("\0\xc3\xa9", 3));
  parts.normal_form = NormalForm::kNfd;
  const auto decomposed = Make(parts);
  EXPECT_EQ(decomposed->Decode(Encode(*decomposed, "\xc3\xa9\xea\xb0\x80")),
            "e\xcc\x81\xe1\x84\x80\xe1\x85\xa1");
  parts.normal_form = NormalForm::kNfkc;
  const auto compatible = Make(parts);
  EXPECT_EQ(compatible->Decode(Encode(*compatible, "\xef\xac\x81\xef\xbc\xa1\xc2\xb2")), "fiA2");
}

TEST(ByteBpe, AddedTokensAreFoundFirstTheLongestOfThem) {
  ByteBpeParts parts = PartsWith({{"<", "|"}});
  parts.added = {{"<|end|>", 300, true, false},
                 {"<|", 301, false, false},
                 {"<|end|>more", 302, false, false},
                 {"caf\xc3\xa9", 303, false, true}};
  parts.separator = "<|end|>";
  const auto tokenizer = Make(parts);
  EXPECT_THAT(Encode(*tokenizer, "a<|end|>b"), ElementsAre('a', 300, 'b'));
  EXPECT_THAT(Encode(*tokenizer, "<|end|><|end|>more"), ElementsAre(300, 302));
  EXPECT_THAT(Encode(*tokenizer, "<|en<"), ElementsAre(301, 'e', 'n', '<'));
  EXPECT_THAT(Encode(*tokenizer, "caf\xc3\xa9"), ElementsAre(303));
  EXPECT_THAT(Encode(*tokenizer, "cafe\xcc\x81"), testing::SizeIs(6));
  EXPECT_EQ(tokenizer->separator(), 300u);
  EXPECT_EQ(tokenizer->vocabulary(), 304u);
  EXPECT_EQ(tokenizer->Decode({300, 302, 298, 5000}), "<|end|>more");
  parts.normal_form = NormalForm::kNfc;  // then the one that is sought in the normal form is found
  EXPECT_THAT(Encode(*Make(parts), "cafe\xcc\x81!<|end|>"), ElementsAre(303, '!', 300));
}

TEST(ByteBpe, SpaceFirstIsForTextsThatHaveNone) {
  ByteBpeParts parts = PartsWith({{" ", "a"}});
  parts.space_first = true;
  const auto tokenizer = Make(parts);
  EXPECT_THAT(Encode(*tokenizer, "a a"), ElementsAre(256, 256));
  EXPECT_THAT(Encode(*tokenizer, " a"), ElementsAre(256));
  EXPECT_THAT(Encode(*tokenizer, ""), IsEmpty());
}

TEST(ByteBpe, SeparatorIsBeyondAllWhereNothingEndsAText) {
  const auto tokenizer = Make(PartsWith({{"a", "b"}}));
  EXPECT_EQ(tokenizer->vocabulary(), 257u);
  EXPECT_EQ(tokenizer->separator(), 257u);
  EXPECT_EQ(tokenizer->Decode({257}), "");
}

TEST(ByteBpe, NameDependsOnFilesAndEnds) {
  std::set<std::string> names;
  ByteBpeParts parts = PartsWith({{"a", "b"}});
  parts.files = {{"tokenizer.json", "{}"}};
  const std::string name = Make(parts)->name();
  EXPECT_THAT(name, StartsWith("bpe-"));
  EXPECT_EQ(name.size(), 4u + 16u);
  names.insert(name);
  EXPECT_EQ(Make(parts)->name(), name);
  parts.files.push_back({"tokenizer_config.json", "other keys"});
  EXPECT_EQ(Make(parts)->name(), name);
  parts.prefix = {7};
  names.insert(Make(parts)->name());
  parts.separator = "ab";
  names.insert(Make(parts)->name());
  parts.files[0].bytes = "{} ";
  names.insert(Make(parts)->name());
  EXPECT_EQ(names.size(), 4u);
}

TEST(ByteBpe, PartsThatDoNotFitAreRefused) {
  const auto refused = [](const ByteBpeParts& parts) {
    const auto made = MakeByteBpe(parts);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(made.status().message());
  };
  ByteBpeParts parts = PartsWith({{"a", "b"}});
  parts.model.merges.emplace_back("a", " b");
  EXPECT_THAT(refused(parts), HasSubstr("merge 2 (\"a \xc4\xa0"
                                        "b\") names \"\xc4\xa0"
                                        "b\", which is not"));
  parts = PartsWith({});
  parts.model.merges.emplace_back("a", "b");
  EXPECT_THAT(refused(parts), HasSubstr("names \"ab\""));
  parts = PartsWith({});
  parts.separator = "</s>";
  EXPECT_THAT(refused(parts), HasSubstr("\"</s>\", which ends a text, is not in the vocabulary"));
  parts = PartsWith({});
  parts.prefix = {400};
  EXPECT_THAT(refused(parts), HasSubstr("token 400, which begins a text"));
  parts = PartsWith({});
  parts.added = {{"x", 2000000000, false, false}};
  EXPECT_THAT(refused(parts), HasSubstr("token 2000000000 of a vocabulary of 257 tokens"));
}

TEST(ByteBpe, TextWithAByteThatIsNoTokenIsRefused) {
  ByteBpeParts parts = PartsWith({});
  parts.model.tokens.erase(parts.model.tokens.begin() + 'q');
  const auto tokenizer = Make(parts);
  Tokens tokens;
  const absl::Status status = tokenizer->Encode("aqa", 3, &tokens);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no token for byte 0x71"));
  EXPECT_THAT(tokenizer->description(), HasSubstr("1 bytes without a token"));
}

}  // namespace
}  // namespace starling
