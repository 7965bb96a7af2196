#include "runtime/tokenizer/stop_strings.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/base/rng.h"

namespace starling {
namespace {

// What is shown of the pieces, one entry for each and one for the end.
std::vector<std::string> Shown(std::vector<std::string> stops,
                               const std::vector<std::string>& pieces, bool* stopped) {
  StopStrings text(std::move(stops));
  std::vector<std::string> shown;
  for (const std::string& piece : pieces) shown.push_back(text.Push(piece));
  shown.push_back(text.Finish());
  *stopped = text.stopped();
  return shown;
}

using Texts = std::vector<std::string>;

TEST(StopStringsTest, StringOverSeveralPiecesIsHeldBackAndLeftOut) {
  bool stopped = false;
  EXPECT_EQ(Shown({"END"}, {"one E", "N", "D two", "three"}, &stopped),
            (Texts{"one ", "", "", "", ""}));
  EXPECT_TRUE(stopped);
}

TEST(StopStringsTest, BeginningThatGoesOnOtherwiseIsShown) {
  bool stopped = true;
  EXPECT_EQ(Shown({"END"}, {"E", "N", "Ex", "EEN"}, &stopped), (Texts{"", "", "ENEx", "E", "EN"}));
  EXPECT_FALSE(stopped);
}

TEST(StopStringsTest, StringWithinItselfIsFound) {
  bool stopped = false;
  EXPECT_EQ(Shown({"aab"}, {"aa", "a", "b"}, &stopped), (Texts{"", "a", "", ""}));
  EXPECT_TRUE(stopped);
}

TEST(StopStringsTest, FirstCompleteStringCountsAndOfTwoTheLongest) {
  bool stopped = false;
  EXPECT_EQ(Shown({"abc", "b"}, {"xabc"}, &stopped), (Texts{"xa", ""}));
  EXPECT_TRUE(stopped);
  EXPECT_EQ(Shown({"c", "bc", "abc"}, {"xabc"}, &stopped), (Texts{"x", ""}));
  EXPECT_TRUE(stopped);
}

TEST(StopStringsTest, WithoutStringsEverythingPassesAtOnce) {
  bool stopped = true;
  EXPECT_EQ(Shown({}, {"a", "", "b\n"}, &stopped), (Texts{"a", "", "b\n", ""}));
  EXPECT_FALSE(stopped);
}

// Any text of two letters against the plain search: at which byte is a string complete first, and
// which is then the longest?
TEST(StopStringsTest, AnyPiecesGiveTheTextBeforeTheFirstStop) {
  Rng rng(11);
  const auto draw = [&rng](uint64_t length) {
    std::string text;
    while (text.size() < length) text.push_back(rng.Below(2) == 0 ? 'a' : 'b');
    return text;
  };
  int stops_seen = 0;
  for (int round = 0; round < 2000; ++round) {
    Texts stops;
    for (uint64_t i = 0; i <= rng.Below(3); ++i) stops.push_back(draw(1 + rng.Below(6)));
    const std::string text = draw(rng.Below(30));
    std::string expected = text;
    bool stops_here = false;
    for (size_t end = 1; end <= text.size() && !stops_here; ++end) {
      for (const std::string& stop : stops) {
        if (end < stop.size() || text.compare(end - stop.size(), stop.size(), stop) != 0) continue;
        const std::string before = text.substr(0, end - stop.size());
        if (!stops_here || before.size() < expected.size()) expected = before;
        stops_here = true;
      }
    }
    StopStrings cut(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t length = 1 + rng.Below(4);
      shown += cut.Push(text.substr(at, length));
      EXPECT_EQ(expected.compare(0, shown.size(), shown), 0) << text;  // never takes text back
      at += length;
    }
    shown += cut.Finish();
    EXPECT_EQ(shown, expected) << text;
    EXPECT_EQ(cut.stopped(), stops_here) << text;
    stops_seen += stops_here ? 1 : 0;
  }
  EXPECT_GT(stops_seen, 500);
}

}  // namespace
}  // namespace starling
