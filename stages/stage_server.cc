#include "stages/stage_server.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/planted.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr double kSmoothing = 0.1;
// So many of the first to go are decoded before their turn: what comes later may have to go
// before them, and what waits is smaller encoded.
constexpr uint32_t kDecodeAhead = 2;
// With so many outputs that wait for their encoding the device takes nothing new.
constexpr uint32_t kEncodeBehind = 2;
constexpr uint64_t kCodingDomain = 0x636f6465ULL;  // "code"

void Smooth(double* average, absl::Duration took) {
  const double seconds = absl::ToDoubleSeconds(took);
  *average = *average == 0 ? seconds : (1 - kSmoothing) * *average + kSmoothing * seconds;
}

}  // namespace

StageServer::StageServer(Options options, Compute* compute, StageLinks* links)
    : options_(options), compute_(compute), links_(links) {}

void StageServer::Reset(Version version) {
  version_ = version;
  older_ = OlderParameters::kNone;
  steps_.clear();
  held_.clear();
  aliases_.clear();
  cancelled_.clear();
  refused_.clear();
  queue_.clear();
  encoded_.clear();
  fenced_.clear();
  log_bytes_ = 0;
  device_busy_ = failed_ = false;
  decoding_ = encoding_ = 0;
  life_ = std::make_shared<bool>(true);
}

// --- what arrives ----------------------------------------------------------------------

absl::StatusCode StageServer::Admit(const Forward& forward) const {
  const Step step = forward.work.id.step;
  const bool too_old = older_ == OlderParameters::kNone ? forward.version < version_
                                                        : Next(forward.version) < version_;
  if (too_old || step <= Step{Value(version_)}) return absl::StatusCode::kAborted;
  if (forward.until && forward.until->stage <= options_.stage) return absl::StatusCode::kAborted;
  uint32_t open = 0;
  uint32_t contested = 0;
  for (const auto& [work, held] : held_) {
    if (work.id.step != step) continue;
    if (held.phase != Phase::kDone) ++open;
    if (held.forward.contested && held.adds) ++contested;
  }
  if (forward.contested && contested >= options_.contested) {
    return absl::StatusCode::kResourceExhausted;
  }
  return open >= options_.slots && !forward.replay ? absl::StatusCode::kResourceExhausted
                                                   : absl::StatusCode::kOk;
}

absl::StatusCode StageServer::OnForward(Incarnation from, const Forward& forward) {
  if (fenced_.count(from) > 0) return absl::StatusCode::kAborted;
  const auto known = held_.find(forward.work);
  const bool again = known != held_.end() && known->second.phase == Phase::kDone &&
                     Planted(Bug::kRunRepeatedRequest);
  if ((known != held_.end() && !again) || cancelled_.count(forward.work) > 0) {
    return absl::StatusCode::kOk;
  }
  const auto refused = refused_.find(forward.work);
  if (refused != refused_.end() && forward.offer <= refused->second) {
    return absl::StatusCode::kResourceExhausted;
  }
  if (const absl::StatusCode code = Admit(forward); code != absl::StatusCode::kOk) {
    if (code == absl::StatusCode::kResourceExhausted) refused_[forward.work] = forward.offer;
    return code;
  }

  Held& held = held_[forward.work];
  held.forward = forward;
  held.upstream = from;
  held.adds = forward.work.id.kind == WorkKind::kTrain &&
              (!forward.replay || Planted(Bug::kIgnoreStageMask) ||
               std::count(forward.add_at.begin(), forward.add_at.end(), options_.stage) > 0);
  held.gradient_wanted =
      forward.gradient_wanted && !first_stage() && forward.work.id.kind == WorkKind::kTrain;
  if (held.gradient_wanted) held.takers.push_back({from, forward.work.attempt});
  held.route.attempt = forward.work.attempt;
  held.route.replay = forward.replay;
  held.route.add_at = forward.add_at;
  held.route.until = forward.until;
  held.route.contested = forward.contested;
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
  const auto alias = aliases_.find(backward.work);
  const WorkId work = alias == aliases_.end() ? backward.work : alias->second;
  const auto it = held_.find(work);
  if (it == held_.end()) return absl::StatusCode::kOk;  // cancelled, or the step is over
  Held& held = it->second;
  const Party source{from, backward.work.attempt};
  if (std::find(held.sources.begin(), held.sources.end(), source) == held.sources.end()) {
    return absl::StatusCode::kAborted;
  }
  // The gradient may overtake the acceptance: they travel on different channels.
  if (held.phase == Phase::kAwaiting) {
    held.gradient = backward.gradient;
    Enqueue(work, held, Phase::kBackwardQueued);
    RunNext();
  } else {
    ++counters_.second_gradients;
  }
  return absl::StatusCode::kOk;
}

