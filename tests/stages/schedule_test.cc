#include "stages/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace starling {
namespace {

OptimizerConfig Config() {
  OptimizerConfig config;
  config.lr = 1e-2;
  config.min_lr = 2e-3;
  config.warmup = 10;
  return config;
}

TEST(ScheduleTest, WarmsUpLinearlyThenFallsAsACosineToTheMinimum) {
  const OptimizerConfig config = Config();
  EXPECT_DOUBLE_EQ(LearningRate(config, 110, Step{1}), 1e-3);
  EXPECT_DOUBLE_EQ(LearningRate(config, 110, Step{10}), 1e-2);
  EXPECT_DOUBLE_EQ(LearningRate(config, 110, Step{60}), 6e-3);  // half-way
  EXPECT_NEAR(LearningRate(config, 110, Step{110}), 2e-3, 1e-15);
  EXPECT_NEAR(LearningRate(config, 110, Step{500}), 2e-3, 1e-15);
}

TEST(ScheduleTest, NoMinimumMeansATenthAndNoWarmupStartsBelowThePeak) {
  OptimizerConfig config = Config();
  config.min_lr = 0.0;
  config.warmup = 0;
  EXPECT_NEAR(LearningRate(config, 100, Step{100}), 1e-3, 1e-15);
  EXPECT_NEAR(LearningRate(config, 100, Step{1}), 1e-2, 1e-5);
}

TEST(ScheduleTest, RunShorterThanItsWarmupOnlyWarmsUp) {
  EXPECT_DOUBLE_EQ(LearningRate(Config(), 5, Step{5}), 5e-3);
  EXPECT_DOUBLE_EQ(LearningRate(Config(), 10, Step{11}), 2e-3);
}

TEST(MakeUpdateTest, GradientBelowTheClipIsOnlyDividedByTokens) {
  double norm = 0, rate = 0;
  const UpdateScalars scalars = MakeUpdate(Config(), 110, Step{2}, 25.0, 10, &norm, &rate);
  EXPECT_DOUBLE_EQ(norm, 0.5);
  EXPECT_DOUBLE_EQ(rate, 2e-3);
  EXPECT_EQ(scalars.grad_scale, 0.1f);
  EXPECT_EQ(scalars.step_size, static_cast<float>(2e-3 / (1 - 0.9 * 0.9)));
  EXPECT_EQ(scalars.inv_sqrt_bias2, static_cast<float>(1 / std::sqrt(1 - 0.95 * 0.95)));
  EXPECT_EQ(scalars.decay, static_cast<float>(1 - 2e-3 * 0.1));
  EXPECT_EQ(scalars.one_minus_beta2, static_cast<float>(1 - 0.95));
}

TEST(MakeUpdateTest, GradientAboveTheClipIsScaledToIt) {
  double norm = 0;
  const UpdateScalars scalars = MakeUpdate(Config(), 110, Step{2}, 1600.0, 10, &norm, nullptr);
  EXPECT_DOUBLE_EQ(norm, 4.0);
  EXPECT_FLOAT_EQ(scalars.grad_scale, 0.1f / 4.0f);
}

TEST(MakeUpdateTest, ClipOfZeroNeverClips) {
  OptimizerConfig config = Config();
  config.clip = 0.0;
  EXPECT_EQ(MakeUpdate(config, 110, Step{2}, 1e12, 10, nullptr, nullptr).grad_scale, 0.1f);
}

}  // namespace
}  // namespace starling
