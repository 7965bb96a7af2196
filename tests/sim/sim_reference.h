// SimReference: a run of the virtual model as one machine would do it, without peers, segments or
// rounds. A swarm's losses and parameters must equal these exactly, whatever happened to it.
#ifndef STARLING_TESTS_SIM_SIM_REFERENCE_H_
#define STARLING_TESTS_SIM_SIM_REFERENCE_H_

#include <cstdint>
#include <vector>

#include "runtime/base/blob.h"
#include "runtime/base/ids.h"
#include "runtime/base/parameter_groups.h"
#include "tests/sim/sim_model.h"

namespace starling::sim {

// What the trainer sends to stage 0.
struct SimMicrobatch {
  Blob tokens;   // i32 [n, T]
  Blob targets;  // i32 [n, T]
  uint64_t first_sequence = 0;
};

struct SimStepResult {
  double loss_sum = 0;
  int64_t tokens = 0;
  std::vector<double> square_norms;  // per parameter group, of the summed gradient
};

class SimReference {
 public:
  // One state (f32 [kStatePlanes * size]) per stage, from stage 0 on.
  SimReference(std::vector<SimStage> stages, const std::vector<Blob>& states);

  // Does step `step`; the place of a microbatch is its index. `older`: its gradients are of the
  // parameters before the newest update (delayed commit).
  SimStepResult Advance(Step step, const std::vector<SimMicrobatch>& microbatches,
                        bool older = false);
  // It begins here: the next step is on the newest parameters.
  void ForgetOlder() { older_ = ParametersNow(); }
  // Loss only; leaves nothing behind.
  SimStepResult Evaluate(Step step, const std::vector<SimMicrobatch>& microbatches) const;

  // f32 [size] of stage `stage`.
  std::vector<float> parameters(size_t stage) const;

 private:
  using Digests = std::vector<uint64_t>;  // by stage
  // Of a microbatch's forward at every stage, with parameters of these digests.
  Digests ForwardAll(const MicrobatchId& id, const SimMicrobatch& microbatch,
                     const Digests& parameters) const;
  Digests ParametersNow() const;

  std::vector<GroupRange> RangesOf(size_t stage) const;
  // What a stage has summed of a tie becomes what all of its stages have.
  void SumTies(std::vector<std::vector<float>>* sums) const;

  std::vector<SimStage> stages_;
  std::vector<ParameterGroup> groups_;
  std::vector<std::vector<float>> states_;
  Digests older_;  // of the parameters before the newest update
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SIM_REFERENCE_H_
