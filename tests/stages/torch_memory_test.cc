// A replica short of memory: what it keeps, and that its numbers are those of one that is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stages/model_layout.h"
#include "stages/torch_allocations.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kMicrobatches = 6;

// Parameters, moments, a gradient and a result: what a replica needs for certain.
int64_t Fixed(const ModelConfig& config, LayerRange layers) {
  return 5 * ModelStageLayout(config, layers).size * 4;
}

// All that a middle or last stage gives for some microbatches that are in flight together.
struct Numbers {
  std::vector<std::vector<float>> outputs, input_gradients;
  std::vector<double> losses;
  std::vector<float> gradient;
  int64_t held = 0;  // bytes that the forward passes left, outputs included
};

Numbers TrainTogether(TorchExecutor* executor, const ModelConfig& config, bool last) {
  Numbers numbers;
  // The second of each shape, so that buffers that are made once are there.
  std::vector<ForwardOutput> kept;
  const auto input_of = [&](uint32_t index) {
    ForwardInput input;
    input.work = TrainWork(index);
    input.input = DrawHidden(index + 1, 2, config);
    if (last) input.targets = DrawTokens(index + 50, 2, config);
    input.first_sequence = 2 * index;
    return input;
  };
  STARLING_CHECK(executor->Forward(input_of(99)).ok());
  executor->Drop(TrainWork(99));
  {
    const NetAllocations allocations;
    for (uint32_t i = 0; i < kMicrobatches; ++i) {
      auto output = executor->Forward(input_of(i));
      STARLING_CHECK_MSG(output.ok(), std::string(output.status().message()));
      numbers.losses.push_back(output->loss_sum);
      kept.push_back(std::move(output).value());
    }
    numbers.held = allocations.bytes();
  }
  for (uint32_t i = 0; i < kMicrobatches; ++i) {
    BackwardInput backward;
    backward.work = TrainWork(i);
    backward.segment = kMainSegment;
    if (!last) {
      numbers.outputs.push_back(Values(kept[i].output));
      backward.gradient = DrawHidden(i + 100, 2, config);
    }
    auto output = executor->Backward(backward);
    STARLING_CHECK_MSG(output.ok(), std::string(output.status().message()));
    numbers.input_gradients.push_back(Values(output->input_gradient));
  }
  executor->Seal(Step{1});
  numbers.gradient = Values(executor->Read(Step{1}, {kMainSegment})->gradient);
  return numbers;
}

class TorchMemoryTest : public ::testing::TestWithParam<Shape> {
 protected:
  Numbers With(int64_t memory, LayerRange layers) {
    auto executor = MakeExecutor(config_, layers, 1, 1, memory);
    return TrainTogether(executor.get(), config_, layers.end == config_.layers);
  }

  void ExpectSameNumbers(const Numbers& a, const Numbers& b) {
    EXPECT_EQ(a.outputs, b.outputs);
    EXPECT_EQ(a.losses, b.losses);
    EXPECT_EQ(a.input_gradients, b.input_gradients);
    EXPECT_EQ(a.gradient, b.gradient);
  }

  const ModelConfig config_ = GetParam().config;
};

TEST_P(TorchMemoryTest, RecomputedMicrobatchesHaveTheSameBits) {
  for (const LayerRange layers : {LayerRange{1, 2}, LayerRange{1, config_.layers}}) {
    const Numbers all = With(0, layers);
    const Numbers none = With(Fixed(config_, layers) + 1, layers);
    ExpectSameNumbers(none, all);
    EXPECT_LT(none.held, all.held);
  }
}

TEST_P(TorchMemoryTest, GraphsAreKeptUpToTheBound) {
  const LayerRange layers{1, 2};
  const Numbers all = With(0, layers);
  const int64_t graph = all.held / kMicrobatches;
  // Three graphs, and one more that is made again for its backward.
  const Numbers some = With(Fixed(config_, layers) + 4 * graph + graph / 2, layers);
  const Numbers none = With(Fixed(config_, layers) + 1, layers);
  ExpectSameNumbers(some, all);
  EXPECT_GT(some.held, none.held);
  EXPECT_LT(some.held, 4 * graph + 4 * graph / 2);
}

INSTANTIATE_TEST_SUITE_P(All, TorchMemoryTest, ::testing::ValuesIn(Shapes()),
                         [](const auto& shape) { return shape.param.name; });

TEST(TorchMemoryCreateTest, StageThatDoesNotFitIsRefusedWithBothSizes) {
  ModelConfig config = TinyModel();
  config.width = 256;
  config.vocabulary = 1000;
  TorchExecutor::Options options;
  options.model = config;
  options.layers = LayerRange{0, config.layers};
  options.memory = 1 << 20;
  const auto made = TorchExecutor::Create(options);
  EXPECT_TRUE(absl::IsInvalidArgument(made.status()));
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("memory is set to 1 MiB"));
}

TEST(TorchMemoryTest, SealedStepFreesWhatWasNeverFinished) {
  const ModelConfig config = TinyModel();
  auto executor = MakeExecutor(config, LayerRange{1, 2}, 1, 1, Fixed(config, LayerRange{1, 2}) + 1);
  ForwardInput input;
  for (uint32_t i = 0; i < 2; ++i) {  // the second keeps its input only
    input.work = TrainWork(i);
    input.input = DrawHidden(i, 2, config);
    ASSERT_TRUE(executor->Forward(input).ok());
  }
  executor->FreeThrough(Step{1});
  BackwardInput backward;
  backward.work = TrainWork(1);
  backward.gradient = DrawHidden(9, 2, config);
  EXPECT_TRUE(absl::IsFailedPrecondition(executor->Backward(backward).status()));
}

}  // namespace
}  // namespace starling
