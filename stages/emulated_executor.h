// EmulatedExecutor: a stage whose device only takes time. For tests and benches that need more
// machines than there are: `--device emulated:40ms` serves a stage whose forward and backward of a
// full microbatch take 40 ms together, a third of it forward, and use no processor.
//
// Boundaries, gradients and state have the sizes of the real ones, so links and memory are as
// loaded. The numbers are made up, but exact: a microbatch adds a small integer to every element,
// keyed by (step, index, stage), so that sums are the same in any order and one counted twice is
// seen in the norm.
#ifndef STARLING_STAGES_EMULATED_EXECUTOR_H_
#define STARLING_STAGES_EMULATED_EXECUTOR_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "stages/executor.h"
#include "stages/segment_book.h"

namespace starling {

// True for "emulated:DURATION"; `time` is then the duration.
//   invalid argument: it begins with "emulated" but is not of that form.
absl::StatusOr<bool> IsEmulatedDevice(const std::string& device, absl::Duration* time);

class EmulatedExecutor : public StageExecutor {
 public:
  struct Options {
    ModelConfig model;
    LayerRange layers;
    StageId stage{0};
    uint32_t stages = 1;
    int64_t microbatch = 1;          // sequences of a full one; shorter ones take less
    absl::Duration microbatch_time;  // forward and backward
  };
  // A replica of `stage` in that run.
  static Options For(const RunConfig& config, StageId stage, absl::Duration microbatch_time);

  explicit EmulatedExecutor(const Options& options);

  int64_t size() const override { return layout_.size; }
  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override;
  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override;
  void Drop(WorkId work) override { kept_.erase(work); }
  std::vector<SegmentSummary> Seal(Step step) override { return segments_.Seal(step); }
  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override;
  void FreeThrough(Step step) override;
  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override;
  absl::StatusOr<Blob> Snapshot() override;
  absl::StatusOr<Hash128> Load(const Blob& state) override;

 private:
  struct Kept {
    int64_t sequences = 0;
    double loss_sum = 0;
    int64_t tokens = 0;
  };
  bool last_stage() const { return Value(options_.stage) + 1 == options_.stages; }
  Blob Boundary(int64_t sequences) const;
  // Waits as long as `share` of a microbatch of so many sequences takes, and gives that time.
  absl::Duration Work(double share, int64_t sequences) const;

  const Options options_;
  const StageLayout layout_;
  std::vector<float> state_;  // empty: not loaded
  std::map<WorkId, Kept> kept_;
  SegmentBook<std::vector<float>> segments_;
};

}  // namespace starling

#endif  // STARLING_STAGES_EMULATED_EXECUTOR_H_
