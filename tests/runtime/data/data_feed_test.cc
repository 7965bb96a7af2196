#include "runtime/data/data_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace starling {
namespace {

using testing::HasSubstr;

// Byte i of the text tells its own place, modulo a prime, so that a window can be recognized.
std::string Numbered(size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(i % 251));
  return text;
}

Corpus TextOf(const std::string& train, const std::string& validation) {
  Text text;
  text.train = Blob::OfString(train);
  text.validation = Blob::OfString(validation);
  return CorpusOf(text);
}

RunConfig Config(int64_t context, int64_t batch, int64_t microbatch) {
  RunConfig config;
  config.model.context = context;
  config.train.global_batch = batch;
  config.train.microbatch = microbatch;
  config.train.eval_sequences = 6;
  return config;
}

std::unique_ptr<WindowFeed> Feed(const RunConfig& config, size_t train_bytes = 1001,
                                 DataPosition start = {}) {
  auto feed = WindowFeed::Make(config, TextOf(Numbered(train_bytes), Numbered(301)), start);
  EXPECT_TRUE(feed.ok()) << feed.status();
  return std::move(feed).value();
}

TEST(WindowFeed, WindowsDoNotOverlapAndTargetsAreTheNextBytes) {
  const auto feed = Feed(Config(10, 4, 4));
  EXPECT_EQ(feed->train_windows(), 100u);
  const MicrobatchData data = feed->Train(Step{1}, 0);
  EXPECT_EQ(data.tokens.shape(), (std::vector<int64_t>{4, 10}));
  EXPECT_EQ(data.targets.shape(), (std::vector<int64_t>{4, 10}));
  EXPECT_EQ(data.tokens.dtype(), DType::kI32);
  for (uint64_t s = 0; s < 4; ++s) {
    const uint64_t window = feed->WindowOf(Step{1}, s);
    for (uint64_t i = 0; i < 10; ++i) {
      EXPECT_EQ(data.tokens.As<int32_t>()[s * 10 + i], static_cast<int>((window * 10 + i) % 251));
      EXPECT_EQ(data.targets.As<int32_t>()[s * 10 + i],
                static_cast<int>((window * 10 + i + 1) % 251));
    }
  }
}

TEST(WindowFeed, EveryPassTakesEachWindowOnceInAnotherOrder) {
  const auto feed = Feed(Config(10, 8, 4));
  std::vector<uint64_t> windows;
  for (uint64_t step = 1; windows.size() < 200; ++step) {
    for (uint64_t s = 0; s < 8; ++s) windows.push_back(feed->WindowOf(Step{step}, s));
  }
  const std::vector<uint64_t> first(windows.begin(), windows.begin() + 100);
  const std::vector<uint64_t> second(windows.begin() + 100, windows.begin() + 200);
  EXPECT_EQ(std::set<uint64_t>(first.begin(), first.end()).size(), 100u);
  EXPECT_EQ(std::set<uint64_t>(second.begin(), second.end()).size(), 100u);
  EXPECT_NE(first, second);
}

