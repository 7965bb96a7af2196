// MeteredCompute: a Compute that tells a StepClock what the device does, and is otherwise the one
// it is given.
//
// Reactor thread. The Env and the clock outlive it; answers may come after it is gone (Compute says
// when), and are then given as they are.
#ifndef STARLING_RUNTIME_PEER_METERED_COMPUTE_H_
#define STARLING_RUNTIME_PEER_METERED_COMPUTE_H_

#include <memory>
#include <vector>

#include "runtime/env/compute.h"
#include "runtime/env/env.h"
#include "runtime/peer/step_clock.h"

namespace starling {

class MeteredCompute final : public Compute {
 public:
  MeteredCompute(std::unique_ptr<Compute> device, Env* env, StepClock* clock);
  ~MeteredCompute() override;

  int64_t size() const override { return device_->size(); }
  void Forward(ForwardInput input, Done<ForwardOutput> done) override;
  void Backward(BackwardInput input, Done<BackwardOutput> done) override;
  void Drop(WorkId work) override { device_->Drop(work); }
  void Decode(Blob encoded, Done<Blob> done) override;
  void Encode(Blob values, Coding coding, Done<Blob> done) override;
  void Seal(Step step, Done<std::vector<SegmentSummary>> done) override;
  void Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) override;
  void FreeThrough(Step step) override { device_->FreeThrough(step); }
  void Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) override;
  void Snapshot(Done<Blob> done) override;
  void Hash(Done<Hash128> done) override;
  void Load(Blob state, Done<Hash128> done) override;

 private:
  // Shared with the answers, of which some may come when this is gone.
  struct Meter {
    Env* env = nullptr;
    StepClock* clock = nullptr;  // null: it is gone
  };
  template <typename T>
  Done<T> Metered(StepPart part, Done<T> done);
  Done<Blob> MeteredCodec(StepPart part, Done<Blob> done);

  const std::shared_ptr<Meter> meter_;
  const std::unique_ptr<Compute> device_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_METERED_COMPUTE_H_
