// The executor's contract: what is added where, what is refused, and the state's bits.
#include "stages/torch_executor.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "runtime/base/lane.h"
#include "stages/optimizer.h"
#include "stages/segment_book.h"
#include "stages/single_process.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ForwardInput Input(const WorkId& work, const Blob& input, const Blob& targets = Blob()) {
  ForwardInput forward;
  forward.work = work;
  forward.input = input;
  forward.targets = targets;
  return forward;
}

BackwardInput Into(const WorkId& work, SegmentId segment = kMainSegment) {
  BackwardInput backward;
  backward.work = work;
  backward.segment = segment;
  return backward;
}

class TorchExecutorTest : public ::testing::Test {
 protected:
  // The gradient of one microbatch on its own, computed by another executor.
  std::vector<float> GradientOf(const Blob& tokens, const Blob& targets) {
    auto executor = MakeExecutor(config_, LayerRange{0, config_.layers});
    STARLING_CHECK(executor->Forward(Input(TrainWork(0), tokens, targets)).ok());
    STARLING_CHECK(executor->Backward(Into(TrainWork(0))).ok());
    executor->Seal(Step{1});
    return Values(executor->Read(Step{1}, {kMainSegment})->gradient);
  }

  void Add(uint32_t index, SegmentId segment, uint64_t text) {
    const WorkId work = TrainWork(index);
    ASSERT_TRUE(
        whole_
            ->Forward(Input(work, DrawTokens(text, 2, config_), DrawTokens(text + 100, 2, config_)))
            .ok());
    ASSERT_TRUE(whole_->Backward(Into(work, segment)).ok());
  }

  std::vector<float> Alone(uint64_t text) {
    return GradientOf(DrawTokens(text, 2, config_), DrawTokens(text + 100, 2, config_));
  }

  const ModelConfig config_ = TinyModel();
  std::unique_ptr<TorchExecutor> whole_ = MakeExecutor(config_, LayerRange{0, config_.layers});
};

TEST_F(TorchExecutorTest, SegmentIsTheSumInOrderWithListLaneAndLoss) {
  Add(0, kMainSegment, 1);
  Add(1, kMainSegment, 2);
  const auto summaries = whole_->Seal(Step{1});
  ASSERT_EQ(summaries.size(), 1u);
  ASSERT_EQ(summaries[0].entries.size(), 2u);
  EXPECT_EQ(summaries[0].entries[1].index, 1u);
  EXPECT_EQ(summaries[0].entries[1].tokens, 2 * config_.context);
  EXPECT_NEAR(summaries[0].entries[1].loss_sum, 16 * std::log(13.0), 3.0);
  EXPECT_EQ(summaries[0].lane, LaneTotal(Step{1}, StageId{0}, 2));
  EXPECT_EQ(summaries[0].list_hash, ListHash(summaries[0].entries));
  const auto sum = whole_->Read(Step{1}, {kMainSegment});
  ASSERT_TRUE(sum.ok());
  EXPECT_EQ(sum->lane, summaries[0].lane);
  std::vector<float> expected = Alone(1);
  const std::vector<float> second = Alone(2);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += second[i];
  EXPECT_EQ(Values(sum->gradient), expected);  // one addition per element: to the bit
}

TEST_F(TorchExecutorTest, BackwardAddsInPlaceAndReadHandsOutThoseBytes) {
  Add(0, kMainSegment, 1);
  whole_->Seal(Step{1});
  const auto first = whole_->Read(Step{1}, {kMainSegment});
  const auto again = whole_->Read(Step{1}, {kMainSegment});
  EXPECT_EQ(first->gradient.data(), again->gradient.data());
  // Work after the seal goes elsewhere, and what was handed out does not change.
  const std::vector<float> before = Values(first->gradient);
  Add(1, SegmentId{1}, 2);
  EXPECT_EQ(Values(first->gradient), before);
  whole_->FreeThrough(Step{1});
  EXPECT_EQ(Values(first->gradient), before);
}

