// A single mistake, planted: one microbatch of one stage counted twice, never, or after the seal.
// The norm and the lane must show it. The loss hardly does, which is why no test here compares
// losses alone.
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/base/lane.h"
#include "stages/executor.h"
#include "stages/schedule.h"
#include "stages/single_process.h"
#include "tests/stages/torch_testing.h"

namespace starling {
namespace {

constexpr SegmentId kLateSegment{1};
constexpr SegmentId kForgottenSegment{2};

enum class Mistake { kNone, kTwice, kNever, kAfterSeal };

// The right executor, which at one step does one thing wrong with one microbatch and says nothing
// of it: the list it seals is the one it should have. The gradients go through the executor's own
// segment book; the mistake is in what it is asked to add, as that of a faulty stage server would.
class MistakenExecutor final : public StageExecutor {
 public:
  MistakenExecutor(std::unique_ptr<StageExecutor> right, Mistake mistake, MicrobatchId id)
      : right_(std::move(right)), mistake_(mistake), id_(id) {}

  int64_t size() const override { return right_->size(); }
  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override {
    if (input.work.id == id_) forward_ = input;
    return right_->Forward(input);
  }
  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override {
    if (!(input.work.id == id_)) return right_->Backward(input);
    backward_ = input;
    BackwardInput changed = input;
    // The gradient still goes on to the stage before.
    if (mistake_ == Mistake::kNever) changed.segment = kForgottenSegment;
    const absl::StatusOr<BackwardOutput> output = right_->Backward(changed);
    if (mistake_ == Mistake::kTwice) {
      EXPECT_TRUE(CountAgain(kMainSegment).ok());
    }
    return output;
  }
  void Drop(WorkId work) override { right_->Drop(work); }
  std::vector<SegmentSummary> Seal(Step step) override {
    std::vector<SegmentSummary> sealed = right_->Seal(step);
    if (mistake_ != Mistake::kAfterSeal || step != id_.step) return sealed;
    // The sealed segment itself refuses.
    EXPECT_EQ(CountAgain(kMainSegment).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(CountAgain(kLateSegment).ok());
    right_->Seal(step);
    return sealed;
  }
  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override {
    if (mistake_ != Mistake::kAfterSeal || step != id_.step) return right_->Read(step, segments);
    std::vector<SegmentId> with_late = segments;
    with_late.push_back(kLateSegment);
    return right_->Read(step, with_late);
  }
  void FreeThrough(Step step) override { right_->FreeThrough(step); }
  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override {
    return right_->Apply(scalars, gradient);
  }
  absl::StatusOr<Blob> Snapshot() override { return right_->Snapshot(); }
  absl::StatusOr<Hash128> Load(const Blob& state) override { return right_->Load(state); }

 private:
  // The microbatch once more, as a new attempt.
  absl::Status CountAgain(SegmentId segment) {
    ++attempts_;
    forward_.work.attempt.counter = attempts_;
    backward_.work = forward_.work;
    backward_.segment = segment;
    const absl::Status forward = right_->Forward(forward_).status();
    if (!forward.ok()) return forward;
    return right_->Backward(backward_).status();
  }

  const std::unique_ptr<StageExecutor> right_;
  const Mistake mistake_;
  const MicrobatchId id_;
  ForwardInput forward_;
  BackwardInput backward_;
  uint32_t attempts_ = 100;
};

constexpr int64_t kPlantedSteps = 12;
constexpr uint32_t kStages = 3;
constexpr MicrobatchId kPlanted{Step{8}, WorkKind::kTrain, 5};
constexpr StageId kPlantedStage{1};

RunConfig PlantedConfig() {
  RunConfig config;
  config.model.layers = 6;
  config.model.width = 32;
  config.model.heads = 2;
  config.model.context = 32;
  config.model.vocabulary = 64;
  config.model.dropout = 0.1;
  config.train.steps = kPlantedSteps;
  config.train.global_batch = 32;
  config.train.microbatch = 2;
  config.optimizer.lr = 1e-3;
  config.optimizer.warmup = 4;
  config.swarm.stages = kStages;
  return config;
}

SingleProcess::Batch PlantedBatch(const RunConfig& config, MicrobatchId id) {
  const uint64_t seed = MixAll(3, Value(id.step), id.index);
  // Each token is followed by one of two, so that there is something to learn.
  MutableBlob tokens =
      MutableBlob::Uninitialized(DType::kI32, {config.train.microbatch, config.model.context + 1});
  Rng rng(seed);
  int32_t last = 0;
  for (int32_t& token : tokens.As<int32_t>()) {
    last = static_cast<int32_t>((5 * static_cast<uint64_t>(last) + 1 + rng.Below(2)) % 64);
    token = last;
  }
  const Blob both = std::move(tokens).Freeze();
  MutableBlob inputs =
      MutableBlob::Uninitialized(DType::kI32, {config.train.microbatch, config.model.context});
  MutableBlob targets =
      MutableBlob::Uninitialized(DType::kI32, {config.train.microbatch, config.model.context});
  for (int64_t row = 0; row < config.train.microbatch; ++row) {
    for (int64_t at = 0; at < config.model.context; ++at) {
      const size_t to = static_cast<size_t>(row * config.model.context + at);
      const size_t from = static_cast<size_t>(row * (config.model.context + 1) + at);
      inputs.As<int32_t>()[to] = both.As<int32_t>()[from];
      targets.As<int32_t>()[to] = both.As<int32_t>()[from + 1];
    }
  }
  return {std::move(inputs).Freeze(), std::move(targets).Freeze(),
          id.index * static_cast<uint64_t>(config.train.microbatch)};
}

struct StepNumbers {
  double loss = 0;
  double norm = 0;
  bool lanes_right = true;
};

// Three stages, one replica each, stepped by hand as the trainer's decision does it: one norm over
// all stages, the same scalars for each.
class Pipeline {
 public:
  explicit Pipeline(Mistake mistake) : config_(PlantedConfig()) {
    const std::vector<LayerRange> ranges = StageRanges(config_);
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      std::unique_ptr<StageExecutor> executor = MakeExecutor(config_.model, ranges[stage], stage);
      if (StageId{stage} == kPlantedStage) {
        executor = std::make_unique<MistakenExecutor>(std::move(executor), mistake, kPlanted);
      }
      stages_.push_back(std::move(executor));
    }
  }

