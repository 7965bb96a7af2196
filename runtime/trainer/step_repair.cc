// StepRun's fences, repairs and watch over slow work.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/planted.h"
#include "runtime/trainer/step_run.h"

namespace starling {
namespace {

constexpr absl::Duration kAskAgain = absl::Milliseconds(20);
// Those asked about slow work have this long; who is merely far away is asked again.
constexpr LimitBounds kProbe{absl::Milliseconds(300), absl::Seconds(3), 8, 5};
// After so many repairs of one microbatch its slow holders are fenced.
constexpr uint32_t kPatience = 3;

}  // namespace

// --- fences ----------------------------------------------------------------------------

void StepRun::OnFenced(const std::vector<Incarnation>& fenced) {
  if (phase_ == Phase::kDone) return;
  fenced_.insert(fenced.begin(), fenced.end());
  newly_fenced_.insert(newly_fenced_.end(), fenced.begin(), fenced.end());
  SendFence();
}

void StepRun::SendFence() {
  phase_ = Phase::kFencing;
  probing_ = false;
  env_->Cancel(ask_again_);
  ask_again_ = kNoTimer;
  ask_pending_ = false;
  AskEveryone(fenced_);
  if (swarm_->replicas().empty()) OnFenceAnswered();  // no one is left to promise
}

void StepRun::AskEveryone(const std::set<Incarnation>& fenced) {
  ++fence_number_;
  fence_answers_.clear();
  asked_at_ = env_->Now();
  Fence fence;
  fence.number = fence_number_;
  fence.step = options_.step;
  fence.fenced.assign(fenced.begin(), fenced.end());
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    swarm_->Ask(
        incarnation, fence,
        [this, incarnation = incarnation, stage = replica.member.stage, number = fence_number_,
         alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
          const auto* ack = std::get_if<FenceAck>(&reply.body);
          if (alive.expired() || ack == nullptr || number != fence_number_) return;
          if (phase_ != Phase::kFencing && !probing_) return;
          pace_->ask.Add(env_->Now() - asked_at_);
          fence_answers_[incarnation] = {stage, ack->held};
          const bool all = fence_answers_.size() == swarm_->replicas().size();
          if (!all && !Planted(Bug::kSkipFenceAcks)) return;
          if (probing_) return OnProbeAnswered();
          OnFenceAnswered();
        });
  }
  ArmWatch();
}

void StepRun::OnFenceAnswered() {
  const Ledger::Repair repair = ledger_.Resolve(fence_answers_);
  phase_ = Phase::kRunning;
  if (!newly_fenced_.empty()) SendEvaluationsAgain();
  // Replays still queued from before are part of the repair again.
  todo_.erase(std::remove_if(todo_.begin(), todo_.end(),
                             [](const Todo& todo) { return todo.splice.has_value(); }),
              todo_.end());
  SendCancels(repair.cancels);
  CarryOut(repair, false);
  newly_fenced_.clear();
  if (repair.ask_again || ask_pending_) AskAgainSoon();
  Poke();
  ArmWatch();
}

void StepRun::AskAgainSoon() {
  ask_pending_ = phase_ == Phase::kFencing;  // its answer may have come before this
  if (phase_ != Phase::kRunning || ask_again_ != kNoTimer) return;
  ask_again_ = env_->Schedule(kAskAgain, [this] {
    ask_again_ = kNoTimer;
    if (phase_ == Phase::kRunning) SendFence();
  });
}

// Evaluations leave nothing behind: all that are out are simply asked for again.
void StepRun::SendEvaluationsAgain() {
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    if (it->first.kind == WorkKind::kTrain) {
      ++it;
      continue;
    }
    wiring_->OnFinished(it->second.second);
    todo_.push_front({it->first, std::nullopt});
    it = in_flight_.erase(it);
  }
}

void StepRun::SendCancels(const std::vector<Ledger::HolderWork>& works) {
  std::map<Incarnation, Cancel> cancels;
  for (const Ledger::HolderWork& work : works) cancels[work.holder].works.push_back(work.work);
  for (auto& [incarnation, cancel] : cancels) {
    cancel.number = fence_number_;
    swarm_->Ask(incarnation, std::move(cancel), [](const Message&) {});
  }
}

void StepRun::CarryOut(const Ledger::Repair& repair, bool contested) {
  SendResends(repair.splices);
  for (auto it = repair.splices.rbegin(); it != repair.splices.rend(); ++it) {
    const MicrobatchId id{options_.step, WorkKind::kTrain, it->index};
    if (!contested) slow_.OnSent(id, env_->Now());
    if (it->from) continue;
    Recall(id);
    todo_.push_front({id, *it});
  }
  if (repair.splices.empty()) return;
  retries_ += static_cast<uint32_t>(repair.splices.size());
  replayed_ += repair.lost_pairs;
  if (!contested) Report(repair);
}