absl::StatusCode StageServer::OnClaim(Incarnation from, const Claim& claim) {
  const auto it = held_.find(claim.work);
  if (fenced_.count(from) > 0 || it == held_.end() || first_stage()) {
    return absl::StatusCode::kAborted;
  }
  Held& held = it->second;
  if (!CanGive(held)) return absl::StatusCode::kAborted;
  held.gradient_wanted = true;
  const Party taker{from, claim.as};
  if (std::find(held.takers.begin(), held.takers.end(), taker) == held.takers.end()) {
    held.takers.push_back(taker);
  }
  if (held.phase == Phase::kDone) {
    steps_[claim.work.id.step].sent.backward += held.input_gradient.size_bytes();
    links_->SendBackward(from, {{claim.work.id, claim.as}, held.input_gradient});
  }
  return absl::StatusCode::kOk;
}

absl::StatusCode StageServer::OnResend(const Resend& resend) {
  bool all = true;
  for (const ResendWork& work : resend.works) {
    all = !IsStale(work.work.id.step, resend.number) && ResendOne(work) && all;
  }
  return all ? absl::StatusCode::kOk : absl::StatusCode::kAborted;
}

bool StageServer::ResendOne(const ResendWork& resend) {
  const auto it = held_.find(resend.work);
  if (it == held_.end() || last_stage()) return false;
  Held& held = it->second;
  if (held.route.attempt == resend.as) return true;
  const bool claims = resend.until && resend.until->stage == Next(options_.stage);
  // A claim is of use to one that waits; only an output that is still here can go on again.
  if (claims ? held.phase != Phase::kAwaiting : held.output.empty()) return false;
  Route route;
  route.attempt = resend.as;
  route.replay = true;
  route.add_at = resend.add_at;
  route.until = resend.until;
  route.contested = resend.contested;
  if (resend.contested) route.avoid = held.route.to;
  held.route = std::move(route);
  aliases_[{resend.work.id, resend.as}] = resend.work;
  Offer(resend.work, held);
  return true;
}

void StageServer::OnCancel(const Cancel& cancel) {
  for (const WorkId& work : cancel.works) {
    if (IsStale(work.id.step, cancel.number)) continue;
    const auto it = held_.find(work);
    // What has its gradient is counted on; only what can never get one is cancelled.
    if (it != held_.end() && it->second.phase >= Phase::kBackwardQueued) continue;
    if (work.id.step > Step{Value(version_)}) cancelled_.insert(work);
    if (it == held_.end()) continue;
    compute_->Drop(work);
    Forget(it);
  }
  RunNext();  // what is behind them may be decoded now
}

bool StageServer::IsStale(Step step, uint64_t fence) const {
  const auto open = steps_.find(step);
  return open != steps_.end() && fence < open->second.fence;
}

FenceAck StageServer::OnFence(const Fence& fence) {
  if (!Planted(Bug::kForgetPromise)) fenced_.insert(fence.fenced.begin(), fence.fenced.end());
  if (fence.step > Step{Value(version_)}) {
    uint64_t& newest = steps_[fence.step].fence;
    newest = std::max(newest, fence.number);
  }
  FenceAck ack;
  ack.number = fence.number;
  for (auto it = held_.begin(); it != held_.end();) {
    auto& [work, held] = *it;
    const bool to_fenced = held.route.to && fenced_.count(*held.route.to) > 0;
    if (work.id.kind == WorkKind::kEvaluate) {
      // Leaves nothing behind, so the trainer simply asks again.
      it = to_fenced ? Forget(it) : std::next(it);
      continue;
    }
    if (work.id.step == fence.step) ack.held.push_back(Report(work, held));
    ++it;
  }
  return ack;
}

