#include "stages/stage_server.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/planted.h"

namespace starling {
namespace {

constexpr double kSmoothing = 0.1;

void Smooth(double* average, absl::Duration took) {
  const double seconds = absl::ToDoubleSeconds(took);
  *average = *average == 0 ? seconds : (1 - kSmoothing) * *average + kSmoothing * seconds;
}

}  // namespace

StageServer::StageServer(Options options, Compute* compute, StageLinks* links)
    : options_(options), compute_(compute), links_(links) {}

void StageServer::Reset(Version version) {
  version_ = version;
  held_.clear();
  queue_.clear();
  fenced_.clear();
  segment_ = SegmentId{0};
  device_busy_ = false;
  life_ = std::make_shared<bool>(true);
}

absl::StatusCode StageServer::OnForward(Incarnation from, const Forward& forward) {
  if (fenced_.count(from) > 0 || forward.version < version_) return absl::StatusCode::kAborted;
  if (forward.work.id.step <= static_cast<Step>(Value(version_))) return absl::StatusCode::kAborted;
  const auto known = held_.find(forward.work);
  const bool again = known != held_.end() && known->second.phase == Phase::kDone &&
                     Planted(Bug::kRunRepeatedRequest);
  if (known != held_.end() && !again) return absl::StatusCode::kOk;
  uint32_t open = 0;
  for (const auto& [work, held] : held_) {
    if (work.id.step == forward.work.id.step && held.phase != Phase::kDone) ++open;
  }
  if (open >= options_.slots) return absl::StatusCode::kResourceExhausted;

  Held& held = held_[forward.work];
  held.forward = forward;
  held.upstream = from;
  held.adds = forward.work.id.kind == WorkKind::kTrain &&
              (forward.add_at.empty() || Planted(Bug::kIgnoreStageMask) ||
               std::count(forward.add_at.begin(), forward.add_at.end(), options_.stage) > 0);
  if (forward.version > version_) {
    held.phase = Phase::kEarly;
  } else {
    Enqueue(forward.work, held, Phase::kForwardQueued);
    RunNext();
  }
  return absl::StatusCode::kOk;
}

absl::StatusCode StageServer::OnBackward(Incarnation from, const Backward& backward) {
  if (fenced_.count(from) > 0) return absl::StatusCode::kAborted;
  const auto it = held_.find(backward.work);
  if (it == held_.end()) return absl::StatusCode::kOk;  // cancelled, or the step is over
  Held& held = it->second;
  if (held.downstream != from) return absl::StatusCode::kAborted;
  // The gradient may overtake the acceptance: they travel on different channels.
  if (held.phase == Phase::kSending || held.phase == Phase::kAwaitingGradient) {
    held.gradient = backward.gradient;
    Enqueue(backward.work, held, Phase::kBackwardQueued);
    RunNext();
  }
  return absl::StatusCode::kOk;
}

void StageServer::OnCancel(const Cancel& cancel) {
  for (const WorkId& work : cancel.works) {
    const auto it = held_.find(work);
    if (it == held_.end()) continue;
    const Phase phase = it->second.phase;
    // What has its gradient is counted on; only what can never get one is cancelled.
    if (phase >= Phase::kBackwardQueued) continue;
    compute_->Drop(work);
    Forget(it);
  }
}

FenceAck StageServer::OnFence(const Fence& fence) {
  if (!Planted(Bug::kForgetPromise)) fenced_.insert(fence.fenced.begin(), fence.fenced.end());
  FenceAck ack;
  ack.number = fence.number;
  for (auto it = held_.begin(); it != held_.end();) {
    const auto& [work, held] = *it;
    if (work.id.kind == WorkKind::kEvaluate) {
      // Leaves nothing behind, so the trainer simply asks again.
      const bool lost = held.downstream && fenced_.count(*held.downstream) > 0;
      it = lost ? Forget(it) : std::next(it);
      continue;
    }
    if (work.id.step == fence.step) {
      HeldWork report;
      report.work = work;
      report.state = held.phase >= Phase::kBackwardQueued ? HeldState::kAdded : HeldState::kOpen;
      report.upstream = held.upstream;
      report.downstream = held.downstream;
      ack.held.push_back(report);
    }
    ++it;
  }
  return ack;
}

void StageServer::OnSeal(Step step, Compute::Done<std::vector<SegmentSummary>> done) {
  compute_->Seal(step, std::move(done));
  if (!Planted(Bug::kAddAfterSeal)) segment_ = Next(segment_);
}

void StageServer::OnVersion(Version version) {
  version_ = version;
  segment_ = SegmentId{0};
  const Step finished{Value(version)};
  compute_->FreeThrough(finished);
  for (auto it = held_.begin(); it != held_.end();) {
    it = it->first.id.step <= finished ? Forget(it) : std::next(it);
  }
  for (auto& [work, held] : held_) {
    if (held.phase == Phase::kEarly && held.forward.version == version_) {
      Enqueue(work, held, Phase::kForwardQueued);
    }
  }
  RunNext();
}

void StageServer::RetrySends() {
  for (auto& [work, held] : held_) {
    if (held.phase == Phase::kUnsent) Offer(work, held);
  }
}

Load StageServer::load() const {
  Load load;
  load.service_s = static_cast<float>(forward_s_ + backward_s_);
  load.queued = OpenCount();
  return load;
}

void StageServer::VisitBuffers(const BufferVisitor& visit) const {
  uint32_t most = 0;
  uint32_t open = 0;
  Step step{0};
  for (const auto& [work, held] : held_) {  // step by step
    if (work.id.step != step) open = 0;
    step = work.id.step;
    if (held.phase != Phase::kDone) most = std::max(most, ++open);
  }
  visit("open microbatches of a step", most, options_.slots);
  visit("microbatches kept", held_.size(), size_t{8} * options_.slots);
}

uint32_t StageServer::OpenCount() const {
  uint32_t open = 0;
  for (const auto& [work, held] : held_) {
    if (held.phase != Phase::kDone) ++open;
  }
  return open;
}

bool StageServer::GradientWanted(const Held& held) const {
  if (first_stage()) return false;
  const std::vector<StageId>& add_at = held.forward.add_at;
  return add_at.empty() || std::any_of(add_at.begin(), add_at.end(),
                                       [this](StageId stage) { return stage < options_.stage; });
}

StageServer::QueueKey StageServer::KeyOf(const WorkId& work, const Held& held) const {
  int order = held.phase == Phase::kBackwardQueued ? 1 : 2;
  if (!held.forward.add_at.empty()) order = 0;  // a replay
  return {work.id.step, order, held.age};
}

void StageServer::Enqueue(const WorkId& work, Held& held, Phase phase) {
  held.phase = phase;
  held.age = next_age_++;
  queue_.insert({KeyOf(work, held), work});
}

void StageServer::RunNext() {
  if (device_busy_ || queue_.empty()) return;
  const WorkId work = queue_.begin()->second;
  queue_.erase(queue_.begin());
  Held& held = held_.at(work);
  device_busy_ = true;
  if (held.phase == Phase::kForwardQueued) {
    StartForward(work, held);
  } else {
    StartBackward(work, held);
  }
}

void StageServer::StartForward(const WorkId& work, Held& held) {
  held.phase = Phase::kForwarding;
  ForwardInput input;
  input.work = work;
  input.input = std::move(held.forward.input);
  if (last_stage()) input.targets = std::move(held.forward.targets);
  input.first_sequence = held.forward.first_sequence;
  compute_->Forward(std::move(input), [this, work, life = std::weak_ptr<bool>(life_)](
                                          absl::StatusOr<ForwardOutput> output) {
    if (!life.expired()) OnForwardDone(work, std::move(output));
  });
}

void StageServer::OnForwardDone(const WorkId& work, absl::StatusOr<ForwardOutput> output) {
  if (!output.ok()) {  // nothing more is run until a Reset
    if (!absl::IsCancelled(output.status())) links_->DeviceFailed(output.status());
    return;
  }
  device_busy_ = false;
  Smooth(&forward_s_, output->took);
  const auto it = held_.find(work);
  if (it == held_.end()) {
    compute_->Drop(work);  // cancelled while it ran
  } else if (last_stage()) {
    FinishLastStage(work, it->second, *output);
  } else {
    it->second.output = std::move(output->output);
    Offer(work, it->second);
  }
  RunNext();
}

void StageServer::FinishLastStage(const WorkId& work, Held& held, const ForwardOutput& output) {
  held.loss_sum = output.loss_sum;
  held.tokens = output.tokens;
  if (work.id.kind == WorkKind::kEvaluate) {
    links_->Notify({work, Progress::kEvaluated, output.loss_sum, output.tokens});
    Forget(held_.find(work));
  } else if (held.adds || GradientWanted(held)) {
    Enqueue(work, held, Phase::kBackwardQueued);
  } else {
    compute_->Drop(work);
    Finish(work, held);
  }
}

void StageServer::Offer(const WorkId& work, Held& held) {
  const std::optional<Incarnation> to = links_->ChooseNext();
  held.downstream = to;
  held.phase = to ? Phase::kSending : Phase::kUnsent;
  if (!to) return;
  Forward forward = held.forward;
  forward.input = held.output;
  links_->SendForward(
      *to, std::move(forward),
      [this, work, to = *to, life = std::weak_ptr<bool>(life_)](absl::StatusCode code) {
        if (!life.expired()) OnOffered(work, to, code);
      });
}

void StageServer::OnOffered(const WorkId& work, Incarnation to, absl::StatusCode code) {
  const auto it = held_.find(work);
  if (it == held_.end() || it->second.downstream != to) return;
  Held& held = it->second;
  if (code == absl::StatusCode::kOk) {
    held.output = Blob();
    held.forward.targets = Blob();
    if (held.phase != Phase::kSending) return;  // its gradient is here already
    if (work.id.kind == WorkKind::kEvaluate) {
      Forget(it);
    } else if (held.adds || GradientWanted(held)) {
      held.phase = Phase::kAwaitingGradient;
    } else {
      compute_->Drop(work);
      Finish(work, held);
    }
    return;
  }
  // What went to the fenced stays as it was reported: the trainer has decided on it.
  if (held.phase != Phase::kSending || fenced_.count(to) > 0) return;
  held.downstream.reset();
  held.phase = Phase::kUnsent;
  if (code == absl::StatusCode::kResourceExhausted) Offer(work, held);  // links uncharged it
}

void StageServer::StartBackward(const WorkId& work, Held& held) {
  held.phase = Phase::kBackwarding;
  BackwardInput input;
  input.work = work;
  input.gradient = std::move(held.gradient);
  if (held.adds) input.segment = segment_;
  input.want_input_gradient = GradientWanted(held);
  compute_->Backward(std::move(input), [this, work, life = std::weak_ptr<bool>(life_)](
                                           absl::StatusOr<BackwardOutput> output) {
    if (!life.expired()) OnBackwardDone(work, std::move(output));
  });
}

void StageServer::OnBackwardDone(const WorkId& work, absl::StatusOr<BackwardOutput> output) {
  if (!output.ok()) {  // nothing more is run until a Reset
    if (!absl::IsCancelled(output.status())) links_->DeviceFailed(output.status());
    return;
  }
  device_busy_ = false;
  Smooth(&backward_s_, output->took);
  const auto it = held_.find(work);
  if (it != held_.end()) {
    Held& held = it->second;
    if (GradientWanted(held) && fenced_.count(held.upstream) == 0) {
      links_->SendBackward(held.upstream, {work, std::move(output->input_gradient)});
    }
    if (held.adds) links_->Notify({work, Progress::kAdded, held.loss_sum, held.tokens});
    Finish(work, held);
  }
  RunNext();
}

void StageServer::Finish(const WorkId& work, Held& held) {
  held.phase = Phase::kDone;
  held.output = Blob();
  held.forward.input = Blob();
  held.forward.targets = Blob();
  if (held.downstream) links_->NextFinished(*held.downstream);
}

StageServer::HeldMap::iterator StageServer::Forget(HeldMap::iterator it) {
  const Held& held = it->second;
  if (held.phase == Phase::kForwardQueued || held.phase == Phase::kBackwardQueued) {
    queue_.erase({KeyOf(it->first, held), it->first});
  }
  if (held.downstream && held.phase != Phase::kDone) links_->NextFinished(*held.downstream);
  return held_.erase(it);
}

}  // namespace starling