void StepRun::Report(const Ledger::Repair& repair) {
  std::set<uint32_t> indices;
  uint32_t from_logs = 0;
  for (const Ledger::Splice& splice : repair.splices) {
    indices.insert(splice.index);
    if (splice.from) ++from_logs;
  }
  std::vector<std::string> gone;
  for (Incarnation fenced : newly_fenced_) gone.push_back(ToString(fenced));
  events_(Event("replayed")
              .With("step", Value(options_.step))
              .With("microbatches", indices.size())
              .With("pairs", repair.lost_pairs)
              .With("from_logs", from_logs)
              .With("reason", gone.empty() ? std::string("what was promised is missing")
                                           : absl::StrCat("replica ", absl::StrJoin(gone, " and "),
                                                          " is gone")));
}

void StepRun::SendResends(const std::vector<Ledger::Splice>& splices) {
  std::map<Incarnation, Resend> resends;
  for (const Ledger::Splice& splice : splices) {
    if (!splice.from) continue;
    const AttemptId attempt = NewAttempt({options_.step, WorkKind::kTrain, splice.index});
    ledger_.OnSpliced(splice, attempt);
    resends[splice.from->holder].works.push_back(
        {splice.from->work, attempt, splice.add_at, splice.until, splice.contested});
  }
  for (auto& [incarnation, resend] : resends) {
    resend.number = fence_number_;
    swarm_->Ask(
        incarnation, std::move(resend),
        [this, number = fence_number_, alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
          const auto* ack = std::get_if<Ack>(&reply.body);
          if (alive.expired() || ack == nullptr || number != fence_number_) return;
          if (ack->code != absl::StatusCode::kOk) AskAgainSoon();
        });
  }
}

// --- slow work -------------------------------------------------------------------------

void StepRun::ArmWatch() {
  absl::Time due = absl::InfiniteFuture();
  if (phase_ == Phase::kRunning && !ahead_) {
    due = probing_ ? asked_at_ + pace_->ask.LimitOf(kProbe) : slow_.NextDue();
  } else if (phase_ == Phase::kFencing) {
    due = asked_at_ + pace_->ask.LimitOf(options_.answers);
  } else if (phase_ == Phase::kSealing) {
    due = asked_at_ + pace_->seal.LimitOf(options_.answers);
  }
  // One that is set too early finds nothing due and arms itself again.
  if (watch_ != kNoTimer && watch_due_ <= due) return;
  env_->Cancel(watch_);
  watch_ = kNoTimer;
  if (due == absl::InfiniteFuture()) return;
  watch_due_ = std::max(due, env_->Now() + kAskAgain);
  watch_ = env_->Schedule(watch_due_ - env_->Now(), [this] { OnWatch(); });
}

void StepRun::OnWatch() {
  watch_ = kNoTimer;
  const absl::Time now = env_->Now();
  // A loop that could not run did not hear anyone.
  if (now - watch_due_ > absl::Milliseconds(100)) {
    slow_.Restart(now);
    asked_at_ = now;
    return ArmWatch();
  }
  if (phase_ == Phase::kRunning && !ahead_) {
    if (probing_ && now - asked_at_ >= pace_->ask.LimitOf(kProbe)) {
      OnProbeAnswered();
    } else if (!probing_) {
      OnOverdue(slow_.Overdue(now));
    }
  } else if (phase_ == Phase::kFencing || phase_ == Phase::kSealing) {
    JudgeSilent();
  }
  if (phase_ != Phase::kDone) ArmWatch();
}

void StepRun::OnOverdue(const std::vector<SlowWork::Late>& late) {
  bool again = false;
  probed_.clear();
  for (const SlowWork::Late& work : late) {
    if (work.id.kind == WorkKind::kTrain) {
      probed_[work.id.index] = work;
      continue;
    }
    slow_.OnRepaired(work.id, env_->Now());
    if (!Recall(work.id)) continue;
    todo_.push_front({work.id, std::nullopt});
    again = true;
  }
  if (!probed_.empty() && !swarm_->replicas().empty()) {
    probing_ = true;
    AskEveryone({});
  }
  if (again) Poke();
}