HeldWork StageServer::Report(const WorkId& work, const Held& held) const {
  HeldWork report;
  report.work = work;
  if (held.phase == Phase::kDone) {
    report.state = HeldState::kDone;
  } else if (held.phase >= Phase::kBackwardQueued) {
    report.state = HeldState::kAdded;
  } else if (held.route.delivery == Delivery::kRefused) {
    report.state = HeldState::kUnclaimed;
  }
  report.upstream = held.upstream;
  report.downstream = held.route.to;
  report.downstream_attempt = held.route.attempt;
  if (held.route.until && held.route.until->stage == Next(options_.stage)) {
    report.downstream_attempt = held.route.until->attempt;
    report.claims = true;
  }
  report.accepted =
      held.route.delivery == Delivery::kAccepted || held.phase >= Phase::kBackwardQueued;
  report.output_kept = !held.output.empty();
  report.gradient_kept = CanGive(held);
  return report;
}

void StageServer::OnSeal(Step step, Compute::Done<std::vector<SegmentSummary>> done) {
  compute_->Seal(step, [this, step, done = std::move(done), life = std::weak_ptr<bool>(life_)](
                           absl::StatusOr<std::vector<SegmentSummary>> segments) {
    if (segments.ok() && !life.expired()) {
      const std::set<SegmentId>& contested = steps_[step].contested_segments;
      for (SegmentSummary& segment : *segments) {
        segment.contested = contested.count(segment.id) > 0;
      }
    }
    done(std::move(segments));
  });
  if (Planted(Bug::kAddAfterSeal)) return;
  OpenStep& open = steps_[step];
  open.main_segment = open.next_segment;
  open.next_segment = Next(open.next_segment);
}

void StageServer::SetOlder(OlderParameters older) {
  if (options_.keeps_older) older_ = older;
}

void StageServer::OnVersion(Version version, bool updated) {
  version_ = version;
  SetOlder(updated ? OlderParameters::kUpdated : OlderParameters::kSame);
  const Step finished{Value(version)};
  steps_.erase(steps_.begin(), steps_.upper_bound(finished));
  compute_->FreeThrough(finished);
  for (auto it = held_.begin(); it != held_.end();) {
    it = it->first.id.step <= finished ? Forget(it) : std::next(it);
  }
  const auto over = [finished](const WorkId& work) { return work.id.step <= finished; };
  while (!aliases_.empty() && over(aliases_.begin()->first)) aliases_.erase(aliases_.begin());
  while (!cancelled_.empty() && over(*cancelled_.begin())) cancelled_.erase(cancelled_.begin());
  while (!refused_.empty() && over(refused_.begin()->first)) refused_.erase(refused_.begin());
  for (auto& [work, held] : held_) {
    if (held.phase == Phase::kEarly && held.forward.version == version_) {
      Enqueue(work, held, Phase::kForwardQueued);
    }
  }
  RunNext();
}

void StageServer::RetrySends() {
  for (auto it = held_.begin(); it != held_.end();) {
    const auto next = std::next(it);
    if (it->second.route.delivery == Delivery::kUnsent) Offer(it->first, it->second);
    it = next;
  }
}

// --- load and log ----------------------------------------------------------------------

StageServer::Sent StageServer::sent(Step step) const {
  const auto open = steps_.find(step);
  return open == steps_.end() ? Sent() : open->second.sent;
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
    if (held.phase != Phase::kDone && !held.forward.replay) most = std::max(most, ++open);
  }
  visit("open microbatches of a step", most, options_.slots);
  visit("microbatches kept", held_.size(), size_t{8} * options_.slots);
  visit("bytes of boundaries kept", log_bytes_, options_.log_budget_bytes);
  visit("boundaries with the codecs", decoding_ + encoding_, kDecodeAhead + kEncodeBehind);
}

uint32_t StageServer::OpenCount() const {
  uint32_t open = 0;
  for (const auto& [work, held] : held_) {
    if (held.phase != Phase::kDone) ++open;
  }
  return open;
}

bool StageServer::CanGive(const Held& held) const {
  if (first_stage() || held.forward.work.id.kind != WorkKind::kTrain) return false;
  if (held.phase == Phase::kDone) return !held.input_gradient.empty();
  if (held.phase == Phase::kBackwarding) return held.gradient_wanted;
  // One that has passed its output on without asking for a gradient gets none.
  return held.phase != Phase::kAwaiting || NeedsGradient(held);
}

bool StageServer::Log(uint64_t bytes) {
  if (bytes > options_.log_budget_bytes || log_bytes_ > options_.log_budget_bytes - bytes) {
    ++counters_.not_logged;
    return false;
  }
  log_bytes_ += bytes;
  return true;
}

