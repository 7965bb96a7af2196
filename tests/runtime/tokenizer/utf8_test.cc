#include "runtime/tokenizer/utf8.h"

#include <algorithm>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer/text_stream.h"

namespace starling {
namespace {

constexpr uint32_t kSurrogates = 0xd800;
constexpr uint32_t kAfterSurrogates = 0xe000;
constexpr uint32_t kCodePoints = 0x110000;

size_t CharAt(const std::string& text) {
  return Utf8CharAt(text.data(), text.data() + text.size());
}

TEST(Utf8, EveryCodePointIsOneCharacter) {
  for (uint32_t code_point = 0; code_point < kCodePoints; ++code_point) {
    std::string text;
    AppendUtf8(code_point, &text);
    const bool surrogate = code_point >= kSurrogates && code_point < kAfterSurrogates;
    ASSERT_EQ(CharAt(text), surrogate ? 0 : text.size()) << code_point;
    ASSERT_TRUE(surrogate || Utf8Decode(text.data(), text.size()) == code_point);
    ASSERT_EQ(UnfinishedUtf8Suffix(text), 0u) << code_point;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(CharAt(text.substr(0, cut)), 0u);
      ASSERT_TRUE(surrogate || UnfinishedUtf8Suffix("a" + text.substr(0, cut)) == cut);
    }
  }
}

TEST(Utf8, OverlongFormsSurrogatesAndTooHighOnesAreNoCharacters) {
  for (const char* bytes :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xfe", "\xff", "\xc3(", "\xe2\x82(", "\xf0\x9f\x98("}) {
    EXPECT_EQ(CharAt(bytes), 0u) << bytes;
  }
}

TEST(Utf8, PrefixesEndWhereTheOtherKindBegins) {
  const std::string text =
      "abcdefghij\xc3\xa9\xed\xa0\x80\xff"
      "z";
  const char* const end = text.data() + text.size();
  EXPECT_EQ(ValidUtf8Prefix(text.data(), end), 12u);
  EXPECT_EQ(InvalidUtf8Prefix(text.data() + 12, end), 4u);
  EXPECT_EQ(InvalidUtf8Prefix(text.data(), end), 0u);
}

TEST(Utf8, OnlyWhatCanStillBecomeACharacterIsUnfinished) {
  EXPECT_EQ(UnfinishedUtf8Suffix(""), 0u);
  EXPECT_EQ(UnfinishedUtf8Suffix("a\xe2\x82"), 2u);
  EXPECT_EQ(UnfinishedUtf8Suffix("a\xf0\x9f\x98"), 3u);
  EXPECT_EQ(UnfinishedUtf8Suffix("a\xed\xa0"), 0u);  // a surrogate
  EXPECT_EQ(UnfinishedUtf8Suffix("a\xc0"), 0u);      // overlong
  EXPECT_EQ(UnfinishedUtf8Suffix("\x80\x80\x80"), 0u);
}

TEST(TextStream, GivesWholeCharactersAndLosesNothing) {
  const auto bytes = MakeTokenizer("bytes");
  ASSERT_TRUE(bytes.ok());
  TextStream stream(bytes->get());
  const std::string text = "a\xe2\x82\xac\xff\xc3(\xf0\x9f\x98\x80z\xe2\x82";
  std::string whole;
  std::vector<std::string> pieces;
  for (const char byte : text) {
    pieces.push_back(stream.Push(static_cast<unsigned char>(byte)));
    whole += pieces.back();
    EXPECT_TRUE(byte != '\xe2' || pieces.back().empty());
  }
  EXPECT_EQ(pieces[3], "\xe2\x82\xac");
  EXPECT_EQ(pieces[4], "\xff");
  EXPECT_EQ(stream.Push((*bytes)->separator()), "");
  const std::string rest = stream.Finish();
  EXPECT_EQ(rest, "\xe2\x82");
  EXPECT_EQ(whole + rest, text);
  EXPECT_EQ(stream.Finish(), "");
}

}  // namespace
}  // namespace starling
