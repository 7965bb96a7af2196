#include "runtime/data/sample_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tests/testing/memory_disk.h"
#include "tests/testing/sample_file.h"

namespace starling {
namespace {

using starling::testing::BlobOf;
using starling::testing::MemoryDisk;
using starling::testing::WriteTensors;
using ::testing::HasSubstr;

constexpr char kPath[] = "/samples";

// Sample i is {i, i + 0.5}, its target i % 3.
Samples Numbered(int64_t count) {
  MemoryDisk disk;
  std::vector<float> inputs;
  std::vector<int64_t> targets;
  for (int64_t i = 0; i < count; ++i) {
    inputs.push_back(static_cast<float>(i));
    inputs.push_back(static_cast<float>(i) + 0.5f);
    targets.push_back(i % 3);
  }
  WriteTensors(disk, kPath,
               {{"inputs", BlobOf(inputs, DType::kF32, {count, 2})},
                {"targets", BlobOf(targets, DType::kI64, {count})}});
  auto samples = Samples::Open(disk, kPath);
  EXPECT_TRUE(samples.ok()) << samples.status();
  return *std::move(samples);
}

RunConfig Config() {
  RunConfig config;
  config.train.global_batch = 8;
  config.train.microbatch = 3;
  config.train.eval_sequences = 6;
  config.data.validation = 0.1;
  return config;
}

std::unique_ptr<SampleFeed> Feed(const RunConfig& config, int64_t count, DataPosition start = {}) {
  auto feed = SampleFeed::Make(config, Numbered(count), start);
  EXPECT_TRUE(feed.ok()) << feed.status();
  return *std::move(feed);
}

TEST(SampleFeed, EveryPassTakesEachTrainingSampleOnceWithItsTarget) {
  const auto feed = Feed(Config(), 80);
  EXPECT_EQ(feed->train_samples(), 72u);
  EXPECT_EQ(feed->train_microbatches(), 3u);
  std::multiset<float> seen;
  for (uint64_t step = 1; step <= 9; ++step) {
    for (uint32_t index = 0; index < 3; ++index) {
      const MicrobatchData data = feed->Train(Step{step}, index);
      ASSERT_TRUE(data.status.ok()) << data.status;
      const int64_t rows = index < 2 ? 3 : 2;
      EXPECT_EQ(data.first_sequence, 3u * index);
      EXPECT_EQ(data.tokens.shape(), (std::vector<int64_t>{rows, 2}));
      EXPECT_EQ(data.targets.shape(), std::vector<int64_t>{rows});
      for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
        const float first = data.tokens.As<float>()[2 * row];
        EXPECT_EQ(data.tokens.As<float>()[2 * row + 1], first + 0.5f);
        EXPECT_EQ(data.targets.As<int32_t>()[row], static_cast<int32_t>(first) % 3);
        seen.insert(first);
      }
    }
  }
  EXPECT_EQ(seen.size(), 72u);
  EXPECT_EQ(std::set<float>(seen.begin(), seen.end()).size(), 72u);
  EXPECT_EQ(*seen.rbegin(), 71.0f);
}

TEST(SampleFeed, ValidationIsTheEndOfTheFileAndAlwaysTheSame) {
  const auto feed = Feed(Config(), 80);
  EXPECT_EQ(feed->evaluate_microbatches(), 2u);
  std::set<float> seen;
  for (uint32_t index = 0; index < 2; ++index) {
    const MicrobatchData data = feed->Evaluate(index);
    for (size_t row = 0; row < 3; ++row) seen.insert(data.tokens.As<float>()[2 * row]);
  }
  EXPECT_EQ(seen.size(), 6u);
  EXPECT_GE(*seen.begin(), 72.0f);
}

TEST(SampleFeed, ARunThatIsResumedGoesOnWhereItWas) {
  const auto whole = Feed(Config(), 80);
  const auto resumed = Feed(Config(), 80, whole->PositionAfter(Step{4}));
  for (uint32_t index = 0; index < 3; ++index) {
    EXPECT_EQ(whole->Train(Step{5}, index).tokens.ToStringBytes(),
              resumed->Train(Step{5}, index).tokens.ToStringBytes());
  }
}

TEST(SampleFeed, IntegersTravelAs32Bits) {
  MemoryDisk disk;
  WriteTensors(disk, kPath,
               {{"inputs", BlobOf<int64_t>({1, -2, 3, int64_t{1} << 40}, DType::kI64, {2, 2})},
                {"targets", BlobOf<int32_t>({5, 6, 7, 8}, DType::kI32, {2, 2})}});
  const auto samples = Samples::Open(disk, kPath);
  ASSERT_TRUE(samples.ok()) << samples.status();
  EXPECT_EQ(samples->input_type(), DType::kI32);
  EXPECT_EQ(samples->targets_per_sample(), 2);
  const MicrobatchData data = samples->Rows({0});
  ASSERT_TRUE(data.status.ok()) << data.status;
  EXPECT_EQ(data.tokens.As<int32_t>()[1], -2);
  EXPECT_EQ(data.targets.As<int32_t>()[1], 6);
  EXPECT_THAT(std::string(samples->Rows({1}).status.message()),
              HasSubstr("sample 1 holds 1099511627776, which is beyond 32 bits"));
  EXPECT_EQ(samples->CheckTargets(9), absl::OkStatus());
  EXPECT_THAT(std::string(samples->CheckTargets(8).message()),
              HasSubstr("the target of sample 1 is 8, but the last layer has 8 classes"));
}

TEST(SampleFeed, FilesThatAreNotSamplesAreRefusedByTensor) {
  const Blob inputs = BlobOf<float>({1, 2}, DType::kF32, {2, 1});
  const Blob targets = BlobOf<int64_t>({0, 1}, DType::kI64, {2});
  const auto refusal = [](const std::vector<std::pair<std::string, Blob>>& tensors) {
    MemoryDisk disk;
    WriteTensors(disk, kPath, tensors);
    return std::string(Samples::Open(disk, kPath).status().message());
  };
  EXPECT_EQ(refusal({{"inputs", inputs}}),
            "data.samples: /samples: has no tensor `targets`: it needs `inputs` and `targets`");
  EXPECT_THAT(refusal({{"inputs", inputs}, {"targets", inputs}}),
              HasSubstr("`targets` is F32, not I64 or I32"));
  EXPECT_THAT(
      refusal({{"inputs", BlobOf<uint16_t>({1, 2}, DType::kF16, {2})}, {"targets", targets}}),
      HasSubstr("`inputs` is F16, not F32 or U8 or I32 or I64"));
  EXPECT_THAT(refusal({{"inputs", inputs}, {"targets", BlobOf<int64_t>({0}, DType::kI64, {1})}}),
              HasSubstr("`inputs` has 2 rows, `targets` 1"));
  EXPECT_THAT(refusal({{"inputs", BlobOf<float>({}, DType::kF32, {0, 3})},
                       {"targets", BlobOf<int64_t>({}, DType::kI64, {0})}}),
              HasSubstr("holds no samples"));
  EXPECT_THAT(refusal({{"inputs", inputs}, {"targets", BlobOf<int64_t>({0}, DType::kI64, {})}}),
              HasSubstr("`targets` is a single number"));

  MemoryDisk disk;
  WriteTensors(disk, kPath, {{"inputs", inputs}, {"targets", targets}});
  disk.files[kPath].resize(disk.files[kPath].size() - 1);
  EXPECT_EQ(Samples::Open(disk, kPath).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Samples::Open(disk, "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(SampleFeed, TooFewSamplesAreRefused) {
  RunConfig config = Config();
  EXPECT_THAT(std::string(SampleFeed::Make(config, Numbered(8)).status().message()),
              HasSubstr("7 samples to train on are too few; needs at least 8"));
  config.data.validation = 0;
  EXPECT_THAT(std::string(SampleFeed::Make(config, Numbered(8)).status().message()),
              HasSubstr("no sample is kept to validate on"));
  config.train.eval_every = 0;
  EXPECT_TRUE(SampleFeed::Make(config, Numbered(8)).ok());
}

}  // namespace
}  // namespace starling
