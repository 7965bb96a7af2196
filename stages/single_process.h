// SingleProcess: the run without a swarm, `starling train --single-process`.
//
// It trains the whole model as one stage with nothing but a StageExecutor, the schedule and the
// optimizer: no router, no ledger, no round. It is the independent reference that a swarm's loss,
// gradient norm and lane are compared with, so it deliberately shares no code with them.
//
// Synchronous; not thread-safe.
#ifndef STARLING_STAGES_SINGLE_PROCESS_H_
#define STARLING_STAGES_SINGLE_PROCESS_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/config/run_config.h"
#include "stages/executor.h"

namespace starling {

class SingleProcess {
 public:
  struct Batch {
    Blob tokens;                  // i32 [n, T]
    Blob targets;                 // i32 [n, T]
    uint64_t first_sequence = 0;  // place of the first one in the step's batch
  };
  using Source = std::function<absl::StatusOr<Batch>(MicrobatchId)>;

  struct StepResult {
    double loss = 0;           // mean over tokens, nats, at the version it was computed on
    double gradient_norm = 0;  // of the mean gradient, before clipping
    double learning_rate = 0;
    int64_t tokens = 0;
    bool lane_ok = false;
    bool skipped = false;  // something was not finite: nothing was applied, no number above counts
    Hash128 state_hash;    // after the step; of no meaning if skipped
  };

  // `executor` holds the whole model, with its state loaded, and must outlive this. With delayed
  // commit it keeps the parameters before the newest update: the gradient of a step is then of
  // those, but for the first one.
  SingleProcess(const RunConfig& config, StageExecutor* executor, Source source);

  // Steps are taken in order: 1 to N, or from where the loaded state stands.
  //   internal: non-finite loss or gradient, and [train] on_nonfinite is "stop"; data loss: the
  //   lane is wrong. The executor's and the source's errors are passed on. Nothing was applied.
  absl::StatusOr<StepResult> RunStep(Step step);

  // Mean loss over the evaluation microbatches 0 to `count` - 1 of `step`.
  absl::StatusOr<double> Evaluate(Step step, uint32_t count);

 private:
  absl::StatusOr<StepResult> Skip(Step step, const absl::Status& why);
  absl::StatusOr<ForwardOutput> Forward(const WorkId& work);

  const RunConfig config_;
  StageExecutor* const executor_;
  const Source source_;
  bool older_ = false;  // the next step is on the parameters before the newest update
};

}  // namespace starling

#endif  // STARLING_STAGES_SINGLE_PROCESS_H_