TEST_F(TorchExecutorTest, ASumsMemoryIsUsedAgainWhenNobodyReadsItAnyMore) {
  Add(0, kMainSegment, 1);
  whole_->Seal(Step{1});
  auto sum = whole_->Read(Step{1}, {kMainSegment});
  const void* const memory = sum->gradient.data();
  const std::vector<float> before = Values(sum->gradient);
  whole_->FreeThrough(Step{1});
  Add(1, SegmentId{1}, 2);  // of whatever step: a new sum
  EXPECT_EQ(Values(sum->gradient), before) << "it is still being read";
  sum = absl::AbortedError("let go");
  Add(2, SegmentId{2}, 3);
  whole_->Seal(Step{1});
  const auto again = whole_->Read(Step{1}, {SegmentId{2}});
  EXPECT_EQ(again->gradient.data(), memory);
  EXPECT_EQ(Values(again->gradient), Alone(3));
}

TEST_F(TorchExecutorTest, InterleavedSegmentsKeepApartAndReadSumsThem) {
  Add(0, kMainSegment, 1);
  Add(1, SegmentId{1}, 2);
  Add(2, kMainSegment, 3);
  const auto summaries = whole_->Seal(Step{1});
  ASSERT_EQ(summaries.size(), 2u);
  EXPECT_EQ(Values(whole_->Read(Step{1}, {SegmentId{1}})->gradient), Alone(2));
  std::vector<float> expected = Alone(1);
  const std::vector<float> third = Alone(3);
  const std::vector<float> second = Alone(2);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = (expected[i] + third[i]) + second[i];
  const auto both = whole_->Read(Step{1}, {kMainSegment, SegmentId{1}});
  EXPECT_EQ(Values(both->gradient), expected);
  EXPECT_EQ(both->lane, LaneTotal(Step{1}, StageId{0}, 3));
  const auto none = whole_->Read(Step{1}, {});
  EXPECT_EQ(none->lane, 0u);
  EXPECT_EQ(Values(none->gradient), std::vector<float>(expected.size(), 0.0f));
}

TEST_F(TorchExecutorTest, SealedSegmentRefusesLateWork) {
  Add(0, kMainSegment, 1);
  whole_->Seal(Step{1});
  const WorkId late = TrainWork(1);
  ASSERT_TRUE(
      whole_->Forward(Input(late, DrawTokens(1, 2, config_), DrawTokens(2, 2, config_))).ok());
  EXPECT_EQ(whole_->Backward(Into(late)).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Values(whole_->Read(Step{1}, {kMainSegment})->gradient), Alone(1));
}

TEST_F(TorchExecutorTest, MaskedStageGivesTheInputGradientAndAddsNothing) {
  auto middle = MakeExecutor(config_, LayerRange{1, 2}, 1);
  const Blob hidden = DrawHidden(1, 2, config_);
  ASSERT_TRUE(middle->Forward(Input(TrainWork(0), hidden)).ok());
  BackwardInput adding = Into(TrainWork(0));
  adding.gradient = DrawHidden(2, 2, config_);
  const auto expected = middle->Backward(adding);
  ASSERT_TRUE(expected.ok());
  ASSERT_TRUE(middle->Forward(Input(TrainWork(1), hidden)).ok());
  BackwardInput masked = Into(TrainWork(1));
  masked.segment.reset();
  masked.gradient = adding.gradient;
  const auto output = middle->Backward(masked);
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(Values(output->input_gradient), Values(expected->input_gradient));
  const auto summaries = middle->Seal(Step{1});
  ASSERT_EQ(summaries.size(), 1u);
  EXPECT_EQ(summaries[0].entries.size(), 1u);
}

TEST_F(TorchExecutorTest, UnwantedInputGradientIsLeftOutAndParametersAreTheSame) {
  auto middle = MakeExecutor(config_, LayerRange{1, 2}, 1);
  for (uint32_t index : {0u, 1u}) {
    ASSERT_TRUE(middle->Forward(Input(TrainWork(index), DrawHidden(1, 2, config_))).ok());
    BackwardInput backward = Into(TrainWork(index), SegmentId{index});
    backward.gradient = DrawHidden(2, 2, config_);
    backward.want_input_gradient = index == 0;
    const auto output = middle->Backward(backward);
    ASSERT_TRUE(output.ok());
    EXPECT_EQ(output->input_gradient.empty(), index == 1);
  }
  middle->Seal(Step{1});
  EXPECT_EQ(Values(middle->Read(Step{1}, {SegmentId{0}})->gradient),
            Values(middle->Read(Step{1}, {SegmentId{1}})->gradient));
}

