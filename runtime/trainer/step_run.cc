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
                 EventSink events, MaySeal may_seal, StatesAreRight states_are_right, FenceFn fence,
                 OnDone done)
    : options_(std::move(options)),
      env_(env),
      swarm_(swarm),
      data_(data),
      wiring_(wiring),
      events_(std::move(events)),
      may_seal_(std::move(may_seal)),
      states_are_right_(std::move(states_are_right)),
      fence_(std::move(fence)),
      done_(std::move(done)),
      ahead_(options_.room != nullptr),
      evaluate_(options_.evaluate && !ahead_),
      ledger_(swarm->stages(), options_.microbatches),
      pace_(options_.pace != nullptr ? options_.pace : &own_pace_),
      slow_(options_.work, pace_),
      began_(env->Now()),
      plans_(options_.groups.size()) {
  for (const ParameterGroup& group : options_.groups) {
    uint64_t lane = 0;
    for (const StageId& stage : group.stages) {
      if (Planted(Bug::kForgetTiedStage) && stage != group.stages.front()) continue;
      lane += LaneTotal(options_.step, stage, options_.microbatches);
    }
    lanes_.push_back(lane);
  }
}

StepRun::~StepRun() {
  CancelTimers();
  for (const auto& [id, flight] : in_flight_) wiring_->OnFinished(flight.second);
}

void StepRun::CancelTimers() {
  for (const TimerId timer : {retry_, ask_again_, watch_}) env_->Cancel(timer);
}

void StepRun::Start() {
  for (uint32_t i = 0; i < options_.microbatches; ++i) {
    todo_.push_back({{options_.step, WorkKind::kTrain, i}, std::nullopt});
  }
  QueueEvaluations();
  Poke();
  ArmWatch();
}

// Before all else.
void StepRun::QueueEvaluations() {
  for (uint32_t i = evaluations(); i-- > 0;) {
    todo_.push_front({{options_.step, WorkKind::kEvaluate, i}, std::nullopt});
  }
}

void StepRun::Promote(bool evaluate) {
  ahead_ = false;
  evaluate_ = evaluate;
  began_ = env_->Now();
  slow_.Restart(began_);  // its work stood behind that of the step before
  QueueEvaluations();
  Poke();
  ArmWatch();
}

void StepRun::Poke() {
  if (phase_ != Phase::kRunning) return;
  Pump();
  MaybeSeal();
}

void StepRun::OnMembersChanged() {
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
  while (!todo_.empty() && HasRoom()) {
    const Todo todo = todo_.front();
    if (!Send(todo)) {
      if (phase_ == Phase::kRunning) ScheduleRetry();
      return;
    }
    todo_.pop_front();
  }
}

bool StepRun::HasRoom() const {
  return ahead_ ? options_.room() : in_flight_.size() < options_.window;
}

std::optional<Incarnation> StepRun::ChooseFirst(const Todo& todo) {
  std::optional<Incarnation> to = wiring_->Choose(env_->Now());
  const auto last = last_first_.find(todo.id);
  const bool avoid = todo.splice && todo.splice->avoid_first && last != last_first_.end();
  if (to && avoid && *to == last->second && swarm_->OfStage(StageId{0}).size() > 1) {
    // Left out for a while, as one that is busy is.
    wiring_->OnBusy(*to, env_->Now());
    to = wiring_->Choose(env_->Now());
  }
  return to;
}

AttemptId StepRun::NewAttempt(const MicrobatchId& id) {
  if (Planted(Bug::kReuseAttemptName)) return {swarm_->self(), id.index + 1};
  return {swarm_->self(), next_attempt_++};
}

