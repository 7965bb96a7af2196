#include "runtime/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using Merges = std::vector<std::pair<std::string, std::string>>;

TrainedBpe Train(const std::vector<std::pair<std::string, uint64_t>>& words, uint32_t tokens) {
  WordCounts counts;
  for (const auto& [word, count] : words) counts.Add(word.data(), word.size(), count);
  return TrainBpe(counts, tokens, [](uint32_t) {});
}

TEST(WordCounts, CountsWordsOfGpt2sPattern) {
  WordCounts counts;
  const std::string text = "the cat the the\xff\xfe cat";
  ASSERT_TRUE(counts.AddText(text.data(), text.size()).ok());
  WordCounts more;
  ASSERT_TRUE(more.AddText("the", 3).ok());
  more.Add(std::string(300, 'x').c_str(), 300, 1);
  counts.Add(more);
  EXPECT_THAT(counts.Sorted(),
              ElementsAre(Pair(" cat", 2), Pair(" the", 2), Pair("the", 2), Pair("\xff\xfe", 1)));
}

TEST(BpeTrainer, MergesTheMostFrequentPairEachTime) {
  // The paper's example: e+s 9, es+t 9, l+o 7, lo+w 7.
  const TrainedBpe trained =
      Train({{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}}, 256 + 4);
  EXPECT_THAT(trained.merges,
              ElementsAre(Pair("e", "s"), Pair("es", "t"), Pair("l", "o"), Pair("lo", "w")));
  EXPECT_EQ(trained.tokens.size(), 260u);
  EXPECT_EQ(trained.tokens[256], "es");
  EXPECT_EQ(trained.tokens[0], "!");
}

TEST(BpeTrainer, OfEqualCountsLowerIdsAreMerged) {
  EXPECT_THAT(Train({{"xy", 3}, {"ab", 3}, {"bc", 3}}, 257).merges, ElementsAre(Pair("a", "b")));
}

TEST(BpeTrainer, OverlappingPairsAreCountedAndMergedFromTheLeft) {
  EXPECT_THAT(Train({{"aaaaa", 2}}, 300).merges,
              ElementsAre(Pair("a", "a"), Pair("aa", "a"), Pair("aa", "aaa")));
}

TEST(BpeTrainer, StopsWhereNoPairIsThereTwice) {
  EXPECT_THAT(Train({{"abc", 1}, {"xyz", 1}}, 300).merges, IsEmpty());
  EXPECT_THAT(Train({}, 300).merges, IsEmpty());
}

TEST(BpeTrainer, BytesThatTwoPairsMakeAreOneToken) {
  const TrainedBpe trained = Train({{"abc", 5}, {"xab", 9}, {"ybc", 20}, {"abz", 3}}, 270);
  std::map<std::string, int> seen;
  for (const std::string& token : trained.tokens) EXPECT_EQ(++seen[token], 1) << token;
}

// Counts everything anew for every merge.
Merges TrainPlainly(const std::vector<std::pair<std::string, uint64_t>>& words, size_t merges) {
  std::vector<std::vector<std::string>> symbols;
  for (const auto& word : words) {
    symbols.emplace_back();
    for (const char c : word.first) symbols.back().emplace_back(1, c);
  }
  std::vector<std::string> ids;  // letters in order, then as they are made
  for (char c = '!'; c <= '~'; ++c) ids.emplace_back(1, c);
  const auto id = [&](const std::string& text) {
    return std::find(ids.begin(), ids.end(), text) - ids.begin();
  };
  Merges made;
  while (made.size() < merges) {
    std::map<std::pair<long, long>, uint64_t> counts;
    for (size_t w = 0; w < words.size(); ++w) {
      for (size_t i = 0; i + 1 < symbols[w].size(); ++i) {
        counts[{id(symbols[w][i]), id(symbols[w][i + 1])}] += words[w].second;
      }
    }
    std::pair<long, long> best;
    uint64_t most = 1;
    for (const auto& [pair, count] : counts) {
      if (count > most) {
        most = count;
        best = pair;
      }
    }
    if (most < 2) break;
    const std::string left = ids[static_cast<size_t>(best.first)];
    const std::string right = ids[static_cast<size_t>(best.second)];
    made.emplace_back(left, right);
    if (id(left + right) == static_cast<long>(ids.size())) ids.push_back(left + right);
    for (auto& word : symbols) {
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != left || word[i + 1] != right) continue;
        word[i] += right;
        word.erase(word.begin() + static_cast<long>(i) + 1);
      }
    }
  }
  return made;
}

TEST(BpeTrainer, MergesAsCountingAnewEachTimeWould) {
  Rng rng(5);
  for (int round = 0; round < 20; ++round) {
    std::map<std::string, uint64_t> words;
    for (int i = 0; i < 60; ++i) {
      std::string word;
      for (uint64_t n = 1 + rng.Below(12); n > 0; --n) word.push_back("abcd"[rng.Below(4)]);
      words[word] += 1 + rng.Below(20);
    }
    const std::vector<std::pair<std::string, uint64_t>> list(words.begin(), words.end());
    const Merges ours = Train(list, 256 + 60).merges;
    EXPECT_EQ(ours, TrainPlainly(list, ours.size()));
    EXPECT_GE(ours.size(), 60u);
  }
}

}  // namespace
}  // namespace starling