// --- the device ------------------------------------------------------------------------

Coding StageServer::CodingOf(const MicrobatchId& id, bool forward) const {
  Coding coding = forward ? options_.forward : options_.backward;
  coding.key = MixAll(kCodingDomain, options_.seed, Value(id.step), static_cast<uint64_t>(id.kind),
                      id.index, Value(options_.stage), forward ? 0 : 1);
  return coding;
}

StageServer::QueueKey StageServer::KeyOf(const WorkId& work, const Held& held) const {
  int order = held.phase == Phase::kBackwardQueued ? 1 : 2;
  if (held.forward.replay) order = 0;
  return {work.id.step, order, held.age};
}

void StageServer::Enqueue(const WorkId& work, Held& held, Phase phase) {
  held.phase = phase;
  held.age = next_age_++;
  auto& line = BoundaryOf(held).encoded() ? encoded_ : queue_;
  line.insert({KeyOf(work, held), work});
}

Blob& StageServer::BoundaryOf(Held& held) {
  return held.phase == Phase::kForwardQueued ? held.forward.input : held.gradient;
}

void StageServer::DecodeAhead() {
  while (!encoded_.empty()) {
    uint32_t ahead = decoding_;
    for (auto it = queue_.begin(); it != queue_.end() && ahead < kDecodeAhead; ++it) {
      if (*encoded_.begin() < *it) break;
      ++ahead;
    }
    if (ahead >= kDecodeAhead) return;
    const WorkId work = encoded_.begin()->second;
    encoded_.erase(encoded_.begin());
    Held& held = held_.at(work);
    ++decoding_;
    compute_->Decode(std::move(BoundaryOf(held)),
                     [this, work, age = held.age,
                      life = std::weak_ptr<bool>(life_)](absl::StatusOr<Blob> decoded) {
                       if (!life.expired()) OnDecoded(work, age, std::move(decoded));
                     });
  }
}

void StageServer::OnDecoded(const WorkId& work, uint64_t age, absl::StatusOr<Blob> boundary) {
  if (!boundary.ok()) return Fail(boundary.status());
  --decoding_;
  const auto it = held_.find(work);
  if (it != held_.end() && it->second.age == age) {  // else it was cancelled
    BoundaryOf(it->second) = *std::move(boundary);
    queue_.insert({KeyOf(work, it->second), work});
  }
  RunNext();
}

void StageServer::EncodeAndPass(const WorkId& work, Blob boundary, bool forward) {
  const Coding coding = CodingOf(work.id, forward);
  if (boundary.empty() || coding.encoding == Encoding::kRaw) {
    return Pass(work, std::move(boundary), forward);
  }
  ++encoding_;
  compute_->Encode(
      std::move(boundary), coding,
      [this, work, forward, life = std::weak_ptr<bool>(life_)](absl::StatusOr<Blob> encoded) {
        if (life.expired()) return;
        if (!encoded.ok()) return Fail(encoded.status());
        --encoding_;
        Pass(work, *std::move(encoded), forward);
        RunNext();
      });
}

void StageServer::Pass(const WorkId& work, Blob boundary, bool forward) {
  forward ? OnOutput(work, std::move(boundary)) : OnInputGradient(work, std::move(boundary));
}

void StageServer::Fail(const absl::Status& status) {
  if (std::exchange(failed_, true)) return;
  if (!absl::IsCancelled(status)) links_->DeviceFailed(status);
}

void StageServer::RunNext() {
  StartNext();
  DecodeAhead();
}

void StageServer::StartNext() {
  if (device_busy_ || failed_ || encoding_ >= kEncodeBehind || queue_.empty()) return;
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
  input.older = held.forward.version < version_ && older_ == OlderParameters::kUpdated &&
                !(held.forward.replay && Planted(Bug::kReplayOnNewest));
  compute_->Forward(std::move(input), [this, work, life = std::weak_ptr<bool>(life_)](
                                          absl::StatusOr<ForwardOutput> output) {
    if (!life.expired()) OnForwardDone(work, std::move(output));
  });
}

