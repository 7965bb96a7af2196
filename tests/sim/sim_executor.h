// SimExecutor: the numbers of one virtual stage (sim_model.h), and the truth about them.
//
// Every addition and every state goes into the Journal. An input or gradient that is not the right
// one for its microbatch, or was computed after another number of updates, is a violation in the
// Trace, with the work going on as a real device's would. Misuse of the contract (work without a
// state, an addition to a sealed segment, reading an unsealed one) aborts.
//
// Mistakes can be planted: a microbatch that is in the sum twice, never, or once more after the
// seal, while the list says once.
#ifndef STARLING_TESTS_SIM_SIM_EXECUTOR_H_
#define STARLING_TESTS_SIM_SIM_EXECUTOR_H_

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stages/executor.h"
#include "stages/segment_book.h"
#include "tests/sim/journal.h"
#include "tests/sim/sim_model.h"
#include "tests/sim/trace.h"

namespace starling::sim {

enum class Mistake : uint8_t { kNone, kCountTwice, kCountNever, kCountAgainAfterSeal, kFlipState };

// What to do wrong on one node. The functions may be empty.
struct ComputeFaults {
  bool flipped = false;   // bits of the state are wrong, until a state is loaded
  double slowdown = 1;    // multiplies what operations cost from now on
  absl::Duration hiccup;  // what the next operation takes more
  // Asked at each addition, and at each update (without a work).
  std::function<Mistake(StageId, const WorkId&)> mistake;
  // Asked before each operation ("forward", "backward", ...): an error is its answer, and spoils
  // the segment of a backward.
  std::function<absl::Status(const char* operation, StageId, const WorkId&)> fail;
};

class SimExecutor : public StageExecutor {
 public:
  // The pointers outlive the executor; `faults` may be null.
  SimExecutor(SimStage stage, ReplicaName name, const Scheduler* clock, Journal* journal,
              Trace* trace, ComputeFaults* faults);

  int64_t size() const override { return stage_.layout.size; }
  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override;
  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override;
  void Drop(WorkId work) override;
  std::vector<SegmentSummary> Seal(Step step) override;
  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override;
  void FreeThrough(Step step) override;
  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override;
  absl::StatusOr<Blob> Snapshot() override;
  absl::StatusOr<Hash128> Load(const Blob& state) override;

  const SimStage& stage() const { return stage_; }
  size_t kept() const { return kept_.size(); }  // microbatches waiting for their backward

 private:
  struct Kept {
    std::vector<int64_t> shape;  // of the boundary tensors
    uint64_t forward_digest = 0;
    uint64_t input_digest = 0;  // of the activation this stage was given
    uint64_t loss_digest = 0;   // last stage
    double loss_sum = 0;
    int64_t tokens = 0;
    uint32_t updates = 0;  // of the parameters that forward used
  };
  // Parameters, as far as a pass depends on them.
  struct Parameters {
    uint64_t digest = 0;
    uint32_t updates = 0;
  };
  // What a planted mistake adds beyond the list.
  struct Correction {
    std::vector<float> sum;
    uint64_t lane = 0;
  };
  using SegmentKey = std::pair<Step, SegmentId>;

  absl::Status Failure(const char* operation, const WorkId& work) const;
  Parameters Newest() const;
  absl::StatusOr<Parameters> ParametersFor(const ForwardInput& input) const;
  absl::Status TakeInput(const ForwardInput& input, Kept* kept);
  absl::Status CheckGradient(const WorkId& work, const Kept& kept, const Blob& gradient,
                             uint64_t* incoming);
  absl::Status AddTo(SegmentId segment, const WorkId& work, const Kept& kept, uint64_t digest);
  void Plant(Mistake mistake, const SegmentKey& key, const WorkId& work, uint64_t digest);
  void StateChanged(bool loaded, Hash128 gradient);
  void FlipState();
  void Tell(const char* what, const WorkId& work, const std::string& detail) const;
  void CheckHasState(const char* operation) const;
  std::string Describe(const WorkId& work) const;

  const SimStage stage_;
  const ReplicaName name_;
  const Scheduler* const clock_;
  Journal* const journal_;
  Trace* const trace_;
  ComputeFaults* const faults_;

  std::vector<float> state_;  // empty: none loaded
  uint64_t parameters_digest_ = 0;
  std::optional<Parameters> older_;  // before the newest update
  Hash128 state_hash_;
  uint32_t loads_ = 0;
  std::map<WorkId, Kept> kept_;
  SegmentBook<std::vector<float>> book_;
  std::map<SegmentKey, Correction> corrections_;  // in effect
  std::map<SegmentKey, Correction> after_seal_;   // take effect at the seal
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SIM_EXECUTOR_H_