TEST_F(TorchExecutorTest, InputAtAnyAlignmentGivesTheSameNumbers) {
  auto middle = MakeExecutor(config_, LayerRange{1, 2}, 1);
  const Blob hidden = DrawHidden(1, 1, config_);
  const auto expected = middle->Forward(Input(TrainWork(0), hidden));
  for (size_t offset : {1u, 4u}) {
    auto bytes = std::make_shared<std::vector<std::byte>>(hidden.size_bytes() + 64);
    std::memcpy(bytes->data() + offset, hidden.data(), hidden.size_bytes());
    const Blob moved(bytes, bytes->data() + offset, DType::kF32, hidden.shape());
    const auto output = middle->Forward(Input(TrainWork(1), moved));
    ASSERT_TRUE(output.ok());
    EXPECT_EQ(Values(output->output), Values(expected->output));
  }
}

TEST_F(TorchExecutorTest, TwoAttemptsAtOneMicrobatchAreKeptApart) {
  WorkId first = TrainWork(0);
  WorkId second = TrainWork(0);
  second.attempt.counter = 9;
  const Blob tokens = DrawTokens(1, 2, config_), targets = DrawTokens(2, 2, config_);
  ASSERT_TRUE(whole_->Forward(Input(first, tokens, targets)).ok());
  ASSERT_TRUE(whole_->Forward(Input(second, tokens, targets)).ok());
  whole_->Drop(first);
  EXPECT_EQ(whole_->Backward(Into(first)).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(whole_->Backward(Into(second)).ok());
  EXPECT_EQ(whole_->Seal(Step{1})[0].entries[0].attempt, second.attempt);
}

TEST_F(TorchExecutorTest, BackwardForgetsTheMicrobatch) {
  Add(0, kMainSegment, 1);
  EXPECT_EQ(whole_->Backward(Into(TrainWork(0))).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TorchExecutorTest, EvaluationHasNoDropoutAndLeavesNothing) {
  ModelConfig dropping = config_;
  dropping.dropout = 0.5;
  auto executor = MakeExecutor(dropping, LayerRange{0, config_.layers});
  const WorkId work{MicrobatchId{Step{1}, WorkKind::kEvaluate, 0}, AttemptId{}};
  const Blob tokens = DrawTokens(1, 2, config_), targets = DrawTokens(2, 2, config_);
  const auto evaluated = executor->Forward(Input(work, tokens, targets));
  const auto without = whole_->Forward(Input(work, tokens, targets));
  const auto trained = executor->Forward(Input(TrainWork(0), tokens, targets));
  EXPECT_EQ(evaluated->loss_sum, without->loss_sum);
  EXPECT_NE(evaluated->loss_sum, trained->loss_sum);
  EXPECT_EQ(executor->Backward(Into(work)).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TorchExecutorTest, FreeThroughFreesEarlierStepsOnly) {
  const Blob tokens = DrawTokens(1, 2, config_), targets = DrawTokens(2, 2, config_);
  ASSERT_TRUE(whole_->Forward(Input(TrainWork(0, Step{1}), tokens, targets)).ok());
  ASSERT_TRUE(whole_->Forward(Input(TrainWork(0, Step{2}), tokens, targets)).ok());
  whole_->FreeThrough(Step{1});
  EXPECT_FALSE(whole_->Backward(Into(TrainWork(0, Step{1}))).ok());
  EXPECT_TRUE(whole_->Backward(Into(TrainWork(0, Step{2}))).ok());
}

TEST_F(TorchExecutorTest, BadInputIsInvalidAndNamesTheShape) {
  const Blob tokens = DrawTokens(1, 2, config_), targets = DrawTokens(2, 2, config_);
  ModelConfig longer = config_;
  longer.context = 9;
  MutableBlob outside = MutableBlob::Zeros(DType::kI32, {2, config_.context});
  outside.As<int32_t>()[3] = 13;
  const Blob strange = std::move(outside).Freeze();
  const std::vector<std::pair<Blob, Blob>> wrong = {
      {Blob(), targets},
      {tokens, Blob()},
      {tokens.Reshaped({16}), targets},
      {DrawHidden(1, 2, config_), targets},
      {tokens, Rows(targets, 0, 1)},
      {DrawTokens(1, 2, longer), DrawTokens(2, 2, longer)},
      {strange, targets},
      {tokens, strange}};
  for (const auto& [input, target] : wrong) {
    const auto output = whole_->Forward(Input(TrainWork(0), input, target));
    EXPECT_EQ(output.status().code(), absl::StatusCode::kInvalidArgument);
  }
  auto middle = MakeExecutor(config_, LayerRange{1, 2}, 1);
  const auto refused = middle->Forward(Input(TrainWork(0), tokens));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("i32 [2, 8]"));
}

TEST_F(TorchExecutorTest, BadGradientIsInvalidAndSpoilsNothing) {
  auto middle = MakeExecutor(config_, LayerRange{1, 2}, 1);
  for (const Blob& gradient : {Blob(), DrawHidden(2, 1, config_), DrawTokens(1, 2, config_)}) {
    ASSERT_TRUE(middle->Forward(Input(TrainWork(0), DrawHidden(1, 2, config_))).ok());
    BackwardInput backward = Into(TrainWork(0));
    backward.gradient = gradient;
    EXPECT_EQ(middle->Backward(backward).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(middle->Seal(Step{1}).empty());
}

TEST_F(TorchExecutorTest, NonFiniteLossShowsInTheLossAndInTheSum) {
  auto last = MakeExecutor(config_, LayerRange{2, 3}, 2);
  std::vector<float> poison = Values(DrawHidden(1, 1, config_));
  poison[7] = std::numeric_limits<float>::quiet_NaN();
  const Blob input = Blob::OfFloats(poison).Reshaped({1, config_.context, config_.width});
  const WorkId work = TrainWork(4, Step{6});
  const auto output = last->Forward(Input(work, input, DrawTokens(1, 1, config_)));
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_FALSE(std::isfinite(output->loss_sum));
  ASSERT_TRUE(last->Backward(Into(work)).ok());
  const auto sealed = last->Seal(Step{6});
  ASSERT_EQ(sealed.size(), 1u);
  EXPECT_FALSE(std::isfinite(sealed[0].entries[0].loss_sum));
  const auto sum = last->Read(Step{6}, {sealed[0].id});
  ASSERT_TRUE(sum.ok());
  double total = 0;
  for (float value : Values(sum->gradient)) total += value;
  EXPECT_FALSE(std::isfinite(total));
}

TEST_F(TorchExecutorTest, NothingWorksBeforeAStateIsLoaded) {
  TorchExecutor::Options options;
  options.model = config_;
  options.layers = LayerRange{0, config_.layers};
  const auto executor = TorchExecutor::Create(options);
  ASSERT_TRUE(executor.ok());
  const Blob tokens = DrawTokens(1, 2, config_);
  EXPECT_EQ((*executor)->Forward(Input(TrainWork(0), tokens, tokens)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*executor)->Snapshot().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*executor)->Apply(UpdateScalars(), {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(TorchExecutorCreateTest, UnknownDeviceAndForeignLayersAreInvalid) {
  TorchExecutor::Options options;
  options.model = TinyModel();
  options.layers = LayerRange{0, 1};
  options.device = "abacus";
  EXPECT_EQ(TorchExecutor::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.device = "cpu";
  options.layers = LayerRange{2, 4};
  EXPECT_EQ(TorchExecutor::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

UpdateScalars SomeScalars() {
  UpdateScalars scalars;
  scalars.grad_scale = 0.1f;
  scalars.step_size = 0.003f;
  scalars.decay = 0.999f;
  return scalars;
}

// Delayed commit: what was begun before an update, or is said to be older, is computed as if there
// had been none; the rest as without any older parameters.
TEST_F(TorchExecutorTest, OlderParametersGiveTheBitsFromBeforeTheUpdate) {
  auto two = MakeExecutor(config_, LayerRange{0, config_.layers}, 0, 1, 0, Precision::kFp32,
                          /*keep_older=*/true);
  const Blob gradient =
      Blob::OfFloats(std::vector<float>(static_cast<size_t>(whole_->size()), 0.25f));
  for (uint32_t update = 0; update < 3; ++update) {
    const Step step{update + 1};
    const Step next{update + 2};
    const Blob tokens = DrawTokens(update, 2, config_), targets = DrawTokens(9, 2, config_);
    const auto pass = [&](TorchExecutor& executor, const WorkId& work, bool older) {
      ForwardInput input = Input(work, tokens, targets);
      input.older = older;
      const auto output = executor.Forward(input);
      STARLING_CHECK_MSG(output.ok(), std::string(output.status().message()));
      return output->loss_sum;
    };
    const double before = pass(*whole_, TrainWork(0, step), false);
    ASSERT_TRUE(whole_->Backward(Into(TrainWork(0, step))).ok());
    whole_->Seal(step);
    const std::vector<float> sum = Values(whole_->Read(step, {kMainSegment})->gradient);

    pass(*two, TrainWork(0, step), false);
    const auto expected = whole_->Apply(SomeScalars(), {gradient});
    const auto updated = two->Apply(SomeScalars(), {gradient});
    ASSERT_TRUE(expected.ok() && updated.ok());
    EXPECT_EQ(*updated, *expected);
    EXPECT_EQ(Values(*two->Snapshot()), Values(*whole_->Snapshot()));
    ASSERT_TRUE(two->Backward(Into(TrainWork(0, step))).ok())
        << "its forward was before the update";
    EXPECT_EQ(pass(*two, TrainWork(0, next), false), pass(*whole_, TrainWork(0, next), false));
    EXPECT_EQ(pass(*two, TrainWork(1, step), true), before) << "a replay";
    ASSERT_TRUE(two->Backward(Into(TrainWork(1, step), SegmentId{1})).ok());
    two->Seal(step);
    EXPECT_EQ(Values(two->Read(step, {kMainSegment})->gradient), sum);
    EXPECT_EQ(Values(two->Read(step, {SegmentId{1}})->gradient), sum);
    for (TorchExecutor* executor : {whole_.get(), two.get()}) executor->FreeThrough(next);
  }
}

TEST_F(TorchExecutorTest, OlderParametersThatAreNotKeptAreRefused) {
  auto two = MakeExecutor(config_, LayerRange{0, config_.layers}, 0, 1, 0, Precision::kFp32,
                          /*keep_older=*/true);
  ForwardInput input = Input(TrainWork(0), DrawTokens(1, 2, config_), DrawTokens(2, 2, config_));
  const Blob gradient =
      Blob::OfFloats(std::vector<float>(static_cast<size_t>(whole_->size()), 0.25f));
  ASSERT_TRUE(two->Forward(input).ok());
  input.older = true;
  EXPECT_EQ(two->Forward(input).status().code(), absl::StatusCode::kFailedPrecondition)
      << "there was no update";
  ASSERT_TRUE(two->Apply(SomeScalars(), {gradient}).ok());
  ASSERT_TRUE(two->Apply(SomeScalars(), {gradient}).ok());
  EXPECT_EQ(two->Backward(Into(TrainWork(0))).status().code(),
            absl::StatusCode::kFailedPrecondition)
      << "its parameters are gone";
  EXPECT_TRUE(two->Forward(input).ok());
  ASSERT_TRUE(two->Load(*two->Snapshot()).ok());
  EXPECT_FALSE(two->Forward(input).ok()) << "it was loaded";
  ASSERT_TRUE(whole_->Apply(SomeScalars(), {gradient}).ok());
  EXPECT_FALSE(whole_->Forward(input).ok()) << "it keeps none";
}

TEST_F(TorchExecutorTest, ApplyGivesTheSameBitsUnderAnyThreadCountAndCut) {
  std::vector<float> values(static_cast<size_t>(whole_->size()));
  Rng rng(3);
  for (float& value : values) value = static_cast<float>(rng.Unit() - 0.5);
  const Blob gradient = Blob::OfFloats(values);
  const auto expected = whole_->Apply(SomeScalars(), {gradient});
  ASSERT_TRUE(expected.ok());
  auto threaded = MakeExecutor(config_, LayerRange{0, config_.layers}, 0, 2);
  const auto hash = threaded->Apply(
      SomeScalars(), {gradient.Slice(0, 777), gradient.Slice(777, whole_->size() - 777)});
  ASSERT_TRUE(hash.ok());
  EXPECT_EQ(*hash, *expected);
  const Blob state = *whole_->Snapshot();
  EXPECT_EQ(HashBytes(state.data(), state.size_bytes()), *expected);
}

TEST_F(TorchExecutorTest, WrongGradientSizeLeavesTheState) {
  const Blob before = *whole_->Snapshot();
  EXPECT_EQ(whole_->Apply(SomeScalars(), {Blob::OfFloats({1.0f})}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Values(*whole_->Snapshot()), Values(before));
}

TEST_F(TorchExecutorTest, ForwardOfAnEarlierVersionCannotBeFinishedOnALaterOne) {
  const Blob tokens = DrawTokens(1, 2, config_), targets = DrawTokens(2, 2, config_);
  ASSERT_TRUE(whole_->Forward(Input(TrainWork(0), tokens, targets)).ok());
  const std::vector<float> zeros(static_cast<size_t>(whole_->size()), 0.0f);
  ASSERT_TRUE(whole_->Apply(SomeScalars(), {Blob::OfFloats(zeros)}).ok());
  EXPECT_EQ(whole_->Backward(Into(TrainWork(0))).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TorchExecutorTest, SnapshotIsACopyAndLoadRestoresItsHashAndFreesAllElse) {
  Add(0, kMainSegment, 1);
  whole_->Seal(Step{1});
  const Blob gradient = whole_->Read(Step{1}, {kMainSegment})->gradient;
  const Hash128 one = *whole_->Apply(SomeScalars(), {gradient});
  EXPECT_EQ(*whole_->Hash(), one);
  const Blob snapshot = *whole_->Snapshot();
  const std::vector<float> copied = Values(snapshot);
  const Hash128 two = *whole_->Apply(SomeScalars(), {gradient});
  EXPECT_NE(one, two);
  EXPECT_EQ(Values(snapshot), copied);
  EXPECT_EQ(*whole_->Load(snapshot), one);
  EXPECT_TRUE(whole_->Seal(Step{1}).empty());
  EXPECT_EQ(*whole_->Apply(SomeScalars(), {gradient}), two);
  EXPECT_EQ(whole_->Load(gradient).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TorchExecutorThreadsTest, CallingThreadGetsTheConfiguredThreads) {
  const ModelConfig config = TinyModel();
  auto executor = MakeExecutor(config, LayerRange{0, 1}, 0, 2);
  EXPECT_EQ(at::get_num_threads(), 2);
  auto single = MakeExecutor(config, LayerRange{0, 1}, 0, 1);
  EXPECT_EQ(at::get_num_threads(), 1);
}

// The whole way: text in, steps by the reference trainer, loss down.
class SingleProcessTest : public ::testing::Test {
 protected:
  SingleProcessTest() {
    config_.model = TinyModel();
    config_.model.width = 32;
    config_.model.context = 16;
    config_.train.global_batch = 7;  // the last microbatch is short
    config_.train.microbatch = 2;
    config_.train.steps = 30;
    config_.optimizer.lr = 1e-2;
    config_.optimizer.warmup = 3;
    Restart();
  }

  void Restart() { executor_ = MakeExecutor(config_.model, LayerRange{0, config_.model.layers}); }

  // Windows of "abcdefghijklm" over and over: the next token is a function of the last.
  absl::StatusOr<SingleProcess::Batch> Batch(MicrobatchId id) {
    const int64_t begin = id.index * config_.train.microbatch;
    const int64_t rows = std::min(config_.train.microbatch, config_.train.global_batch - begin);
    MutableBlob tokens = MutableBlob::Uninitialized(DType::kI32, {rows, config_.model.context});
    MutableBlob targets = MutableBlob::Uninitialized(DType::kI32, {rows, config_.model.context});
    for (int64_t i = 0; i < rows * config_.model.context; ++i) {
      const int64_t row = begin + i / config_.model.context;
      const int64_t at = row * 5 + static_cast<int64_t>(Value(id.step)) + i % config_.model.context;
      tokens.As<int32_t>()[i] = static_cast<int32_t>(at % 13);
      targets.As<int32_t>()[i] = static_cast<int32_t>((at + 1) % 13);
    }
    SingleProcess::Batch batch;
    batch.tokens = std::move(tokens).Freeze();
    batch.targets = std::move(targets).Freeze();
    batch.first_sequence = static_cast<uint64_t>(begin);
    return batch;
  }

  SingleProcess Trainer() {
    return SingleProcess(config_, executor_.get(), [this](MicrobatchId id) { return Batch(id); });
  }

  RunConfig config_;
  std::unique_ptr<TorchExecutor> executor_;
};

TEST_F(SingleProcessTest, LossFallsAndTheNumbersAreThoseOfTheStep) {
  SingleProcess trainer = Trainer();
  double first = 0, last = 0;
  for (uint64_t step = 1; step <= 30; ++step) {
    const auto result = trainer.RunStep(Step{step});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(result->lane_ok);
    EXPECT_EQ(result->tokens, 7 * 16);
    EXPECT_GT(result->gradient_norm, 0);
    if (step == 1) first = result->loss;
    last = result->loss;
  }
  EXPECT_NEAR(first, std::log(13.0), 0.2);
  EXPECT_LT(last, 0.5 * first);
  const auto evaluated = trainer.Evaluate(Step{30}, 4);
  ASSERT_TRUE(evaluated.ok());
  EXPECT_LT(*evaluated, last);
}

TEST_F(SingleProcessTest, SameRunTwiceHasTheSameBits) {
  std::vector<Hash128> hashes;
  for (int run = 0; run < 2; ++run) {
    Restart();
    SingleProcess trainer = Trainer();
    for (uint64_t step = 1; step <= 3; ++step) {
      const auto result = trainer.RunStep(Step{step});
      ASSERT_TRUE(result.ok());
      hashes.push_back(result->state_hash);
    }
  }
  EXPECT_THAT(std::vector<Hash128>(hashes.begin(), hashes.begin() + 3),
              ElementsAre(hashes[3], hashes[4], hashes[5]));
}

TEST_F(SingleProcessTest, DelayedCommitTakesEachGradientOneUpdateEarlier) {
  RunConfig delayed = config_;
  delayed.train.delayed_commit = true;
  auto two = MakeExecutor(config_.model, LayerRange{0, config_.model.layers}, 0, 1, 0,
                          Precision::kFp32, /*keep_older=*/true);
  SingleProcess trainer(delayed, two.get(), [this](MicrobatchId id) { return Batch(id); });
  std::vector<Blob> states = {*two->Snapshot()};
  for (uint64_t step = 1; step <= 6; ++step) {
    ASSERT_TRUE(executor_->Load(states[step < 2 ? 0 : step - 2]).ok());
    const auto expected = Trainer().RunStep(Step{step});
    const auto result = trainer.RunStep(Step{step});
    ASSERT_TRUE(expected.ok() && result.ok());
    EXPECT_EQ(result->loss, expected->loss) << "step " << step;
    EXPECT_EQ(result->gradient_norm, expected->gradient_norm) << "step " << step;
    EXPECT_EQ(result->state_hash == expected->state_hash, step == 1);
    states.push_back(*two->Snapshot());
  }
}

TEST_F(SingleProcessTest, NonFiniteLossSkipsTheStepOrStopsTheRunAsConfigured) {
  std::vector<float> state = Values(*executor_->Snapshot());
  state[0] = std::numeric_limits<float>::infinity();
  for (float& value : state) value *= 1e30f;
  ASSERT_TRUE(executor_->Load(Blob::OfFloats(state)).ok());
  const Blob before = *executor_->Snapshot();
  const auto skipped = Trainer().RunStep(Step{1});
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  EXPECT_TRUE(skipped->skipped);
  const Blob after = *executor_->Snapshot();
  EXPECT_EQ(HashBytes(after.data(), after.size_bytes()),
            HashBytes(before.data(), before.size_bytes()));
  config_.train.on_nonfinite = "stop";
  const auto stopped = Trainer().RunStep(Step{1});
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(stopped.status().message()), HasSubstr("step 1 microbatch 0"));
}

TEST_F(SingleProcessTest, UnreadableTextIsPassedOn) {
  SingleProcess trainer(config_, executor_.get(), [](MicrobatchId) {
    return absl::StatusOr<SingleProcess::Batch>(absl::DataLossError("the text has changed"));
  });
  EXPECT_EQ(trainer.RunStep(Step{1}).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace starling
