#include "runtime/peer/metered_compute.h"

#include <type_traits>
#include <utility>

namespace starling {

MeteredCompute::MeteredCompute(std::unique_ptr<Compute> device, Env* env, StepClock* clock)
    : meter_(std::make_shared<Meter>(Meter{env, clock})), device_(std::move(device)) {}

MeteredCompute::~MeteredCompute() {
  std::exchange(meter_->clock, nullptr)->Forget(meter_->env->Now());
}

template <typename T>
Compute::Done<T> MeteredCompute::Metered(StepPart part, Done<T> done) {
  meter_->clock->OpPosted(meter_->env->Now(), IsPass(part));
  return [meter = meter_, part, done = std::move(done)](absl::StatusOr<T> result) {
    if (meter->clock == nullptr) return done(std::move(result));
    if constexpr (std::is_same_v<T, ForwardOutput> || std::is_same_v<T, BackwardOutput>) {
      const absl::Duration took = result.ok() ? result->took : absl::ZeroDuration();
      meter->clock->OpDone(meter->env->Now(), part, took);
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

Compute::Done<Blob> MeteredCompute::MeteredCodec(StepPart part, Done<Blob> done) {
  meter_->clock->CodecPosted(meter_->env->Now(), part);
  return [meter = meter_, part, done = std::move(done)](absl::StatusOr<Blob> result) {
    if (meter->clock != nullptr) meter->clock->CodecDone(meter->env->Now(), part);
    done(std::move(result));
  };
}

void MeteredCompute::Decode(Blob encoded, Done<Blob> done) {
  device_->Decode(std::move(encoded), MeteredCodec(StepPart::kDecoding, std::move(done)));
}

void MeteredCompute::Encode(Blob values, Coding coding, Done<Blob> done) {
  device_->Encode(std::move(values), coding, MeteredCodec(StepPart::kEncoding, std::move(done)));
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
