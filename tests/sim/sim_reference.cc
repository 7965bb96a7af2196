#include "tests/sim/sim_reference.h"

#include <utility>

#include "runtime/base/check.h"

namespace starling::sim {

SimReference::SimReference(std::vector<SimStage> stages, const std::vector<Blob>& states)
    : stages_(std::move(stages)) {
  STARLING_CHECK_EQ(stages_.size(), states.size());
  for (const Blob& state : states) {
    const auto values = state.As<float>();
    states_.emplace_back(values.begin(), values.end());
  }
}

std::vector<uint64_t> SimReference::ForwardAll(const MicrobatchId& id,
                                               const SimMicrobatch& microbatch) const {
  std::vector<uint64_t> digests;
  uint64_t input = DigestOf(microbatch.tokens, microbatch.first_sequence);
  for (size_t s = 0; s < stages_.size(); ++s) {
    const uint64_t parameters = DigestOfParameters(states_[s].data(), stages_[s].layout);
    input = ForwardDigest(stages_[s].stage, id, parameters, input);
    digests.push_back(input);
  }
  return digests;
}

SimStepResult SimReference::Advance(Step step, const std::vector<SimMicrobatch>& microbatches) {
  SimStepResult result;
  std::vector<std::vector<float>> sums;
  for (const SimStage& stage : stages_) sums.emplace_back(stage.layout.size, 0.0f);
  for (size_t i = 0; i < microbatches.size(); ++i) {
    const MicrobatchId id{step, WorkKind::kTrain, static_cast<uint32_t>(i)};
    const std::vector<uint64_t> digests = ForwardAll(id, microbatches[i]);
    uint64_t incoming = LossDigest(digests.back(), DigestOf(microbatches[i].targets, 0));
    const int64_t tokens = microbatches[i].targets.element_count();
    result.tokens += tokens;
    result.loss_sum += LossSum(incoming, tokens);
    for (size_t s = stages_.size(); s-- > 0;) {
      incoming = BackwardDigest(stages_[s].stage, digests[s], incoming);
      AddGradient(stages_[s].layout, incoming, 1, sums[s].data());
    }
  }
  for (size_t s = 0; s < stages_.size(); ++s) {
    double square_norm = 0;
    for (float g : sums[s]) square_norm += static_cast<double>(g) * g;
    result.square_norms.push_back(square_norm);
    UpdateState(stages_[s].layout, 0, sums[s].data(), states_[s].data());
  }
  return result;
}

SimStepResult SimReference::Evaluate(Step step,
                                     const std::vector<SimMicrobatch>& microbatches) const {
  SimStepResult result;
  for (size_t i = 0; i < microbatches.size(); ++i) {
    const MicrobatchId id{step, WorkKind::kEvaluate, static_cast<uint32_t>(i)};
    const std::vector<uint64_t> digests = ForwardAll(id, microbatches[i]);
    const int64_t tokens = microbatches[i].targets.element_count();
    result.tokens += tokens;
    result.loss_sum +=
        LossSum(LossDigest(digests.back(), DigestOf(microbatches[i].targets, 0)), tokens);
  }
  return result;
}

std::vector<float> SimReference::parameters(size_t stage) const {
  const std::vector<float>& state = states_.at(stage);
  return std::vector<float>(state.begin(), state.begin() + stages_[stage].layout.size);
}

}  // namespace starling::sim