TEST(WindowFeed, SequencesOfAStepDoNotDependOnTheMicrobatchSize) {
  std::vector<std::vector<int32_t>> tokens;
  for (int64_t microbatch : {1, 3, 4, 8}) {
    const auto feed = Feed(Config(10, 8, microbatch));
    std::vector<int32_t> all;
    for (uint32_t i = 0; i < feed->train_microbatches(); ++i) {
      const MicrobatchData data = feed->Train(Step{5}, i);
      EXPECT_EQ(data.first_sequence, static_cast<uint64_t>(i * microbatch));
      const auto part = data.tokens.As<int32_t>();
      all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_EQ(all.size(), 80u);
    tokens.push_back(all);
  }
  for (const auto& other : tokens) EXPECT_EQ(other, tokens[0]);
}

TEST(WindowFeed, LastMicrobatchMayBeShort) {
  const auto feed = Feed(Config(10, 8, 3));
  EXPECT_EQ(feed->train_microbatches(), 3u);
  EXPECT_EQ(feed->Train(Step{1}, 2).tokens.shape(), (std::vector<int64_t>{2, 10}));
}

TEST(WindowFeed, AnotherSeedGivesAnotherOrder) {
  RunConfig config = Config(10, 8, 4);
  const auto a = Feed(config);
  config.train.seed = 2;
  const auto b = Feed(config);
  int equal = 0;
  for (uint64_t s = 0; s < 8; ++s) equal += a->WindowOf(Step{1}, s) == b->WindowOf(Step{1}, s);
  EXPECT_LT(equal, 4);
}

TEST(WindowFeed, OrderIsFixedForever) {
  const auto feed = Feed(Config(10, 8, 4));
  std::vector<uint64_t> windows;
  for (uint64_t s = 0; s < 8; ++s) windows.push_back(feed->WindowOf(Step{3}, s));
  EXPECT_EQ(windows, (std::vector<uint64_t>{7, 23, 60, 45, 93, 4, 36, 67}));
}

TEST(WindowFeed, ResumedFeedGoesOnWhereItWas) {
  const auto whole = Feed(Config(10, 8, 4));
  const DataPosition position = whole->PositionAfter(Step{30});
  EXPECT_EQ(position.sequences, 240u);
  const auto resumed = Feed(Config(10, 8, 4), 1001, position);
  for (uint64_t s = 0; s < 8; ++s) {
    EXPECT_EQ(resumed->WindowOf(Step{31}, s), whole->WindowOf(Step{31}, s));
  }
  EXPECT_EQ(resumed->PositionAfter(Step{30}).sequences, 240u);
}

TEST(WindowFeed, ResumedWithAnotherBatchTakesTheSequencesThatComeNext) {
  const auto whole = Feed(Config(10, 8, 4));
  const auto resumed = Feed(Config(10, 16, 4), 1001, whole->PositionAfter(Step{30}));
  for (uint64_t s = 0; s < 16; ++s) {
    EXPECT_EQ(resumed->WindowOf(Step{31}, s), whole->WindowOf(Step{31 + s / 8}, s % 8));
  }
  EXPECT_EQ(resumed->PositionAfter(Step{31}).sequences, 256u);
}

TEST(WindowFeed, EvaluationIsTheSameSequencesSpreadOverTheValidationText) {
  const auto feed = Feed(Config(10, 8, 4));
  EXPECT_EQ(feed->evaluate_microbatches(), 2u);
  const MicrobatchData first = feed->Evaluate(0);
  const MicrobatchData second = feed->Evaluate(1);
  EXPECT_EQ(first.tokens.shape(), (std::vector<int64_t>{4, 10}));
  EXPECT_EQ(second.tokens.shape(), (std::vector<int64_t>{2, 10}));
  EXPECT_EQ(second.first_sequence, 4u);
  for (size_t s = 0; s < 4; ++s) {
    EXPECT_EQ(first.tokens.As<int32_t>()[s * 10], static_cast<int>(s * 50 % 251));
    EXPECT_EQ(first.targets.As<int32_t>()[s * 10], static_cast<int>((s * 50 + 1) % 251));
  }
}

TEST(WindowFeed, EvaluationTakesWhatThereIsOfShortValidationText) {
  RunConfig config = Config(100, 2, 2);
  config.train.eval_sequences = 64;
  EXPECT_EQ(Feed(config)->evaluate_microbatches(), 2u);  // 3 windows
}

TEST(WindowFeed, TooLittleTextIsRefusedWithWhatItNeeds) {
  const RunConfig config = Config(10, 8, 4);
  const auto refused = WindowFeed::Make(config, TextOf(Numbered(80), Numbered(100)));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status().message(),
            "data.text: 80 bytes to train on are too few; needs at least 81: one batch of 8 "
            "sequences of 10 tokens");
  EXPECT_TRUE(WindowFeed::Make(config, TextOf(Numbered(81), Numbered(100))).ok());
  EXPECT_FALSE(WindowFeed::Make(config, TextOf("", Numbered(100))).ok());
}

TEST(WindowFeed, EmptyValidationIsRefusedOnlyWhereItIsNeeded) {
  RunConfig config = Config(10, 8, 4);
  const auto refused = WindowFeed::Make(config, TextOf(Numbered(200), Numbered(10)));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("data.validation: 10 bytes to validate on are too few"));
  config.train.eval_every = 0;
  const auto accepted = WindowFeed::Make(config, TextOf(Numbered(200), ""));
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_EQ((*accepted)->evaluate_microbatches(), 0u);
}

// --- tokens in shards ------------------------------------------------------------------

// Tokens 0, 1, 2, ... below `vocabulary`, cut into pieces of these lengths, 16 bits each.
Corpus ShardsOf(const std::vector<size_t>& lengths, uint32_t vocabulary) {
  Corpus corpus;
  corpus.from_shards = true;
  uint32_t next = 0;
  for (const size_t length : lengths) {
    std::string bytes;
    for (size_t i = 0; i < length; ++i, next = (next + 1) % vocabulary) {
      bytes.push_back(static_cast<char>(next));
      bytes.push_back(static_cast<char>(next >> 8));
    }
    corpus.train.Append({"shard", Blob::OfString(bytes), 2, 0});
  }
  return corpus;
}