void StageServer::OnForwardDone(const WorkId& work, absl::StatusOr<ForwardOutput> output) {
  if (!output.ok()) return Fail(output.status());
  device_busy_ = false;
  Smooth(&forward_s_, output->took);
  const auto it = held_.find(work);
  if (it == held_.end()) {
    compute_->Drop(work);  // cancelled while it ran
  } else if (last_stage()) {
    FinishLastStage(work, it->second, *output);
  } else {
    EncodeAndPass(work, std::move(output->output), true);
  }
  RunNext();
}

void StageServer::OnOutput(const WorkId& work, Blob output) {
  const auto it = held_.find(work);
  if (it == held_.end()) return;  // cancelled while it was encoded
  Held& held = it->second;
  held.phase = Phase::kAwaiting;
  held.output = std::move(output);
  held.output_logged = work.id.kind == WorkKind::kTrain &&
                       Log(held.output.size_bytes() + held.forward.targets.size_bytes());
  Offer(work, held);
}

void StageServer::FinishLastStage(const WorkId& work, Held& held, const ForwardOutput& output) {
  held.loss_sum = output.loss_sum;
  held.tokens = output.tokens;
  if (work.id.kind == WorkKind::kEvaluate) {
    links_->Notify({work, Progress::kEvaluated, output.loss_sum, output.tokens});
    Forget(held_.find(work));
  } else if (NeedsGradient(held)) {
    Enqueue(work, held, Phase::kBackwardQueued);
  } else {
    compute_->Drop(work);
    Finish(held);
  }
}

SegmentId StageServer::SegmentFor(Step step, Held& held) {
  OpenStep& open = steps_[step];
  if (!held.forward.contested || Planted(Bug::kContestedAsBaton)) return open.main_segment;
  const SegmentId own = open.next_segment;
  open.next_segment = Next(open.next_segment);
  open.contested_segments.insert(own);
  return own;
}

void StageServer::StartBackward(const WorkId& work, Held& held) {
  held.phase = Phase::kBackwarding;
  BackwardInput input;
  input.work = work;
  input.gradient = std::move(held.gradient);
  if (held.adds) input.segment = SegmentFor(work.id.step, held);
  input.want_input_gradient = held.gradient_wanted;
  compute_->Backward(std::move(input), [this, work, life = std::weak_ptr<bool>(life_)](
                                           absl::StatusOr<BackwardOutput> output) {
    if (!life.expired()) OnBackwardDone(work, std::move(output));
  });
}

void StageServer::OnBackwardDone(const WorkId& work, absl::StatusOr<BackwardOutput> output) {
  if (!output.ok()) return Fail(output.status());
  device_busy_ = false;
  Smooth(&backward_s_, output->took);
  const auto it = held_.find(work);
  if (it != held_.end()) {
    Held& held = it->second;
    EncodeAndPass(work, std::move(output->input_gradient), false);
    if (held.adds) links_->Notify({work, Progress::kAdded, held.loss_sum, held.tokens});
  }
  RunNext();
}

void StageServer::OnInputGradient(const WorkId& work, Blob gradient) {
  const auto it = held_.find(work);
  if (it == held_.end()) return;  // the step was over while it was encoded
  Held& held = it->second;
  for (const Party& taker : held.takers) {
    if (fenced_.count(taker.replica) > 0) continue;
    steps_[work.id.step].sent.backward += gradient.size_bytes();
    links_->SendBackward(taker.replica, {{work.id, taker.attempt}, gradient});
  }
  if (held.gradient_wanted && Log(gradient.size_bytes())) {
    held.input_gradient = std::move(gradient);
  }
  Finish(held);
}

// --- sending on ------------------------------------------------------------------------

void StageServer::Offer(const WorkId& work, Held& held) {
  Route& route = held.route;
  if (route.until && route.until->stage == Next(options_.stage)) return OfferClaim(work, held);
  const std::optional<Incarnation> to = links_->ChooseNext(route.avoid);
  route.to = to;
  route.delivery = to ? Delivery::kSending : Delivery::kUnsent;
  if (!to) return;
  Forward forward = held.forward;
  forward.work.attempt = route.attempt;
  forward.contested = route.contested && !Planted(Bug::kContestedAsBaton);
  forward.offer = route.offers++;
  forward.replay = route.replay;
  forward.add_at = route.add_at;
  forward.until = route.until;
  forward.gradient_wanted = NeedsGradient(held) && held.phase == Phase::kAwaiting;
  forward.input = held.output;
  if (work.id.kind == WorkKind::kTrain) {
    steps_[work.id.step].sent.forward += held.output.size_bytes();
  }
  held.sources.push_back({*to, route.attempt});
  held.charged.push_back(*to);
  links_->SendForward(*to, std::move(forward),
                      [this, work, as = route.attempt, to = *to,
                       life = std::weak_ptr<bool>(life_)](absl::StatusCode code) {
                        if (!life.expired()) OnOffered(work, as, to, code);
                      });
}

