#include "runtime/tokenizer/splitter.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Words = std::vector<std::string>;

constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

absl::StatusOr<Words> TryCut(const std::vector<std::string>& patterns, const std::string& text) {
  STARLING_ASSIGN_OR_RETURN(const auto splitter, Splitter::Make(patterns));
  Words words;
  const absl::Status status =
      splitter->Cut(text.data(), text.size(), [&](const char* word, size_t bytes) {
        words.emplace_back(word, bytes);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return words;
}

Words Cut(const std::vector<std::string>& patterns, const std::string& text) {
  const auto words = TryCut(patterns, text);
  EXPECT_TRUE(words.ok()) << words.status();
  return words.ok() ? *words : Words();
}

Words Gpt2(const std::string& text) { return Cut({kGpt2Pattern}, text); }
Words Llama3(const std::string& text) { return Cut({kLlama3Pattern}, text); }

TEST(Gpt2Pattern, CutsContractionsAsTheyAreSpelled) {
  EXPECT_THAT(Gpt2("I'm sure they'll say it's John's"),
              ElementsAre("I", "'m", " sure", " they", "'ll", " say", " it", "'s", " John", "'s"));
  EXPECT_THAT(Gpt2("I'M DON'T"), ElementsAre("I", "'", "M", " DON", "'", "T"));
  EXPECT_THAT(Gpt2("we've they'd you're"), ElementsAre("we", "'ve", " they", "'d", " you", "'re"));
}

TEST(Gpt2Pattern, KeepsNumbersWholeAndApartFromLetters) {
  EXPECT_THAT(Gpt2("abc123 45678"), ElementsAre("abc", "123", " 45678"));
  EXPECT_THAT(Gpt2("x\xc2\xb2=\xe2\x85\xa7"),  // superscript two, roman eight: numbers, too
              ElementsAre("x", "\xc2\xb2", "=", "\xe2\x85\xa7"));
}

TEST(Gpt2Pattern, OfSeveralSpacesTheLastGoesWithTheWord) {
  EXPECT_THAT(Gpt2("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(Gpt2("a \n b"), ElementsAre("a", " \n", " b"));
  EXPECT_THAT(Gpt2("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(Gpt2("end   "), ElementsAre("end", "   "));
  EXPECT_THAT(Gpt2("\t\tif"), ElementsAre("\t", "\t", "if"));
  EXPECT_THAT(Gpt2("  !!"), ElementsAre(" ", " !!"));
}

TEST(Gpt2Pattern, JoinsPunctuationAndCutsMarksOffLetters) {
  EXPECT_THAT(Gpt2("Hi!?...\"x\""), ElementsAre("Hi", "!?...\"", "x", "\""));
  // e and a combining acute, which is no letter; the composed letter is one.
  EXPECT_THAT(Gpt2("cafe\xcc\x81s"), ElementsAre("cafe", "\xcc\x81", "s"));
  EXPECT_THAT(Gpt2("caf\xc3\xa9s"), ElementsAre("caf\xc3\xa9s"));
  // Man, joiner, woman: other than spaces, letters and numbers.
  const std::string family = "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9";
  EXPECT_THAT(Gpt2("a " + family + "b"), ElementsAre("a", " " + family, "b"));
}

TEST(Llama3Pattern, CutsContractionsInAnyCase) {
  EXPECT_THAT(Llama3("I'M don't"), ElementsAre("I", "'M", " don", "'t"));
  EXPECT_THAT(Llama3("'sdf"), ElementsAre("'s", "df"));
  // U+017F, the long s, is an s in another case.
  EXPECT_THAT(Llama3("it'\xc5\xbf"), ElementsAre("it", "'\xc5\xbf"));
}

TEST(Llama3Pattern, CutsNumbersIntoThreeDigits) {
  EXPECT_THAT(Llama3("1234567 89"), ElementsAre("123", "456", "7", " ", "89"));
  EXPECT_THAT(Llama3("v2.10"), ElementsAre("v", "2", ".", "10"));
}

TEST(Llama3Pattern, KeepsNewlinesTogetherAndWithPunctuation) {
  EXPECT_THAT(Llama3("a;\n\nb"), ElementsAre("a", ";\n\n", "b"));
  EXPECT_THAT(Llama3("a \n\n  b"), ElementsAre("a", " \n\n", " ", " b"));
  EXPECT_THAT(Llama3("\r\n\r\nx"), ElementsAre("\r\n\r\n", "x"));
  EXPECT_THAT(Llama3("x   "), ElementsAre("x", "   "));
  EXPECT_THAT(Llama3("(word) _x"), ElementsAre("(word", ")", " _", "x"));
}

TEST(Splitter, SpacesAreUnicodesWhiteSpace) {
  // No-break space and ideographic space are; U+180E and U+200B are not any more.
  EXPECT_THAT(Cut({"\\s"}, "a\xc2\xa0\xe3\x80\x80 b"),
              ElementsAre("a", "\xc2\xa0", "\xe3\x80\x80", " ", "b"));
  EXPECT_THAT(Cut({"[\\s]"}, "a\xe1\xa0\x8e\xe2\x80\x8b"),
              ElementsAre("a\xe1\xa0\x8e\xe2\x80\x8b"));
  EXPECT_THAT(Cut({"\\\\s"}, "\\s s"), ElementsAre("\\s", " s"));  // an escaped backslash
}

TEST(Splitter, GapsBetweenMatchesAreWords) {
  EXPECT_THAT(Cut({"[0-9]"}, "ab12c"), ElementsAre("ab", "1", "2", "c"));
  EXPECT_THAT(Cut({}, "a b"), ElementsAre("a b"));
  EXPECT_THAT(Cut({"x"}, "ab"), ElementsAre("ab"));
  EXPECT_THAT(Cut({kGpt2Pattern}, ""), IsEmpty());
}

TEST(Splitter, EveryPatternCutsTheWordsOfTheOneBefore) {
  EXPECT_THAT(Cut({"[0-9]", kGpt2Pattern}, "a b12 c"), ElementsAre("a", " b", "1", "2", " c"));
}

TEST(Splitter, MatchOfNothingCutsNothing) {
  EXPECT_THAT(Cut({"x*"}, "axxb\xc3\xa9"), ElementsAre("a", "xx", "b\xc3\xa9"));
  EXPECT_THAT(Cut({"(?=b)"}, "abc"), ElementsAre("abc"));
}

TEST(Splitter, BadPatternIsRefusedInWords) {
  const auto open = Splitter::Make({"(a"});
  EXPECT_EQ(open.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(open.status().message()),
              HasSubstr("the pattern \"(a\" is not understood: missing closing parenthesis"));
  EXPECT_FALSE(Splitter::Make({"\\C"}).ok());
  EXPECT_FALSE(Splitter::Make({std::string(100000, 'a')}).ok());
}

TEST(Splitter, PatternThatTakesForEverIsGivenUp) {
  const auto words = TryCut({"(a+)+$"}, std::string(40, 'a') + "b");
  if (words.ok()) {
    EXPECT_THAT(*words, ElementsAre(std::string(40, 'a') + "b"));
  } else {
    EXPECT_EQ(words.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(Splitter, LongTextsOfOneKindAreCut) {
  for (const char* unit : {" ", "a", "\n", "1", "!", "\xe2\x80\x8d"}) {
    std::string text;
    while (text.size() < 300000) text += unit;
    for (const char* pattern : {kGpt2Pattern, kLlama3Pattern}) {
      std::string whole;
      for (const std::string& word : Cut({pattern}, text)) whole += word;
      EXPECT_EQ(whole, text);
    }
  }
}

}  // namespace
}  // namespace starling