bool StepRun::Send(const Todo& todo) {
  const std::optional<Incarnation> to = ChooseFirst(todo);
  if (!to) return false;
  const bool train = todo.id.kind == WorkKind::kTrain;
  const absl::Duration before = env_->InThisCallback();
  MicrobatchData data =
      train ? data_->Train(todo.id.step, todo.id.index) : data_->Evaluate(todo.id.index);
  feeding_ += env_->InThisCallback() - before;
  if (!data.status.ok()) {
    wiring_->OnFinished(*to);
    Finish(data.status);
    return false;
  }
  Forward forward;
  forward.work = {todo.id, NewAttempt(todo.id)};
  forward.version = train ? computed_on() : VersionBefore(todo.id.step);
  forward.gradient_wanted = false;
  forward.first_sequence = data.first_sequence;
  forward.input = std::move(data.tokens);
  forward.targets = std::move(data.targets);
  if (todo.splice) {
    forward.contested = todo.splice->contested;
    forward.replay = true;
    forward.add_at = todo.splice->add_at;
    forward.until = todo.splice->until;
  }
  const AttemptId attempt = forward.work.attempt;
  if (train) {
    ledger_.OnSent(todo.id.index, attempt, *to, todo.splice ? &*todo.splice : nullptr);
  }
  in_flight_[todo.id] = {attempt, *to};
  last_first_[todo.id] = *to;
  slow_.OnSent(todo.id, env_->Now());
  if (watch_ == kNoTimer) ArmWatch();
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
  if (code == absl::StatusCode::kOk) {
    if (todo.id.kind == WorkKind::kTrain) ledger_.OnAccepted(todo.id.index, attempt);
    return;
  }
  const auto flight = in_flight_.find(todo.id);
  if (flight == in_flight_.end() || flight->second.first != attempt) return;
  in_flight_.erase(flight);
  if (code == absl::StatusCode::kResourceExhausted) {
    wiring_->OnBusy(to, env_->Now());
  } else {
    wiring_->OnFinished(to);
  }
  if (todo.id.kind == WorkKind::kTrain) ledger_.OnRefused(todo.id.index, attempt);
  // A copy that nobody can take must not keep others waiting; it is thought of again when overdue.
  if (!todo.splice || !todo.splice->contested) todo_.push_front(todo);
  ScheduleRetry();
}

void StepRun::ScheduleRetry() {
  env_->Cancel(retry_);
  retry_ = env_->Schedule(kSendAgain, [this] { Poke(); });
}

void StepRun::Landed(const MicrobatchId& id) {
  slow_.OnDone(id);
  Recall(id);
}

bool StepRun::Recall(const MicrobatchId& id) {
  const auto flight = in_flight_.find(id);
  if (flight == in_flight_.end()) return false;
  wiring_->OnFinished(flight->second.second);
  in_flight_.erase(flight);
  return true;
}

void StepRun::OnNotice(Incarnation from, const Notice& notice) {
  const MicrobatchId& id = notice.work.id;
  Replica* replica = swarm_->Find(from);
  if (replica == nullptr || id.step != options_.step) return;
  slow_.OnNotice(id, from, env_->Now());
  if (notice.progress == Progress::kEvaluated) {
    if (id.index < evaluations()) {
      evaluated_.try_emplace(id.index, notice.loss_sum, notice.tokens);
      Landed(id);
    }
  } else if (notice.progress == Progress::kAdded && id.index < options_.microbatches) {
    ledger_.OnAdded(id.index, notice.work.attempt, replica->member.stage, from);
    replica->tokens += options_.microbatch_tokens;
    if (ledger_.complete(id.index)) {
      Landed(id);
      const auto slow = give_up_.find(id.index);
      if (slow != give_up_.end()) SendCancels(slow->second);
      give_up_.erase(id.index);
    }
  } else if (notice.progress == Progress::kUnclaimed) {
    AskAgainSoon();
  }
  Poke();
}

// --- the end of the step ---------------------------------------------------------------

void StepRun::MaybeSeal() {
  if (ahead_ || phase_ != Phase::kRunning || !ledger_.complete() || !may_seal_()) return;
  if (evaluated_.size() < evaluations()) return;
  if (swarm_->EmptyStage()) return;
  if (options_.microbatches == 0) return Finish(Summarize());
  BeginSeal();
}

void StepRun::BeginSeal() {
  phase_ = Phase::kSealing;
  probing_ = false;
  ++seal_number_;
  sealed_.clear();
  asked_at_ = env_->Now();
  for (const auto& [incarnation, replica] : swarm_->replicas()) AskSeal(incarnation);
  ArmWatch();
}

void StepRun::AskSeal(Incarnation replica) {
  swarm_->Ask(replica, Seal{options_.step, seal_number_, options_.verify},
              [this, replica, number = seal_number_,
               alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
                if (alive.expired() || phase_ != Phase::kSealing || number != seal_number_) return;
                const auto* sealed = std::get_if<Sealed>(&reply.body);
                if (sealed == nullptr) return;  // it is being removed
                if (sealed->step != options_.step || sealed->number != number) {
                  return AskSeal(replica);  // that was no answer
                }
                OnSealed(replica, *sealed);
              });
}

void StepRun::OnSealed(Incarnation from, const Sealed& sealed) {
  pace_->seal.Add(env_->Now() - asked_at_);
  sealed_[from] = sealed;
  if (sealed_.size() == swarm_->replicas().size()) OnAllSealed();
}

