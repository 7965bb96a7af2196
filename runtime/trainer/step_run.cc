#include "runtime/trainer/step_run.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/lane.h"
#include "runtime/base/planted.h"
#include "sync/plan.h"

namespace starling {
namespace {

constexpr absl::Duration kSendAgain = absl::Milliseconds(20);
constexpr uint32_t kRoundTries = 5;  // rounds of a step that may fail without a death

}  // namespace

StepRun::StepRun(Options options, Env* env, Swarm* swarm, const DataFeed* data, Wiring* wiring,
                 EventSink events, MaySeal may_seal, StatesAreRight states_are_right, OnDone done)
    : options_(std::move(options)),
      env_(env),
      swarm_(swarm),
      data_(data),
      wiring_(wiring),
      events_(std::move(events)),
      may_seal_(std::move(may_seal)),
      states_are_right_(std::move(states_are_right)),
      done_(std::move(done)),
      ledger_(swarm->stages(), options_.microbatches) {
  for (uint32_t stage = 0; stage < swarm->stages(); ++stage) {
    lanes_.push_back(LaneTotal(options_.step, StageId{stage}, options_.microbatches));
  }
}

StepRun::~StepRun() {
  env_->Cancel(retry_);
  for (const auto& [id, flight] : in_flight_) wiring_->OnFinished(flight.second);
}

void StepRun::Start() {
  const uint32_t evaluations = options_.evaluate ? data_->evaluate_microbatches() : 0;
  for (uint32_t i = 0; i < evaluations; ++i) {
    todo_.push_back({{options_.step, WorkKind::kEvaluate, i}, {}, false});
  }
  for (uint32_t i = 0; i < options_.microbatches; ++i) {
    todo_.push_back({{options_.step, WorkKind::kTrain, i}, {}, false});
  }
  Poke();
}

void StepRun::Poke() {
  if (phase_ != Phase::kRunning) return;
  Pump();
  MaybeSeal();
}

void StepRun::OnMemberAdded() {
  STARLING_CHECK(phase_ == Phase::kRunning || phase_ == Phase::kFencing);
  if (phase_ == Phase::kFencing) return SendFence();
  Poke();
}

const char* StepRun::phase_name() const {
  switch (phase_) {
    case Phase::kRunning:
      return "running";
    case Phase::kFencing:
      return "fencing";
    case Phase::kSealing:
      return "sealing";
    case Phase::kReducing:
      return "reducing";
    case Phase::kDone:
      return "done";
  }
  return "?";
}

uint32_t StepRun::done_microbatches() const {
  uint32_t done = 0;
  for (uint32_t i = 0; i < options_.microbatches; ++i) done += ledger_.complete(i) ? 1 : 0;
  return done;
}

// --- sending ---------------------------------------------------------------------------

void StepRun::Pump() {
  while (!todo_.empty() && in_flight_.size() < options_.window) {
    const Todo todo = todo_.front();
    if (!Send(todo)) {
      if (phase_ == Phase::kRunning) ScheduleRetry();
      return;
    }
    todo_.pop_front();
  }
}

bool StepRun::Send(const Todo& todo) {
  const std::optional<Incarnation> to = wiring_->Choose(env_->Now());
  if (!to) return false;
  const bool train = todo.id.kind == WorkKind::kTrain;
  MicrobatchData data =
      train ? data_->Train(todo.id.step, todo.id.index) : data_->Evaluate(todo.id.index);
  if (!data.status.ok()) {
    wiring_->OnFinished(*to);
    Finish(data.status);
    return false;
  }
  Forward forward;
  forward.work = {todo.id, {swarm_->self(), next_attempt_++}};
  forward.contested = todo.contested;
  forward.version = VersionBefore(todo.id.step);
  forward.add_at = todo.add_at;
  forward.first_sequence = data.first_sequence;
  forward.input = std::move(data.tokens);
  forward.targets = std::move(data.targets);
  if (Planted(Bug::kReuseAttemptName)) forward.work.attempt.counter = todo.id.index + 1;
  const AttemptId attempt = forward.work.attempt;
  if (train) ledger_.OnSent(todo.id.index, attempt, todo.add_at, *to);
  in_flight_[todo.id] = {attempt, *to};
  swarm_->Ask(
      *to, std::move(forward),
      [this, todo, attempt, to = *to, alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
        if (alive.expired()) return;
        const auto* ack = std::get_if<Ack>(&reply.body);
        OnSendAnswer(todo, attempt, to, ack ? ack->code : absl::StatusCode::kAborted);
      });
  return true;
}

void StepRun::OnSendAnswer(const Todo& todo, AttemptId attempt, Incarnation to,
                           absl::StatusCode code) {
  if (code == absl::StatusCode::kOk) return;
  const auto flight = in_flight_.find(todo.id);
  if (flight == in_flight_.end() || flight->second.first != attempt) return;
  in_flight_.erase(flight);
  if (code == absl::StatusCode::kResourceExhausted) {
    wiring_->OnBusy(to, env_->Now());
  } else {
    wiring_->OnFinished(to);
  }
  if (todo.id.kind == WorkKind::kTrain) ledger_.OnRefused(todo.id.index, attempt);
  todo_.push_front(todo);
  ScheduleRetry();
}

void StepRun::ScheduleRetry() {
  env_->Cancel(retry_);
  retry_ = env_->Schedule(kSendAgain, [this] { Poke(); });
}

void StepRun::Landed(const MicrobatchId& id) {
  const auto flight = in_flight_.find(id);
  if (flight == in_flight_.end()) return;
  wiring_->OnFinished(flight->second.second);
  in_flight_.erase(flight);
}

void StepRun::OnNotice(Incarnation from, const Notice& notice) {
  const MicrobatchId& id = notice.work.id;
  Replica* replica = swarm_->Find(from);
  if (replica == nullptr || id.step != options_.step) return;
  if (notice.progress == Progress::kEvaluated) {
    if (id.index < (options_.evaluate ? data_->evaluate_microbatches() : 0)) {
      evaluated_.try_emplace(id.index, notice.loss_sum, notice.tokens);
      Landed(id);
    }
  } else if (notice.progress == Progress::kAdded && id.index < options_.microbatches) {
    ledger_.OnAdded(id.index, notice.work.attempt, replica->member.stage, from);
    replica->tokens += options_.microbatch_tokens;
    if (ledger_.complete(id.index)) Landed(id);
  }
  Poke();
}

// --- fences ----------------------------------------------------------------------------

void StepRun::OnFenced(const std::vector<Incarnation>& fenced) {
  if (phase_ == Phase::kDone) return;
  fenced_.insert(fenced.begin(), fenced.end());
  SendFence();
}

void StepRun::SendFence() {
  phase_ = Phase::kFencing;
  ++fence_number_;
  fence_answers_.clear();
  Fence fence;
  fence.number = fence_number_;
  fence.step = options_.step;
  fence.fenced.assign(fenced_.begin(), fenced_.end());
  if (swarm_->replicas().empty()) return OnFenceAnswered();  // no one is left to promise
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    swarm_->Ask(
        incarnation, fence,
        [this, incarnation = incarnation, stage = replica.member.stage, number = fence_number_,
         alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
          const auto* ack = std::get_if<FenceAck>(&reply.body);
          if (alive.expired() || ack == nullptr) return;
          if (phase_ != Phase::kFencing || number != fence_number_) return;
          fence_answers_[incarnation] = {stage, ack->held};
          if (fence_answers_.size() == swarm_->replicas().size() || Planted(Bug::kSkipFenceAcks)) {
            OnFenceAnswered();
          }
        });
  }
}

