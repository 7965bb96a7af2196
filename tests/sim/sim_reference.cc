#include "tests/sim/sim_reference.h"

#include <algorithm>
#include <map>
#include <utility>

#include "runtime/base/check.h"

namespace starling::sim {

namespace {

std::vector<ParameterGroup> GroupsOf(const std::vector<SimStage>& stages) {
  std::vector<StageLayout> layouts;
  for (const SimStage& stage : stages) layouts.push_back(stage.layout);
  return ParameterGroups(layouts);
}

}  // namespace

SimReference::SimReference(std::vector<SimStage> stages, const std::vector<Blob>& states)
    : stages_(std::move(stages)), groups_(GroupsOf(stages_)) {
  STARLING_CHECK_EQ(stages_.size(), states.size());
  for (const Blob& state : states) {
    const auto values = state.As<float>();
    states_.emplace_back(values.begin(), values.end());
  }
  older_ = ParametersNow();
}

SimReference::Digests SimReference::ParametersNow() const {
  Digests digests;
  for (size_t s = 0; s < stages_.size(); ++s) {
    digests.push_back(DigestOfParameters(states_[s].data(), stages_[s].layout));
  }
  return digests;
}

SimReference::Digests SimReference::ForwardAll(const MicrobatchId& id,
                                               const SimMicrobatch& microbatch,
                                               const Digests& parameters) const {
  Digests digests;
  uint64_t input = DigestOf(microbatch.tokens, microbatch.first_sequence);
  for (size_t s = 0; s < stages_.size(); ++s) {
    input = ForwardDigest(stages_[s].stage, id, parameters[s], input);
    digests.push_back(input);
  }
  return digests;
}

SimStepResult SimReference::Advance(Step step, const std::vector<SimMicrobatch>& microbatches,
                                    bool older) {
  SimStepResult result;
  const Digests newest = ParametersNow();
  const Digests& parameters = older ? older_ : newest;
  std::vector<std::vector<float>> sums;
  for (const SimStage& stage : stages_) sums.emplace_back(stage.layout.size, 0.0f);
  for (size_t i = 0; i < microbatches.size(); ++i) {
    const MicrobatchId id{step, WorkKind::kTrain, static_cast<uint32_t>(i)};
    const Digests digests = ForwardAll(id, microbatches[i], parameters);
    uint64_t incoming = LossDigest(digests.back(), DigestOf(microbatches[i].targets, 0));
    const int64_t tokens = microbatches[i].targets.element_count();
    result.tokens += tokens;
    result.loss_sum += LossSum(incoming, tokens);
    for (size_t s = stages_.size(); s-- > 0;) {
      incoming = BackwardDigest(stages_[s].stage, digests[s], incoming);
      AddGradient(stages_[s].layout, incoming, 1, sums[s].data());
    }
  }
  SumTies(&sums);
  result.square_norms.assign(groups_.size(), 0);
  for (size_t s = 0; s < stages_.size(); ++s) {
    for (const GroupRange& range : RangesOf(s)) {
      double square_norm = 0;
      for (int64_t i = range.begin; i < range.begin + range.count; ++i) {
        square_norm += static_cast<double>(sums[s][i]) * sums[s][i];
      }
      result.square_norms[range.group] = square_norm;  // the same from each stage of a tie
    }
    UpdateState(stages_[s].layout, 0, sums[s].data(), states_[s].data());
  }
  older_ = newest;
  return result;
}

std::vector<GroupRange> SimReference::RangesOf(size_t stage) const {
  return GroupRangesOf(stages_[stage].layout, stages_[stage].stage,
                       static_cast<uint32_t>(stages_.size()));
}

void SimReference::SumTies(std::vector<std::vector<float>>* sums) const {
  std::map<uint32_t, std::vector<float>> totals;
  for (const bool give_back : {false, true}) {
    for (size_t s = 0; s < stages_.size(); ++s) {
      for (const GroupRange& range : RangesOf(s)) {
        if (range.group < stages_.size()) continue;
        std::vector<float>& total = totals[range.group];
        total.resize(static_cast<size_t>(range.count));
        float* const own = (*sums)[s].data() + range.begin;
        if (give_back) std::copy(total.begin(), total.end(), own);
        for (size_t i = 0; i < total.size() && !give_back; ++i) total[i] += own[i];
      }
    }
  }
}

SimStepResult SimReference::Evaluate(Step step,
                                     const std::vector<SimMicrobatch>& microbatches) const {
  SimStepResult result;
  for (size_t i = 0; i < microbatches.size(); ++i) {
    const MicrobatchId id{step, WorkKind::kEvaluate, static_cast<uint32_t>(i)};
    const Digests digests = ForwardAll(id, microbatches[i], ParametersNow());
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