Ledger::Suspicion StepRun::Suspect() const {
  Ledger::Suspicion suspicion;
  const absl::Time now = env_->Now();
  for (const auto& [index, late] : probed_) {
    // What is still queued here is nobody's fault.
    const bool queued = std::any_of(todo_.begin(), todo_.end(), [index = index](const Todo& todo) {
      return todo.id.kind == WorkKind::kTrain && todo.id.index == index;
    });
    if (queued || ledger_.complete(index)) continue;
    suspicion.overdue.insert(index);
    if (late.tries > 0) suspicion.again.insert(index);
  }
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    const auto answer = fence_answers_.find(incarnation);
    if (answer == fence_answers_.end()) {
      suspicion.silent[incarnation] = Value(replica.member.stage);
      continue;
    }
    // ... and nothing has come of it.
    if (Computes(answer->second) && slow_.Quiet(incarnation, began_, now)) {
      suspicion.stuck.insert(incarnation);
    }
  }
  return suspicion;
}

void StepRun::OnProbeAnswered() {
  probing_ = false;
  const Ledger::Suspicion suspicion = Suspect();
  const Ledger::Repair repair = ledger_.ResolveSlow(fence_answers_, suspicion);
  uint32_t tries = 0;
  std::string reason;
  for (uint32_t index : suspicion.overdue) {
    const SlowWork::Late& late = probed_.at(index);
    if (late.tries >= tries) reason = late.reason;
    tries = std::max(tries, late.tries);
    slow_.OnRepaired(late.id, env_->Now());
  }
  for (const auto& [index, works] : repair.give_up) {
    auto& known = give_up_[index];
    known.insert(known.end(), works.begin(), works.end());
  }
  if (!repair.splices.empty()) {
    const auto name = [](std::string* out, Incarnation replica) {
      absl::StrAppend(out, ToString(replica));
    };
    events_(Event("contested")
                .With("step", Value(options_.step))
                .With("microbatches", repair.splices.size())
                .With("replicas", absl::StrJoin(repair.rivals, ", ", name))
                .With("reason", reason));
  }
  CarryOut(repair, true);
  Poke();
  if (tries < kPatience || phase_ != Phase::kRunning) return;
  std::set<Incarnation> culprits = repair.rivals;
  for (const auto& [replica, stage] : suspicion.silent) culprits.insert(replica);
  culprits.insert(suspicion.stuck.begin(), suspicion.stuck.end());
  if (FenceOneOf(culprits, absl::StrCat("it holds up step ", Value(options_.step), ": ", reason))) {
    return;
  }
  // Nobody computes anything, and nobody may be fenced: waiting longer cannot help. (All may hold
  // as many contested segments as they take.)
  if (tries > kPatience && suspicion.silent.empty() && !AnyoneComputes()) {
    Finish(absl::AbortedError(reason));
  }
}

// It has work for its device.
bool StepRun::Computes(const Ledger::FenceAnswer& answer) {
  return std::any_of(answer.held.begin(), answer.held.end(), [](const HeldWork& work) {
    return work.state == HeldState::kAdded ||
           (work.state == HeldState::kOpen && !work.downstream && !work.output_kept);
  });
}

bool StepRun::AnyoneComputes() const {
  return std::any_of(fence_answers_.begin(), fence_answers_.end(),
                     [](const auto& answer) { return Computes(answer.second); });
}

// A fence or a seal that some do not answer.
void StepRun::JudgeSilent() {
  const bool sealing = phase_ == Phase::kSealing;
  const LearnedLimit limit = (sealing ? pace_->seal : pace_->ask).LimitWithin(options_.answers);
  const absl::Duration waited = env_->Now() - asked_at_;
  if (waited < limit.limit) return;
  std::set<Incarnation> silent;
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    if (sealing ? sealed_.count(incarnation) == 0 : fence_answers_.count(incarnation) == 0) {
      silent.insert(incarnation);
    }
  }
  const bool fenced =
      FenceOneOf(silent, absl::StrCat("it has not answered a ", sealing ? "seal" : "fence", " for ",
                                      InSeconds(waited), " (limit ", InSeconds(limit.limit), ": ",
                                      limit.why, ")"));
  if (!fenced) asked_at_ = env_->Now();  // the last of their stages: there is no way without them
}

bool StepRun::FenceOneOf(const std::set<Incarnation>& replicas, const std::string& reason) {
  for (Incarnation replica : replicas) {
    const Replica* found = swarm_->Find(replica);
    if (found == nullptr || swarm_->OfStage(found->member.stage).size() < 2) continue;
    fence_(replica, reason);
    return true;
  }
  return false;
}

}  // namespace starling