void StepRun::OnFenceAnswered() {
  const Ledger::Repair repair = ledger_.Resolve(fence_answers_);
  std::map<Incarnation, Cancel> cancels;
  for (const Ledger::HolderWork& waiting : repair.cancels) {
    cancels[waiting.holder].works.push_back(waiting.work);
  }
  for (auto& [incarnation, cancel] : cancels) {
    swarm_->Ask(incarnation, std::move(cancel), [](const Message&) {});
  }
  // Evaluations leave nothing behind: all that are out are simply asked for again.
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    const bool again = it->first.kind == WorkKind::kEvaluate;
    if (again || repair.replays.count(it->first.index) > 0) {
      wiring_->OnFinished(it->second.second);
      if (again) todo_.push_front({it->first, {}, true});
      it = in_flight_.erase(it);
    } else {
      ++it;
    }
  }
  phase_ = Phase::kRunning;
  Replay(repair.replays);
}

void StepRun::Replay(const std::map<uint32_t, std::vector<StageId>>& replays) {
  // Replays still queued from before are part of `replays` again.
  todo_.erase(std::remove_if(todo_.begin(), todo_.end(),
                             [](const Todo& todo) {
                               return todo.contested && todo.id.kind == WorkKind::kTrain;
                             }),
              todo_.end());
  uint32_t pairs = 0;
  for (auto it = replays.rbegin(); it != replays.rend(); ++it) {
    todo_.push_front({{options_.step, WorkKind::kTrain, it->first}, it->second, true});
    pairs += static_cast<uint32_t>(it->second.size());
  }
  if (!replays.empty()) {
    retries_ += static_cast<uint32_t>(replays.size());
    replayed_ += pairs;
    events_(Event("replayed")
                .With("step", Value(options_.step))
                .With("microbatches", replays.size())
                .With("pairs", pairs));
  }
  Poke();
}

