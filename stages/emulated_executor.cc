#include "stages/emulated_executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/base/rng.h"
#include "runtime/base/status_macros.h"
#include "stages/model_layout.h"
#include "stages/optimizer.h"

namespace starling {
namespace {

constexpr char kPrefix[] = "emulated";
constexpr double kForwardShare = 1.0 / 3;

// Small enough that a thousand of them are summed exactly in fp32.
float Addition(Step step, uint32_t index, StageId stage) {
  return static_cast<float>(1 + MixAll(Value(step), index, Value(stage)) % 64);
}

}  // namespace

absl::StatusOr<bool> IsEmulatedDevice(const std::string& device, absl::Duration* time) {
  if (!absl::StartsWith(device, kPrefix)) return false;
  const std::string rest = device.substr(sizeof(kPrefix) - 1);
  if (rest.empty() || rest[0] != ':' || !absl::ParseDuration(rest.substr(1), time) ||
      *time < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", device, ": write emulated:DURATION, as in emulated:40ms"));
  }
  return true;
}

EmulatedExecutor::Options EmulatedExecutor::For(const RunConfig& config, StageId stage,
                                                absl::Duration microbatch_time) {
  Options options;
  options.model = config.model;
  options.layers = StageRanges(config)[Value(stage)];
  options.stage = stage;
  options.stages = config.stage_count();
  options.microbatch = config.train.microbatch;
  options.microbatch_time = microbatch_time;
  return options;
}

EmulatedExecutor::EmulatedExecutor(const Options& options)
    : options_(options),
      layout_(ModelStageLayout(options.model, options.layers)),
      segments_(options.stage,
                [this] { return std::vector<float>(static_cast<size_t>(layout_.size)); }) {}

Blob EmulatedExecutor::Boundary(int64_t sequences) const {
  return MutableBlob::Zeros(DType::kF32, {sequences, options_.model.context, options_.model.width})
      .Freeze();
}

absl::Duration EmulatedExecutor::Work(double share, int64_t sequences) const {
  const absl::Duration time = options_.microbatch_time * share * static_cast<double>(sequences) /
                              static_cast<double>(std::max<int64_t>(options_.microbatch, 1));
  absl::SleepFor(time);
  return time;
}

absl::StatusOr<ForwardOutput> EmulatedExecutor::Forward(const ForwardInput& input) {
  if (state_.empty()) return absl::FailedPreconditionError("no state is loaded");
  if (input.input.shape().size() < 2)
    return absl::InvalidArgumentError("an input has no sequences");
  Kept kept;
  kept.sequences = input.input.shape()[0];
  ForwardOutput output;
  output.took = Work(kForwardShare, kept.sequences);
  if (last_stage()) {
    output.tokens = kept.tokens = input.targets.element_count();
    output.loss_sum = kept.loss_sum =
        static_cast<double>(output.tokens) *
        (1 + ToUnit(MixAll(Value(input.work.id.step), input.work.id.index)));
  } else {
    output.output = Boundary(kept.sequences);
  }
  if (input.work.id.kind == WorkKind::kTrain) kept_[input.work] = kept;
  return output;
}

absl::StatusOr<BackwardOutput> EmulatedExecutor::Backward(const BackwardInput& input) {
  const auto node = kept_.extract(input.work);
  if (node.empty()) {
    return absl::FailedPreconditionError("nothing is held of " + ToString(input.work));
  }
  const Kept& kept = node.mapped();
  BackwardOutput output;
  output.took = Work(1 - kForwardShare, kept.sequences);
  const MicrobatchId& id = input.work.id;
  if (input.segment) {
    const float value = Addition(id.step, id.index, options_.stage);
    STARLING_RETURN_IF_ERROR(segments_.Add(
        id.step, *input.segment, {id.index, input.work.attempt, kept.loss_sum, kept.tokens},
        [&](std::vector<float>& sum) {
          for (const TensorSpec& tensor : layout_.tensors) {
            for (int64_t i = 0; i < tensor.count; ++i) {
              sum[static_cast<size_t>(tensor.offset + i)] += value;
            }
          }
          return absl::OkStatus();
        }));
  }
  if (input.want_input_gradient && Value(options_.stage) > 0) {
    output.input_gradient = Boundary(kept.sequences);
  }
  return output;
}

absl::StatusOr<SegmentSum> EmulatedExecutor::Read(Step step,
                                                  const std::vector<SegmentId>& segments) {
  STARLING_ASSIGN_OR_RETURN(const auto frozen, segments_.Frozen(step, segments));
  SegmentSum result;
  MutableBlob sum = MutableBlob::Zeros(DType::kF32, {layout_.size});
  const absl::Span<float> to = sum.As<float>();
  for (const auto* segment : frozen) {
    result.lane += segment->summary.lane;
    for (size_t i = 0; i < to.size(); ++i) to[i] += segment->sum[i];
  }
  result.gradient = std::move(sum).Freeze();
  return result;
}

void EmulatedExecutor::FreeThrough(Step step) {
  segments_.FreeThrough(step);
  while (!kept_.empty() && kept_.begin()->first.id.step <= step) kept_.erase(kept_.begin());
}

absl::StatusOr<Hash128> EmulatedExecutor::Apply(const UpdateScalars& scalars,
                                                const std::vector<Blob>& gradient) {
  if (state_.empty()) return absl::FailedPreconditionError("no state is loaded");
  STARLING_RETURN_IF_ERROR(ApplyAdamW(layout_, scalars, gradient, absl::MakeSpan(state_)));
  return HashBytes(state_.data(), state_.size() * sizeof(float));
}

absl::StatusOr<Blob> EmulatedExecutor::Snapshot() {
  if (state_.empty()) return absl::FailedPreconditionError("no state is loaded");
  return Blob::OfFloats(state_);
}

absl::StatusOr<Hash128> EmulatedExecutor::Load(const Blob& state) {
  if (state.dtype() != DType::kF32 || state.element_count() != kStatePlanes * layout_.size) {
    return absl::InvalidArgumentError(
        absl::StrCat("a state of this stage is f32 [", kStatePlanes * layout_.size, "]"));
  }
  const absl::Span<const float> floats = state.As<float>();
  state_.assign(floats.begin(), floats.end());
  segments_.Clear();
  kept_.clear();
  return HashBytes(state_.data(), state_.size() * sizeof(float));
}

}  // namespace starling
