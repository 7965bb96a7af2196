#include "runtime/peer/metered_compute.h"

#include <type_traits>
#include <utility>

namespace starling {
namespace {

template <typename Output>
StepClock::Measured MeasuredOf(const absl::StatusOr<Output>& output) {
  if (!output.ok()) return {};
  return {output->took, output->decoding, output->encoding};
}

bool IsPass(StepPart part) {
  return part == StepPart::kForward || part == StepPart::kBackward || part == StepPart::kEvaluating;
}

}  // namespace

MeteredCompute::MeteredCompute(std::unique_ptr<Compute> device, Env* env, StepClock* clock)
    : meter_(std::make_shared<Meter>(Meter{env, clock, 0})), device_(std::move(device)) {}

MeteredCompute::~MeteredCompute() {
  meter_->clock->OpsForgotten(meter_->env->Now(), meter_->posted);
  meter_->clock = nullptr;
}

template <typename T>
Compute::Done<T> MeteredCompute::Metered(StepPart part, Done<T> done) {
  meter_->clock->OpPosted(meter_->env->Now(), IsPass(part));
  ++meter_->posted;
  return [meter = meter_, part, done = std::move(done)](absl::StatusOr<T> result) {
    if (meter->clock == nullptr) return done(std::move(result));
    --meter->posted;
    if constexpr (std::is_same_v<T, ForwardOutput> || std::is_same_v<T, BackwardOutput>) {
      meter->clock->OpDone(meter->env->Now(), part, MeasuredOf(result));
      done(std::move(result));
    } else {
      meter->clock->OpDone(meter->env->Now(), part);
      // What follows a sum of gradients is adding up and encoding them.
      Env* const env = meter->env;
      const absl::Duration before = env->InThisCallback();
      done(std::move(result));
      if (part == StepPart::kReducing && meter->clock != nullptr) {
        meter->clock->OnReactorReduced(env->Now(), env->InThisCallback() - before);
      }
    }
  };
}

void MeteredCompute::Forward(ForwardInput input, Done<ForwardOutput> done) {
  const bool train = input.work.id.kind == WorkKind::kTrain;
  device_->Forward(std::move(input),
                   Metered(train ? StepPart::kForward : StepPart::kEvaluating, std::move(done)));
}

void MeteredCompute::Backward(BackwardInput input, Done<BackwardOutput> done) {
  device_->Backward(std::move(input), Metered(StepPart::kBackward, std::move(done)));
}

void MeteredCompute::Seal(Step step, Done<std::vector<SegmentSummary>> done) {
  device_->Seal(step, Metered(StepPart::kReducing, std::move(done)));
}

void MeteredCompute::Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) {
  device_->Read(step, std::move(segments), Metered(StepPart::kReducing, std::move(done)));
}

void MeteredCompute::Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) {
  device_->Apply(scalars, std::move(gradient), Metered(StepPart::kApplying, std::move(done)));
}

void MeteredCompute::Snapshot(Done<Blob> done) {
  device_->Snapshot(Metered(StepPart::kCopying, std::move(done)));
}

void MeteredCompute::Hash(Done<Hash128> done) {
  device_->Hash(Metered(StepPart::kCopying, std::move(done)));
}

void MeteredCompute::Load(Blob state, Done<Hash128> done) {
  device_->Load(std::move(state), Metered(StepPart::kCopying, std::move(done)));
}

}  // namespace starling
