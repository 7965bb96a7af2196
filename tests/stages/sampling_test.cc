#include "stages/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr double kLast = 1.0 - 1e-12;  // the least likely of what is left

Sampling Plain() {
  Sampling sampling;
  sampling.temperature = 1.0;
  sampling.top_k = 0;
  return sampling;
}

std::vector<float> Logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(PickTokenTest, TemperatureZeroTakesTheLikeliestAndOfTiesTheFirst) {
  Sampling sampling;
  sampling.temperature = 0.0;
  sampling.top_p = 0.5;
  EXPECT_EQ(PickToken({1.0f, 3.0f, 3.0f, 2.0f}, sampling, 0.99), 1);
  EXPECT_EQ(PickToken({-7.0f}, sampling, 0.99), 0);
}

TEST(PickTokenTest, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = Logs({0.2, 0.5, 0.3});
  EXPECT_EQ(PickToken(logits, Plain(), 0.0), 1);
  EXPECT_EQ(PickToken(logits, Plain(), 0.49), 1);
  EXPECT_EQ(PickToken(logits, Plain(), 0.51), 2);
  EXPECT_EQ(PickToken(logits, Plain(), 0.79), 2);
  EXPECT_EQ(PickToken(logits, Plain(), 0.81), 0);
  EXPECT_EQ(PickToken(logits, Plain(), kLast), 0);
}

TEST(PickTokenTest, FrequenciesAtATemperatureAreThoseOfTheScaledLogits) {
  const std::vector<double> p = {0.1, 0.6, 0.3};
  Sampling sampling = Plain();
  sampling.temperature = 2.0;  // probabilities become their square roots
  double total = 0.0;
  for (double one : p) total += std::sqrt(one);
  std::map<int32_t, int> counts;
  Rng rng(7);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) ++counts[PickToken(Logs(p), sampling, rng.Unit())];
  for (int32_t token = 0; token < 3; ++token) {
    const double expected = std::sqrt(p[static_cast<size_t>(token)]) / total;
    EXPECT_NEAR(counts[token] / static_cast<double>(kDraws), expected, 0.02) << token;
  }
}

TEST(PickTokenTest, TinyTemperatureIsTheLikeliestWithoutOverflow) {
  Sampling sampling = Plain();
  sampling.temperature = std::numeric_limits<double>::denorm_min();
  EXPECT_EQ(PickToken({1.0f, 2.0f, -3e38f}, sampling, kLast), 1);
}

TEST(PickTokenTest, TopKCutsTheTailAndTiesByTheirTokens) {
  Sampling sampling = Plain();
  sampling.top_k = 2;
  EXPECT_EQ(PickToken(Logs({0.2, 0.5, 0.3}), sampling, kLast), 2);
  EXPECT_EQ(PickToken({1.0f, 1.0f, 1.0f, 1.0f}, sampling, kLast), 1);
  sampling.top_k = 1;
  EXPECT_EQ(PickToken(Logs({0.2, 0.5, 0.3}), sampling, kLast), 1);
  for (int64_t all : {int64_t{0}, int64_t{3}, int64_t{1} << 40}) {
    sampling.top_k = all;
    EXPECT_EQ(PickToken(Logs({0.2, 0.5, 0.3}), sampling, kLast), 0) << all;
  }
}

TEST(PickTokenTest, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = Logs({0.125, 0.5, 0.25, 0.125});
  const struct {
    double top_p;
    int32_t last;  // of those kept
  } cases[] = {{0.0, 1}, {1e-9, 1}, {0.49, 1}, {0.51, 2}, {0.74, 2}, {0.76, 0}, {0.9, 3}, {1.0, 3}};
  for (const auto& one : cases) {
    Sampling sampling = Plain();
    sampling.top_p = one.top_p;
    EXPECT_EQ(PickToken(logits, sampling, 0.0), 1) << one.top_p;
    EXPECT_EQ(PickToken(logits, sampling, kLast), one.last) << one.top_p;
  }
}

TEST(PickTokenTest, TopPOfTiesKeepsTheFirstTokens) {
  Sampling sampling = Plain();
  sampling.top_p = 0.5;
  EXPECT_EQ(PickToken({0.0f, 0.0f, 0.0f, 0.0f}, sampling, kLast), 1);  // exactly a half is enough
  sampling.top_p = 0.51;
  EXPECT_EQ(PickToken({0.0f, 0.0f, 0.0f, 0.0f}, sampling, kLast), 2);
}

TEST(PickTokenTest, TopPCountsWithinTopKAndAtTheTemperature) {
  Sampling sampling = Plain();
  sampling.top_k = 2;  // 0.5 and 0.3 become 0.625 and 0.375
  sampling.top_p = 0.6;
  EXPECT_EQ(PickToken(Logs({0.2, 0.5, 0.3}), sampling, kLast), 1);
  sampling.temperature = 100.0;  // nearly a half each
  EXPECT_EQ(PickToken(Logs({0.2, 0.5, 0.3}), sampling, kLast), 2);
}

TEST(SamplingDrawTest, DrawsAreSpreadAndDifferBySeedAndPlace) {
  double sum = 0.0;
  for (uint64_t i = 0; i < 1000; ++i) {
    const double draw = SamplingDraw(1, i);
    EXPECT_TRUE(draw >= 0.0 && draw < 1.0);
    EXPECT_EQ(SamplingDraw(1, i), draw);
    EXPECT_NE(SamplingDraw(2, i), draw);
    EXPECT_NE(SamplingDraw(1, i + 1), draw);
    sum += draw;
  }
  EXPECT_NEAR(sum / 1000, 0.5, 0.05);
}

TEST(CheckSamplingTest, NumbersOutOfRangeAreInvalid) {
  EXPECT_TRUE(CheckSampling(Sampling()).ok());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (double bad : {-0.1, nan, infinity}) {
    Sampling sampling;
    sampling.temperature = bad;
    EXPECT_EQ(CheckSampling(sampling).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  for (double bad : {-0.1, 1.1, nan, infinity}) {
    Sampling sampling;
    sampling.top_p = bad;
    EXPECT_EQ(CheckSampling(sampling).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  Sampling sampling;
  sampling.top_k = -1;
  EXPECT_EQ(CheckSampling(sampling).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace starling
