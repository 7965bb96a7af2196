#include "tests/sim/sim_executor.h"

#include <cstring>
#include <limits>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/lane.h"
#include "runtime/base/status_macros.h"

namespace starling::sim {

SimExecutor::SimExecutor(SimStage stage, ReplicaName name, const Scheduler* clock, Journal* journal,
                         Trace* trace, ComputeFaults* faults)
    : stage_(std::move(stage)),
      name_(name),
      clock_(clock),
      journal_(journal),
      trace_(trace),
      faults_(faults),
      book_(stage_.stage,
            [this] { return std::vector<float>(static_cast<size_t>(size()), 0.0f); }) {
  STARLING_CHECK_MSG(!stage_.layout.tensors.empty(), "a stage without tensors");
}

std::string SimExecutor::Describe(const WorkId& work) const {
  return ToString(name_) + ", " + starling::ToString(work.id) + " attempt " +
         starling::ToString(work.attempt);
}

absl::Status SimExecutor::Failure(const char* operation, const WorkId& work) const {
  if (faults_ == nullptr || !faults_->fail) return absl::OkStatus();
  return faults_->fail(operation, stage_.stage, work);
}

void SimExecutor::Tell(const char* what, const WorkId& work, const std::string& detail) const {
  TraceLine line{what, Value(work.id.step), work.id.index, "attempt="};
  line.detail += starling::ToString(work.attempt);
  if (!detail.empty()) line.detail += " " + detail;
  trace_->Line(trace_->NameOf(name_.node), line);
}

void SimExecutor::CheckHasState(const char* operation) const {
  STARLING_CHECK_MSG(!state_.empty(),
                     std::string(operation) + " without a state: " + ToString(name_));
}

SimExecutor::Parameters SimExecutor::Newest() const {
  return {parameters_digest_, UpdatesOf(state_.data(), stage_.layout)};
}

absl::StatusOr<SimExecutor::Parameters> SimExecutor::ParametersFor(
    const ForwardInput& input) const {
  if (!input.older) return Newest();
  if (older_) return *older_;
  return absl::FailedPreconditionError("no older parameters: " + Describe(input.work));
}

absl::Status SimExecutor::TakeInput(const ForwardInput& input, Kept* kept) {
  const auto& shape = input.input.shape();
  if (stage_.first()) {
    if (input.input.dtype() != DType::kI32 || shape.size() != 2) {
      return absl::InvalidArgumentError("the first stage takes i32 [n, T] tokens");
    }
    kept->shape = {shape[0], shape[1], stage_.width};
    kept->input_digest = DigestOf(input.input, input.first_sequence);
    return absl::OkStatus();
  }
  if (shape.size() != 3 || shape[2] != stage_.width) {
    return absl::InvalidArgumentError("stages after the first take f32 [n, T, C]");
  }
  STARLING_ASSIGN_OR_RETURN(const Signal signal, DecodeSignal(input.input));
  if (signal.gradient || signal.id != input.work.id ||
      Value(signal.made_by) + 1 != Value(stage_.stage)) {
    trace_->Violation("wrong forward input at " + Describe(input.work) + ": " + ToString(signal));
  } else if (signal.updates != kept->updates) {
    trace_->Violation("forward input of another version at " + Describe(input.work) + ", after " +
                      std::to_string(kept->updates) + " updates: " + ToString(signal));
  }
  kept->shape = shape;
  kept->input_digest = signal.digest;
  return absl::OkStatus();
}

absl::StatusOr<ForwardOutput> SimExecutor::Forward(const ForwardInput& input) {
  CheckHasState("forward");
  STARLING_RETURN_IF_ERROR(Failure("forward", input.work));
  STARLING_ASSIGN_OR_RETURN(const Parameters parameters, ParametersFor(input));
  Kept kept;
  kept.updates = parameters.updates;
  STARLING_RETURN_IF_ERROR(TakeInput(input, &kept));
  kept.forward_digest =
      ForwardDigest(stage_.stage, input.work.id, parameters.digest, kept.input_digest);
  ForwardOutput output;
  if (stage_.last) {
    if (input.targets.dtype() != DType::kI32 || input.targets.empty()) {
      return absl::InvalidArgumentError("the last stage takes i32 [n, T] targets");
    }
    kept.loss_digest = LossDigest(kept.forward_digest, DigestOf(input.targets, 0));
    kept.tokens = input.targets.element_count();
    kept.loss_sum = LossSum(kept.loss_digest, kept.tokens);
    output.loss_sum = kept.loss_sum;
    output.tokens = kept.tokens;
  } else {
    Signal signal;
    signal.id = input.work.id;
    signal.made_by = stage_.stage;
    signal.updates = kept.updates;
    signal.digest = kept.forward_digest;
    output.output = EncodeSignal(signal, kept.shape);
  }
  if (input.work.id.kind == WorkKind::kTrain) kept_[input.work] = std::move(kept);
  Tell(input.work.id.kind == WorkKind::kTrain ? "forward" : "evaluated", input.work, "");
  return output;
}

absl::Status SimExecutor::CheckGradient(const WorkId& work, const Kept& kept, const Blob& gradient,
                                        uint64_t* incoming) {
  if (stage_.last) {
    if (!gradient.empty()) return absl::InvalidArgumentError("the last stage takes no gradient");
    *incoming = kept.loss_digest;
    return absl::OkStatus();
  }
  if (gradient.shape() != kept.shape) {
    return absl::InvalidArgumentError("a gradient of another shape than the output");
  }
  STARLING_ASSIGN_OR_RETURN(const Signal signal, DecodeSignal(gradient));
  if (!signal.gradient || signal.id != work.id ||
      Value(signal.made_by) != Value(stage_.stage) + 1 || signal.answers != kept.forward_digest) {
    trace_->Violation("wrong gradient at " + Describe(work) + ": " + ToString(signal) +
                      (signal.answers == kept.forward_digest ? "" : ", of another activation"));
  }
  *incoming = signal.digest;
  return absl::OkStatus();
}

absl::StatusOr<BackwardOutput> SimExecutor::Backward(const BackwardInput& input) {
  CheckHasState("backward");
  auto found = kept_.find(input.work);
  if (found == kept_.end()) {
    return absl::FailedPreconditionError("no such microbatch: " + Describe(input.work));
  }
  const Kept kept = std::move(found->second);
  kept_.erase(found);
  uint64_t incoming = 0;
  STARLING_RETURN_IF_ERROR(CheckGradient(input.work, kept, input.gradient, &incoming));
  const uint64_t digest = BackwardDigest(stage_.stage, kept.forward_digest, incoming);
  if (input.segment.has_value()) {
    STARLING_RETURN_IF_ERROR(AddTo(*input.segment, input.work, kept, digest));
  } else {
    STARLING_RETURN_IF_ERROR(Failure("backward", input.work));
  }
  BackwardOutput output;
  if (input.want_input_gradient && !stage_.first()) {
    Signal signal;
    signal.id = input.work.id;
    signal.made_by = stage_.stage;
    signal.gradient = true;
    signal.updates = kept.updates;
    signal.digest = digest;
    signal.answers = kept.input_digest;
    output.input_gradient = EncodeSignal(signal, kept.shape);
  }
  return output;
}

absl::Status SimExecutor::AddTo(SegmentId segment, const WorkId& work, const Kept& kept,
                                uint64_t digest) {
  const Step step = work.id.step;
  STARLING_CHECK_MSG(!book_.IsFrozen(step, segment),
                     "an addition to a sealed segment: " + Describe(work));
  const SegmentEntry entry{work.id.index, work.attempt, kept.loss_sum, kept.tokens};
  STARLING_RETURN_IF_ERROR(book_.Add(step, segment, entry, [&](std::vector<float>& sum) {
    const absl::Status failure = Failure("backward", work);
    AddGradient(stage_.layout, digest, 1, sum.data());
    return failure;
  }));
  Mistake mistake = Mistake::kNone;
  if (faults_ != nullptr && faults_->mistake) mistake = faults_->mistake(stage_.stage, work);
  if (mistake == Mistake::kFlipState) {
    FlipState();
    mistake = Mistake::kNone;
  }
  if (mistake != Mistake::kNone) Plant(mistake, {step, segment}, work, digest);
  const int times = mistake == Mistake::kNone ? 1 : mistake == Mistake::kCountNever ? 0 : 2;
  journal_->Record(Addition{name_, loads_, step, segment, work.id.index, work.attempt, times,
                            digest, kept.updates, clock_->Now()});
  Tell("added", work, "segment=" + std::to_string(Value(segment)));
  return absl::OkStatus();
}

void SimExecutor::Plant(Mistake mistake, const SegmentKey& key, const WorkId& work,
                        uint64_t digest) {
  Tell("mistake_planted", work, "");
  auto& corrections = mistake == Mistake::kCountAgainAfterSeal ? after_seal_ : corrections_;
  Correction& correction = corrections[key];
  correction.sum.resize(static_cast<size_t>(size()), 0.0f);
  const int factor = mistake == Mistake::kCountNever ? -1 : 1;
  const uint64_t term = LaneTerm(work.id.step, work.id.index, stage_.stage);
  AddGradient(stage_.layout, digest, factor, correction.sum.data());
  correction.lane += factor > 0 ? term : 0 - term;
}

void SimExecutor::Drop(WorkId work) { kept_.erase(work); }

std::vector<SegmentSummary> SimExecutor::Seal(Step step) {
  std::vector<SegmentSummary> summaries = book_.Seal(step);
  TraceLine line{"sealed", Value(step), {}, "segments="};
  line.detail += std::to_string(summaries.size());
  trace_->Line(trace_->NameOf(name_.node), line);
  for (SegmentSummary& summary : summaries) {
    auto correction = corrections_.find({step, summary.id});
    if (correction != corrections_.end()) summary.lane += correction->second.lane;
  }
  for (auto it = after_seal_.begin(); it != after_seal_.end();) {
    if (it->first.first != step) {
      ++it;
      continue;
    }
    corrections_[it->first] = std::move(it->second);
    it = after_seal_.erase(it);
  }
  return summaries;
}

absl::StatusOr<SegmentSum> SimExecutor::Read(Step step, const std::vector<SegmentId>& segments) {
  STARLING_ASSIGN_OR_RETURN(const auto frozen, book_.Frozen(step, segments));
  MutableBlob sum = MutableBlob::Zeros(DType::kF32, {size()});
  float* out = sum.As<float>().data();
  SegmentSum result;
  const auto add = [&](const std::vector<float>& values, uint64_t lane) {
    for (size_t i = 0; i < values.size(); ++i) out[i] += values[i];
    result.lane += lane;
  };
  for (const auto* segment : frozen) {
    add(segment->sum, segment->summary.lane);
    auto correction = corrections_.find({step, segment->summary.id});
    if (correction != corrections_.end()) add(correction->second.sum, correction->second.lane);
  }
  result.gradient = std::move(sum).Freeze();
  return result;
}

void SimExecutor::FreeThrough(Step step) {
  book_.FreeThrough(step);
  journal_->Freed(name_, step);
  const auto old = [step](const auto& key) { return key.first <= step; };
  for (auto* map : {&corrections_, &after_seal_}) {
    while (!map->empty() && old(map->begin()->first)) map->erase(map->begin());
  }
  while (!kept_.empty() && kept_.begin()->first.id.step <= step) kept_.erase(kept_.begin());
}

absl::StatusOr<Hash128> SimExecutor::Apply(const UpdateScalars& scalars,
                                           const std::vector<Blob>& gradient) {
  CheckHasState("apply");
  STARLING_RETURN_IF_ERROR(Failure("apply", WorkId{}));
  std::vector<float> sum;
  for (const Blob& piece : gradient) {
    if (piece.dtype() != DType::kF32) return absl::InvalidArgumentError("gradient is not f32");
    const auto values = piece.As<float>();
    sum.insert(sum.end(), values.begin(), values.end());
  }
  if (static_cast<int64_t>(sum.size()) != size()) {
    return absl::InvalidArgumentError("gradient of " + std::to_string(sum.size()) +
                                      " elements for a stage of " + std::to_string(size()));
  }
  const float words[] = {scalars.grad_scale,     scalars.beta1,           scalars.one_minus_beta1,
                         scalars.beta2,          scalars.one_minus_beta2, scalars.step_size,
                         scalars.inv_sqrt_bias2, scalars.epsilon,         scalars.decay};
  older_ = Newest();
  UpdateState(stage_.layout, HashBytes(words, sizeof(words)).low, sum.data(), state_.data());
  StateChanged(/*loaded=*/false, HashBytes(sum.data(), sum.size() * sizeof(float)));
  if (faults_ != nullptr && faults_->mistake &&
      faults_->mistake(stage_.stage, WorkId{}) == Mistake::kFlipState) {
    FlipState();
    state_hash_ = HashBytes(state_.data(), state_.size() * sizeof(float));
  }
  return state_hash_;
}

// A bit of a parameter; the replica does not know, nor does the journal.
void SimExecutor::FlipState() {
  trace_->Line("fault", "a bit flips in the state of " + sim::ToString(name_));
  faults_->flipped = true;
  state_[0] += state_[0] > 0 ? -1.0f : 1.0f;
  parameters_digest_ = DigestOfParameters(state_.data(), stage_.layout);
}

absl::StatusOr<Blob> SimExecutor::Snapshot() {
  CheckHasState("snapshot");
  return Blob::CopyOf(state_.data(), DType::kF32, {kStatePlanes * size()});
}

absl::StatusOr<Hash128> SimExecutor::Load(const Blob& state) {
  STARLING_RETURN_IF_ERROR(Failure("load", WorkId{}));
  if (state.dtype() != DType::kF32 || state.element_count() != kStatePlanes * size()) {
    return absl::InvalidArgumentError("a state of " + std::to_string(state.element_count()) +
                                      " elements for a stage of " + std::to_string(size()));
  }
  const auto values = state.As<float>();
  state_.assign(values.begin(), values.end());
  kept_.clear();
  book_.Clear();
  journal_->Freed(name_, Step{std::numeric_limits<uint64_t>::max()});
  corrections_.clear();
  after_seal_.clear();
  if (faults_ != nullptr) faults_->flipped = false;
  older_.reset();
  ++loads_;
  StateChanged(/*loaded=*/true, Hash128());
  return state_hash_;
}

void SimExecutor::StateChanged(bool loaded, Hash128 gradient) {
  parameters_digest_ = DigestOfParameters(state_.data(), stage_.layout);
  state_hash_ = HashBytes(state_.data(), state_.size() * sizeof(float));
  const uint32_t updates = UpdatesOf(state_.data(), stage_.layout);
  journal_->Record(StateSeen{name_, loaded, updates, state_hash_,
                             HashOfTensors(state_.data(), stage_.layout),
                             HashOfTied(state_.data(), stage_.layout), gradient, clock_->Now()});
  TraceLine line{loaded ? "loaded" : "applied", updates, {}, "hash="};
  line.detail += ToHex(state_hash_).substr(0, 8);
  trace_->Line(trace_->NameOf(name_.node), line);
}

}  // namespace starling::sim