// --- the end of the step ---------------------------------------------------------------

void StepRun::MaybeSeal() {
  if (phase_ != Phase::kRunning || !ledger_.complete() || !may_seal_()) return;
  if (options_.evaluate && evaluated_.size() < data_->evaluate_microbatches()) return;
  if (swarm_->EmptyStage()) return;
  if (options_.microbatches == 0) return Finish(Summarize());
  BeginSeal();
}

void StepRun::BeginSeal() {
  phase_ = Phase::kSealing;
  ++seal_number_;
  sealed_.clear();
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    swarm_->Ask(incarnation, Seal{options_.step, seal_number_, options_.verify},
                [this, incarnation = incarnation, number = seal_number_,
                 alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
                  const auto* sealed = std::get_if<Sealed>(&reply.body);
                  if (alive.expired() || sealed == nullptr) return;
                  if (phase_ != Phase::kSealing || number != seal_number_) return;
                  if (sealed->step != options_.step || sealed->number != number) return;
                  sealed_[incarnation] = *sealed;
                  if (sealed_.size() == swarm_->replicas().size()) OnAllSealed();
                });
  }
}

void StepRun::OnAllSealed() {
  std::map<Incarnation, Hash128> states;
  for (const auto& [incarnation, sealed] : sealed_) states[incarnation] = sealed.state_hash;
  if (!states_are_right_(states)) {
    phase_ = Phase::kDone;
    return env_->Cancel(retry_);
  }
  picked_.assign(swarm_->stages(), {});
  bool whole = true;
  for (uint32_t s = 0; s < swarm_->stages(); ++s) {
    const StageId stage{s};
    std::map<Incarnation, std::vector<SegmentSummary>> lists;
    for (const Incarnation& incarnation : swarm_->OfStage(stage)) {
      lists[incarnation] = sealed_.at(incarnation).segments;
    }
    SegmentPick pick = PickSegments(lists, options_.microbatches, voided_);
    for (const SegmentPick::Voided& voided : pick.voided) {
      voided_.insert(voided.name);
      ledger_.Void(stage, voided.entries);
      events_(Event("segment_voided")
                  .With("step", Value(options_.step))
                  .With("stage", s)
                  .With("replica", ToString(voided.name.incarnation))
                  .With("reason", voided.reason));
    }
    for (uint32_t index : pick.missing) ledger_.Lose(stage, index);
    whole = whole && pick.missing.empty();
    picked_[s] = std::move(pick.members);
  }
  if (whole || Planted(Bug::kTrustNotices)) return BeginReduce();
  phase_ = Phase::kRunning;
  Replay(ledger_.MissingStages());
}

void StepRun::BeginReduce() {
  phase_ = Phase::kReducing;
  ++round_number_;
  reduced_.clear();
  for (uint32_t stage = 0; stage < swarm_->stages(); ++stage) {
    RoundPlan plan;
    plan.id = {swarm_->epoch(), options_.step, stage, round_number_};
    plan.members = picked_[stage];
    plan.parts = plans_.size() > stage ? KeepParts(plans_[stage], plan.members)
                                       : EqualParts(options_.stage_sizes[stage],
                                                    static_cast<uint32_t>(plan.members.size()));
    plan.expected_lane = lanes_[stage];
    plans_.resize(std::max(plans_.size(), size_t{stage} + 1));
    plans_[stage] = plan;
    for (const RoundMemberPlan& member : plan.members) {
      swarm_->Ask(member.incarnation, Reduce{plan},
                  [this, from = member.incarnation,
                   alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
                    const auto* reduced = std::get_if<Reduced>(&reply.body);
                    if (!alive.expired() && reduced != nullptr) OnReduced(from, *reduced);
                  });
    }
  }
}