  StepNumbers TakeStep(Step step) {
    StepNumbers numbers;
    double loss_sum = 0;
    const uint32_t microbatches = config_.train.microbatches();
    for (uint32_t index = 0; index < microbatches; ++index)
      loss_sum += Pass(TrainWork(index, step));
    const int64_t tokens = config_.train.global_batch * config_.model.context;
    double square = 0;
    std::vector<Blob> gradients;
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      stages_[stage]->Seal(step);
      const absl::StatusOr<SegmentSum> sum = stages_[stage]->Read(step, {kMainSegment});
      EXPECT_TRUE(sum.ok()) << sum.status();
      numbers.lanes_right &= sum->lane == LaneTotal(step, StageId{stage}, microbatches);
      for (float value : sum->gradient.As<float>()) square += static_cast<double>(value) * value;
      gradients.push_back(sum->gradient);
    }
    const UpdateScalars scalars = MakeUpdate(config_.optimizer, config_.train.steps, step, square,
                                             tokens, &numbers.norm, nullptr);
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      EXPECT_TRUE(stages_[stage]->Apply(scalars, {gradients[stage]}).ok());
      stages_[stage]->FreeThrough(step);
    }
    numbers.loss = loss_sum / static_cast<double>(tokens);
    return numbers;
  }

 private:
  double Pass(const WorkId& work) {
    const SingleProcess::Batch batch = PlantedBatch(config_, work.id);
    ForwardInput forward;
    forward.work = work;
    forward.input = batch.tokens;
    forward.first_sequence = batch.first_sequence;
    double loss = 0;
    for (uint32_t stage = 0; stage < kStages; ++stage) {
      if (stage + 1 == kStages) forward.targets = batch.targets;
      const absl::StatusOr<ForwardOutput> output = stages_[stage]->Forward(forward);
      EXPECT_TRUE(output.ok()) << output.status();
      forward.input = output->output;
      loss = output->loss_sum;
    }
    BackwardInput backward;
    backward.work = work;
    backward.segment = kMainSegment;
    for (uint32_t stage = kStages; stage-- > 0;) {
      backward.want_input_gradient = stage > 0;
      const absl::StatusOr<BackwardOutput> output = stages_[stage]->Backward(backward);
      EXPECT_TRUE(output.ok()) << output.status();
      backward.gradient = output->input_gradient;
    }
    return loss;
  }