void StepRun::OnAllSealed() {
  std::map<Incarnation, Hash128> states;
  for (const auto& [incarnation, sealed] : sealed_) states[incarnation] = sealed.state_hash;
  if (!states_are_right_(states)) {
    phase_ = Phase::kDone;
    return CancelTimers();
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
  SendFence();  // who holds what of the missing ones?
}

void StepRun::BeginReduce() {
  phase_ = Phase::kReducing;
  ++round_number_;
  reduced_.clear();
  for (uint32_t group = 0; group < options_.groups.size(); ++group) {
    RoundPlan plan;
    plan.id = {swarm_->epoch(), options_.step, group, round_number_};
    plan.members = MembersOf(options_.groups[group]);
    plan.parts = round_number_ > 1 ? KeepParts(plans_[group], plan.members)
                                   : EqualParts(options_.groups[group].size,
                                                static_cast<uint32_t>(plan.members.size()));
    plan.expected_lane = lanes_[group];
    if (plan.members.size() > 1) plan.encoding = options_.round_encoding;  // else nothing travels
    if (plan.encoding != Encoding::kRaw) plan.scale_exponent = MeanExponent(options_.tokens);
    plans_[group] = plan;
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

std::vector<RoundMemberPlan> StepRun::MembersOf(const ParameterGroup& group) const {
  std::vector<RoundMemberPlan> members;
  for (const StageId& stage : group.stages) {
    for (const RoundMemberPlan& member : picked_[Value(stage)]) {
      members.push_back(member);
      const bool forget = Planted(Bug::kForgetTiedStage) && stage != group.stages.front();
      if (forget) members.back().segments.clear();
    }
  }
  return members;
}

void StepRun::OnReduced(Incarnation from, const Reduced& reduced) {
  if (phase_ != Phase::kReducing || reduced.round.number != round_number_) return;
  if (reduced.code == absl::StatusCode::kCancelled) return;  // it is stopping: its fence is coming
  if (reduced.round.group >= lanes_.size()) return;
  if (reduced.code != absl::StatusCode::kOk) return OnRoundFailed(from, reduced);
  reduced_[{reduced.round.group, from}] = reduced;
  size_t wanted = 0;
  for (const RoundPlan& plan : plans_) wanted += plan.members.size();
  if (reduced_.size() < wanted) return;
  for (const auto& [member, mine] : reduced_) {
    const uint32_t group = mine.round.group;
    const Reduced& first = reduced_.at({group, plans_[group].members.front().incarnation});
    const uint64_t expected = lanes_[group];
    if (mine.lane != expected || mine.result_hash != first.result_hash) {
      return Finish(absl::DataLossError(absl::StrCat(
          ToString(options_.groups[group]), " in step ", Value(options_.step), ": ",
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
  const std::string what = absl::StrCat(
      "the all-reduce of ", ToString(options_.groups[reduced.round.group]), " in step ",
      Value(options_.step), " failed at ", ToString(from), ": ", reduced.error);
  if (reduced.code == absl::StatusCode::kDataLoss || ++failed_rounds_ > kRoundTries) {
    return Finish(absl::DataLossError(what));
  }
  events_(Event("round_failed").With("step", Value(options_.step)).With("reason", what));
  phase_ = Phase::kRunning;
  Poke();
}

StepOutcome StepRun::Summarize() const {
  StepOutcome outcome;
  outcome.computed_on = computed_on();
  outcome.retries = retries_;
  outcome.replayed = replayed_;
  outcome.feeding = feeding_;
  for (const auto& [incarnation, sealed] : sealed_) {
    outcome.bytes_forward += sealed.bytes_forward;
    outcome.bytes_backward += sealed.bytes_backward;
    const Replica* replica = swarm_->Find(incarnation);
    if (replica == nullptr) continue;
    outcome.times.push_back({incarnation, replica->member.stage, sealed.times});
  }
  std::map<uint32_t, std::pair<double, int64_t>> losses;  // by index
  for (uint32_t group = 0; options_.microbatches > 0 && group < plans_.size(); ++group) {
    const std::vector<RoundMemberPlan>& members = plans_[group].members;
    const Reduced& reduced = reduced_.at({group, members.front().incarnation});
    outcome.groups.push_back(
        {reduced.round, members, reduced.result_hash, reduced.square_norm, reduced.lane});
    outcome.square_norm += reduced.square_norm;
    if (group + 1 != swarm_->stages()) continue;
    for (const RoundMemberPlan& member : members) {  // of the last stage, which has the losses
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
  if (!evaluated_.empty()) {
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
  CancelTimers();
  OnDone done = std::move(done_);
  done(std::move(outcome));
}

}  // namespace starling