RunConfig ShardConfig(int64_t vocabulary) {
  RunConfig config = Config(10, 8, 4);
  config.model.vocabulary = vocabulary;
  config.train.eval_every = 0;
  return config;
}

TEST(WindowFeedOfShards, WindowsGoOverTheBoundariesOfShards) {
  const RunConfig config = ShardConfig(1000);
  const auto whole = WindowFeed::Make(config, ShardsOf({1001}, 1000));
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (const std::vector<size_t>& lengths : std::vector<std::vector<size_t>>{
           {500, 501}, {3, 3, 3, 992}, {1, 999, 1}, std::vector<size_t>(91, 11)}) {
    const auto cut = WindowFeed::Make(config, ShardsOf(lengths, 1000));
    ASSERT_TRUE(cut.ok()) << cut.status();
    EXPECT_EQ((*cut)->train_windows(), (*whole)->train_windows());
    for (uint64_t step = 1; step <= 30; ++step) {
      for (uint32_t index = 0; index < 2; ++index) {
        const MicrobatchData a = (*whole)->Train(Step{step}, index);
        const MicrobatchData b = (*cut)->Train(Step{step}, index);
        ASSERT_TRUE(b.status.ok()) << b.status;
        ASSERT_EQ(a.tokens.ToStringBytes(), b.tokens.ToStringBytes());
        ASSERT_EQ(a.targets.ToStringBytes(), b.targets.ToStringBytes());
      }
    }
  }
}

TEST(WindowFeedOfShards, ThreeEpochsTakeEachWindowOnceEachInOrdersOfTheirOwn) {
  const auto feed = *WindowFeed::Make(ShardConfig(1000), ShardsOf({400, 401}, 1000));  // 80 windows
  std::vector<std::vector<int32_t>> epochs(3);
  for (uint64_t number = 0; number < 240; number += 4) {
    const auto index = static_cast<uint32_t>(number / 4 % 2);
    const MicrobatchData data = feed->Train(Step{number / 8 + 1}, index);
    for (size_t s = 0; s < 4; ++s) {
      epochs[number / 80].push_back(data.tokens.As<int32_t>()[s * 10]);
    }
  }
  for (const auto& epoch : epochs) {
    EXPECT_EQ(std::set<int32_t>(epoch.begin(), epoch.end()).size(), 80u);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
  EXPECT_NE(epochs[0], epochs[2]);
}

TEST(WindowFeedOfShards, FarPlacesAreReachedAtOnceAndResumedThere) {
  const uint64_t far = uint64_t{1} << 50;
  const auto feed = *WindowFeed::Make(ShardConfig(1000), ShardsOf({801}, 1000), {Step{7}, far});
  const auto later =
      *WindowFeed::Make(ShardConfig(1000), ShardsOf({801}, 1000), {Step{17}, far + 80});
  const MicrobatchData a = feed->Train(Step{20}, 1);
  const MicrobatchData b = later->Train(Step{20}, 1);
  EXPECT_EQ(a.tokens.ToStringBytes(), b.tokens.ToStringBytes());
}

TEST(WindowFeedOfShards, TokenOutsideTheVocabularyGivesAStatusThatNamesItAndNoData) {
  const auto feed = *WindowFeed::Make(ShardConfig(999), ShardsOf({500, 501}, 1000));
  int refused = 0;
  for (uint64_t step = 1; step <= 12; ++step) {  // most of one pass
    for (uint32_t index = 0; index < 2; ++index) {
      const MicrobatchData data = feed->Train(Step{step}, index);
      if (data.status.ok()) continue;
      ++refused;
      EXPECT_EQ(data.status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(data.status.message(),
                "data.shards: shard: token 499 is 999, not below model.vocabulary = 999");
      EXPECT_TRUE(data.tokens.empty());
    }
  }
  EXPECT_GE(refused, 1);
}

TEST(WindowFeedOfShards, TooFewTokensAreRefusedWithWhatIsNeeded) {
  const auto refused = WindowFeed::Make(ShardConfig(1000), ShardsOf({40, 40}, 1000));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status().message(),
            "data.shards: 80 tokens to train on are too few; needs at least 81: one batch of 8 "
            "sequences of 10 tokens");
  RunConfig config = ShardConfig(1000);
  config.train.eval_every = 5;
  config.data.validation_shards = {"val.bin"};
  EXPECT_THAT(std::string(WindowFeed::Make(config, ShardsOf({81}, 1000)).status().message()),
              HasSubstr("data.validation_shards: 0 tokens to validate on are too few"));
}

}  // namespace
}  // namespace starling