void StepRun::OnReduced(Incarnation from, const Reduced& reduced) {
  if (phase_ != Phase::kReducing || reduced.round.number != round_number_) return;
  if (reduced.code == absl::StatusCode::kCancelled) return;  // it is stopping: its fence is coming
  if (reduced.round.group >= lanes_.size()) return;
  if (reduced.code != absl::StatusCode::kOk) return OnRoundFailed(from, reduced);
  reduced_[from] = reduced;
  if (reduced_.size() < swarm_->replicas().size()) return;
  for (const auto& [incarnation, mine] : reduced_) {
    const Reduced& first = reduced_.at(picked_[mine.round.group].front().incarnation);
    const uint64_t expected = lanes_[mine.round.group];
    if (mine.lane != expected || mine.result_hash != first.result_hash) {
      return Finish(absl::DataLossError(absl::StrCat(
          "stage ", mine.round.group, " in step ", Value(options_.step), ": ",
          mine.lane != expected ? "the integer lane says a microbatch was counted twice or never"
                                : "replicas hold different results",
          "; nothing was applied")));
    }
  }
  Finish(Summarize());
}

// What cannot be followed (a segment that is not there, or spoiled) is sealed and tried again;
// wrong numbers are not.
void StepRun::OnRoundFailed(Incarnation from, const Reduced& reduced) {
  const std::string what =
      absl::StrCat("the all-reduce of stage ", reduced.round.group, " in step ",
                   Value(options_.step), " failed at ", ToString(from), ": ", reduced.error);
  if (reduced.code == absl::StatusCode::kDataLoss || ++failed_rounds_ > kRoundTries) {
    return Finish(absl::DataLossError(what));
  }
  events_(Event("round_failed").With("step", Value(options_.step)).With("reason", what));
  phase_ = Phase::kRunning;
  Replay(ledger_.MissingStages());
}

StepOutcome StepRun::Summarize() const {
  StepOutcome outcome;
  outcome.retries = retries_;
  outcome.replayed = replayed_;
  std::map<uint32_t, std::pair<double, int64_t>> losses;  // by index
  for (uint32_t stage = 0; options_.microbatches > 0 && stage < swarm_->stages(); ++stage) {
    const Reduced& reduced = reduced_.at(picked_[stage].front().incarnation);
    outcome.groups.push_back(
        {reduced.round, picked_[stage], reduced.result_hash, reduced.square_norm, reduced.lane});
    outcome.square_norm += reduced.square_norm;
    if (stage + 1 < swarm_->stages()) continue;
    for (const RoundMemberPlan& member : picked_[stage]) {
      for (const SegmentSummary& segment : sealed_.at(member.incarnation).segments) {
        const bool counted =
            std::any_of(member.segments.begin(), member.segments.end(),
                        [&](const SegmentRef& ref) { return ref.id == segment.id; });
        if (!counted) continue;
        for (const SegmentEntry& entry : segment.entries) {
          losses[entry.index] = {entry.loss_sum, entry.tokens};
        }
      }
    }
  }
  for (const auto& [index, loss] : losses) {
    outcome.loss_sum += loss.first;
    outcome.tokens += loss.second;
    if (!std::isfinite(loss.first) && !outcome.nonfinite) outcome.nonfinite = index;
  }
  if (options_.evaluate && !evaluated_.empty()) {
    double sum = 0;
    int64_t tokens = 0;
    for (const auto& [index, loss] : evaluated_) {
      sum += loss.first;
      tokens += loss.second;
    }
    outcome.evaluation_loss = sum / static_cast<double>(tokens);
  }
  return outcome;
}

void StepRun::Finish(absl::StatusOr<StepOutcome> outcome) {
  phase_ = Phase::kDone;
  env_->Cancel(retry_);
  OnDone done = std::move(done_);
  done(std::move(outcome));
}

}  // namespace starling