void StageServer::OfferClaim(const WorkId& work, Held& held) {
  Route& route = held.route;
  const Incarnation holder = route.until->holder;
  route.to = holder;
  if (fenced_.count(holder) > 0) return Refused(work, held);
  held.sources.push_back({holder, route.attempt});
  const bool known = links_->SendClaim(
      holder, {{work.id, route.until->attempt}, route.attempt},
      [this, work, as = route.attempt, life = std::weak_ptr<bool>(life_)](absl::StatusCode code) {
        if (!life.expired()) OnClaimed(work, as, code);
      });
  route.delivery = known ? Delivery::kSending : Delivery::kUnsent;
}

void StageServer::OnOffered(const WorkId& work, AttemptId as, Incarnation to,
                            absl::StatusCode code) {
  const auto it = held_.find(work);
  if (it == held_.end()) return;
  Held& held = it->second;
  Route& route = held.route;
  const bool current =
      route.attempt == as && route.to == to && route.delivery == Delivery::kSending;
  if (code != absl::StatusCode::kOk) {
    // What went to the fenced stays as it was reported: the trainer has decided on it.
    if (fenced_.count(to) > 0) return;
    const auto charge = std::find(held.charged.begin(), held.charged.end(), to);
    if (charge != held.charged.end()) held.charged.erase(charge);
    if (!current) return;
    held.sources.erase(std::remove(held.sources.begin(), held.sources.end(), Party{to, as}),
                       held.sources.end());
    route.to.reset();
    route.delivery = Delivery::kUnsent;
    if (code == absl::StatusCode::kResourceExhausted) Offer(work, held);  // links uncharged it
    return;
  }
  if (!current) return;
  route.delivery = Delivery::kAccepted;
  if (work.id.kind == WorkKind::kEvaluate) {
    Forget(it);
    return;
  }
  if (!held.output_logged) held.output = Blob();
  if (held.phase == Phase::kDone) {
    Uncharge(held);
  } else if (held.phase == Phase::kAwaiting && !NeedsGradient(held)) {
    compute_->Drop(work);
    Finish(held);
  }
}

void StageServer::OnClaimed(const WorkId& work, AttemptId as, absl::StatusCode code) {
  const auto it = held_.find(work);
  if (it == held_.end() || it->second.route.attempt != as) return;
  Held& held = it->second;
  if (held.route.delivery != Delivery::kSending) return;
  held.route.delivery = Delivery::kAccepted;
  if (code != absl::StatusCode::kOk && held.phase == Phase::kAwaiting) Refused(work, held);
}

void StageServer::Refused(const WorkId& work, Held& held) {
  held.route.delivery = Delivery::kRefused;
  links_->Notify({work, Progress::kUnclaimed, 0, 0});
}

void StageServer::Uncharge(Held& held) {
  for (Incarnation replica : held.charged) links_->NextFinished(replica);
  held.charged.clear();
}

void StageServer::Finish(Held& held) {
  held.phase = Phase::kDone;
  held.forward.input = Blob();
  held.gradient = Blob();
  const bool sending =
      held.route.delivery == Delivery::kUnsent || held.route.delivery == Delivery::kSending;
  if (last_stage() || (!held.output_logged && !sending)) {
    held.output = Blob();
    held.forward.targets = Blob();
  }
  if (!sending) Uncharge(held);
}

StageServer::HeldMap::iterator StageServer::Forget(HeldMap::iterator it) {
  Held& held = it->second;
  if (held.phase == Phase::kForwardQueued || held.phase == Phase::kBackwardQueued) {
    queue_.erase({KeyOf(it->first, held), it->first});
    encoded_.erase({KeyOf(it->first, held), it->first});
  }
  Uncharge(held);
  if (held.output_logged)
    log_bytes_ -= held.output.size_bytes() + held.forward.targets.size_bytes();
  log_bytes_ -= held.input_gradient.size_bytes();
  return held_.erase(it);
}

}  // namespace starling
