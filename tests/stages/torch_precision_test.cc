// Passes in bf16: boundaries and gradients stay fp32, the numbers stay near those of fp32.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stages/model_layout.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

struct Numbers {
  double loss = 0;
  Blob boundary;
  std::vector<float> gradient;  // of the whole model
};

// Two stages by hand, one microbatch.
Numbers Train(const ModelConfig& config, Precision precision) {
  auto first = MakeExecutor(config, LayerRange{0, 1}, 0, 1, 0, precision);
  auto last = MakeExecutor(config, LayerRange{1, config.layers}, 1, 1, 0, precision);
  Numbers numbers;
  ForwardInput forward;
  forward.work = TrainWork(0);
  forward.input = DrawTokens(1, 3, config);
  numbers.boundary = first->Forward(forward)->output;
  forward.input = numbers.boundary;
  forward.targets = DrawTokens(2, 3, config);
  numbers.loss = last->Forward(forward)->loss_sum;
  BackwardInput backward;
  backward.work = TrainWork(0);
  backward.segment = kMainSegment;
  backward.gradient = last->Backward(backward)->input_gradient;
  EXPECT_EQ(backward.gradient.dtype(), DType::kF32);
  backward.want_input_gradient = false;
  STARLING_CHECK(first->Backward(backward).ok());
  for (TorchExecutor* stage : {first.get(), last.get()}) {
    stage->Seal(Step{1});
    const Blob sum = stage->Read(Step{1}, {kMainSegment})->gradient;
    const auto values = sum.As<float>();
    numbers.gradient.insert(numbers.gradient.end(), values.begin(), values.end());
  }
  return numbers;
}

class TorchPrecisionTest : public ::testing::TestWithParam<Shape> {};

TEST_P(TorchPrecisionTest, Bf16IsNearFp32AndNotTheSame) {
  const Numbers wide = Train(GetParam().config, Precision::kFp32);
  const Numbers narrow = Train(GetParam().config, Precision::kBf16);
  EXPECT_EQ(narrow.boundary.dtype(), DType::kF32);
  EXPECT_NEAR(narrow.loss / wide.loss, 1.0, 0.01);
  EXPECT_NE(narrow.loss, wide.loss);
  const double distance = RelativeDistance(narrow.gradient, wide.gradient);
  EXPECT_LT(distance, 0.05);
  EXPECT_GT(distance, 1e-4);
}

TEST_P(TorchPrecisionTest, SameMicrobatchTwiceHasTheSameBits) {
  const Numbers a = Train(GetParam().config, Precision::kBf16);
  const Numbers b = Train(GetParam().config, Precision::kBf16);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.gradient, b.gradient);
}

INSTANTIATE_TEST_SUITE_P(All, TorchPrecisionTest, ::testing::ValuesIn(Shapes()),
                         [](const auto& shape) { return shape.param.name; });

// What a step adds is far below bf16's resolution of a parameter: it must not be lost.
TEST(TorchPrecisionStateTest, UpdatesBelowBf16AddUpInTheParametersAndReachThePasses) {
  const ModelConfig config = TinyModel();
  auto executor = MakeExecutor(config, LayerRange{0, config.layers}, 0, 1, 0, Precision::kBf16);
  const Blob tokens = DrawTokens(1, 2, config), targets = DrawTokens(2, 2, config);
  std::vector<double> losses;
  for (uint64_t step = 1; step <= 400; ++step) {
    ForwardInput forward;
    forward.work = TrainWork(0, Step{step});
    forward.input = tokens;
    forward.targets = targets;
    losses.push_back(executor->Forward(forward)->loss_sum);
    BackwardInput backward;
    backward.work = forward.work;
    backward.segment = kMainSegment;
    ASSERT_TRUE(executor->Backward(backward).ok());
    executor->Seal(Step{step});
    UpdateScalars scalars;
    scalars.grad_scale = 1.0f / 16;
    scalars.step_size = 2e-5f;  // a matrix element of 0.02 has a bf16 spacing of 1.2e-4
    scalars.inv_sqrt_bias2 = 4.5f;
    ASSERT_TRUE(
        executor->Apply(scalars, {executor->Read(Step{step}, {kMainSegment})->gradient}).ok());
    executor->FreeThrough(Step{step});
  }
  EXPECT_LT(losses.back(), losses.front() - 0.1);
}

}  // namespace
}  // namespace starling