  const RunConfig config_;
  std::vector<std::unique_ptr<StageExecutor>> stages_;
};

std::vector<StepNumbers> RunStages(Mistake mistake) {
  Pipeline pipeline(mistake);
  std::vector<StepNumbers> steps;
  for (int64_t step = 1; step <= kPlantedSteps; ++step) {
    steps.push_back(pipeline.TakeStep(Step{static_cast<uint64_t>(step)}));
  }
  return steps;
}

// The independent reference.
std::vector<StepNumbers> RunWhole() {
  const RunConfig config = PlantedConfig();
  const auto executor = MakeExecutor(config.model, LayerRange{0, config.model.layers});
  SingleProcess process(config, executor.get(),
                        [&](MicrobatchId id) { return PlantedBatch(config, id); });
  std::vector<StepNumbers> steps;
  for (int64_t step = 1; step <= kPlantedSteps; ++step) {
    const auto result = process.RunStep(Step{static_cast<uint64_t>(step)});
    EXPECT_TRUE(result.ok()) << result.status();
    steps.push_back({result->loss, result->gradient_norm, result->lane_ok});
  }
  return steps;
}

class PlantedMistakeTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { whole_ = new std::vector<StepNumbers>(RunWhole()); }
  static void TearDownTestSuite() {
    delete whole_;
    whole_ = nullptr;
  }

  static double Difference(double a, double b) { return std::abs(a - b) / std::abs(b); }

  // The comparison that the tests of clusters make, on a run with a mistake at kPlanted.
  void ExpectNormAndLaneShow(Mistake mistake) {
    const std::vector<StepNumbers> steps = RunStages(mistake);
    const size_t planted = Value(kPlanted.step) - 1;
    for (size_t i = 0; i < steps.size(); ++i) {
      const StepNumbers& right = (*whole_)[i];
      const double loss = Difference(steps[i].loss, right.loss);
      const double norm = Difference(steps[i].norm, right.norm);
      std::cout << "step " << i + 1 << ": loss differs by " << loss << ", norm by " << norm << "\n";
      EXPECT_EQ(steps[i].lanes_right, i != planted) << "step " << i + 1;
      // A step's loss is computed before its update: it comes too late, and shows little.
      if (i <= planted) {
        EXPECT_LE(loss, 1e-5) << "step " << i + 1;
      }
      if (i < planted) {
        EXPECT_LE(norm, 1e-4) << "step " << i + 1;
      }
      if (i == planted) {
        EXPECT_GT(norm, 1e-4);
      }
    }
  }

  static std::vector<StepNumbers>* whole_;
};

std::vector<StepNumbers>* PlantedMistakeTest::whole_ = nullptr;

TEST_F(PlantedMistakeTest, WithoutAMistakeThePipelineIsTheWholeModel) {
  const std::vector<StepNumbers> steps = RunStages(Mistake::kNone);
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_LE(Difference(steps[i].loss, (*whole_)[i].loss), 1e-5) << "step " << i + 1;
    EXPECT_LE(Difference(steps[i].norm, (*whole_)[i].norm), 1e-4) << "step " << i + 1;
    EXPECT_TRUE(steps[i].lanes_right) << "step " << i + 1;
  }
}

TEST_F(PlantedMistakeTest, MicrobatchCountedTwiceShowsInNormAndLane) {
  ExpectNormAndLaneShow(Mistake::kTwice);
}

TEST_F(PlantedMistakeTest, MicrobatchNeverCountedShowsInNormAndLane) {
  ExpectNormAndLaneShow(Mistake::kNever);
}

TEST_F(PlantedMistakeTest, MicrobatchCountedAfterTheSealShowsInNormAndLane) {
  ExpectNormAndLaneShow(Mistake::kAfterSeal);
}

}  // namespace
}  // namespace starling
