#include "stages/single_process.h"

#include <cmath>
#include <utility>

#include "runtime/base/lane.h"
#include "runtime/base/status_macros.h"
#include "stages/schedule.h"

namespace starling {
namespace {

constexpr SegmentId kSegment{0};

double SquareSum(const Blob& gradient) {
  double sum = 0.0;
  for (float value : gradient.As<float>()) sum += static_cast<double>(value) * value;
  return sum;
}

}  // namespace

SingleProcess::SingleProcess(const RunConfig& config, StageExecutor* executor, Source source)
    : config_(config), executor_(executor), source_(std::move(source)) {}

absl::StatusOr<ForwardOutput> SingleProcess::Forward(const WorkId& work) {
  STARLING_ASSIGN_OR_RETURN(Batch batch, source_(work.id));
  ForwardInput input;
  input.work = work;
  input.input = std::move(batch.tokens);
  input.targets = std::move(batch.targets);
  input.first_sequence = batch.first_sequence;
  input.older = older_ && work.id.kind == WorkKind::kTrain;
  return executor_->Forward(input);
}

absl::StatusOr<SingleProcess::StepResult> SingleProcess::Skip(Step step, const absl::Status& why) {
  executor_->FreeThrough(step);
  older_ = false;  // those before this step are the newest ones
  if (config_.train.on_nonfinite == "stop") return why;
  StepResult result;
  result.skipped = true;
  return result;
}

absl::StatusOr<SingleProcess::StepResult> SingleProcess::RunStep(Step step) {
  const uint32_t microbatches = config_.train.microbatches();
  StepResult result;
  double loss_sum = 0.0;
  for (uint32_t index = 0; index < microbatches; ++index) {
    const WorkId work{MicrobatchId{step, WorkKind::kTrain, index}, AttemptId{}};
    const absl::StatusOr<ForwardOutput> output = Forward(work);
    STARLING_RETURN_IF_ERROR(output.status());
    if (!std::isfinite(output->loss_sum)) {
      return Skip(step, absl::InternalError("the loss of " + ToString(work.id) + " is not finite"));
    }
    loss_sum += output->loss_sum;
    result.tokens += output->tokens;
    BackwardInput backward;
    backward.work = work;
    backward.segment = kSegment;
    backward.want_input_gradient = false;
    STARLING_RETURN_IF_ERROR(executor_->Backward(backward).status());
  }
  executor_->Seal(step);
  STARLING_ASSIGN_OR_RETURN(const SegmentSum sum, executor_->Read(step, {kSegment}));
  result.lane_ok = sum.lane == LaneTotal(step, StageId{0}, microbatches);
  if (!result.lane_ok) return absl::DataLossError("the lane of the gradient is wrong");
  result.loss = loss_sum / static_cast<double>(result.tokens);
  const UpdateScalars scalars =
      MakeUpdate(config_.optimizer, config_.train.steps, step, SquareSum(sum.gradient),
                 result.tokens, &result.gradient_norm, &result.learning_rate);
  if (!std::isfinite(result.gradient_norm)) {
    return Skip(step,
                absl::InternalError("non-finite gradient at step " + std::to_string(Value(step))));
  }
  STARLING_ASSIGN_OR_RETURN(result.state_hash, executor_->Apply(scalars, {sum.gradient}));
  older_ = config_.train.delayed_commit;
  executor_->FreeThrough(step);
  return result;
}

absl::StatusOr<double> SingleProcess::Evaluate(Step step, uint32_t count) {
  double loss_sum = 0.0;
  int64_t tokens = 0;
  for (uint32_t index = 0; index < count; ++index) {
    const WorkId work{MicrobatchId{step, WorkKind::kEvaluate, index}, AttemptId{}};
    STARLING_ASSIGN_OR_RETURN(const ForwardOutput output, Forward(work));
    loss_sum += output.loss_sum;
    tokens += output.tokens;
  }
  if (tokens == 0) return absl::InvalidArgumentError("nothing to evaluate");
  return loss_sum / static_cast<double>(tokens);
}

}  // namespace starling
