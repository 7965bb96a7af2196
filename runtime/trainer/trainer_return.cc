// A restarted trainer: who is still there, with what, and where to go on.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"
#include "runtime/trainer/epoch_store.h"
#include "runtime/trainer/trainer.h"

namespace starling {

void Trainer::BeginReturn() {
  const LiveState& live = *live_;
  phase_ = Phase::kReturning;
  swarm_.set_era(live.newest.era);
  version_ = VersionAfter(live.newest.step);
  if (!saved_) saved_ = base_version_ = base_.version;
  gathering_since_ = env_->Now();
  stage_states_.assign(swarm_.stages(), std::nullopt);
  applied_.clear();
  Emit(Event("roll_call")
           .With("members", live.members.size())
           .With("version", Value(version_))
           .With("epoch", Value(swarm_.epoch())));
  RollCall::Options options;
  options.members = live.members;
  options.dead = live.dead;
  options.trainer = self_;
  options.patience = options_.config.swarm.dead_after;
  roll_call_ = std::make_unique<RollCall>(
      std::move(options), env_, &swarm_, [this](const Event& event) { Emit(event); },
      [this](const std::string& reason) { RefuseToStart(reason); });
  roll_call_->Start();
  ConsiderReturn();
}

// Everyone of the newest record has reported, or is given up: nothing new can come to light.
void Trainer::ConsiderReturn() {
  if (phase_ != Phase::kReturning || admitting_ || !roll_call_->complete()) return;
  const LiveState& live = *live_;
  std::vector<Returnee> returnees;
  admission_.ForEach([&returnees](const Replica& joiner) {
    const Hello& hello = joiner.hello;
    returnees.push_back(
        {joiner.member.incarnation, joiner.member.stage, hello.held, hello.results});
  });
  const ReturnPlan plan = PlanReturn(live, swarm_.stages(), groups_, returnees);
  for (const auto& [incarnation, member] : live.members) unrecorded_leaves_.push_back(incarnation);
  if (plan.missing) {
    Emit(Event("state_lost")
             .With("stage", Value(*plan.missing))
             .With("reason", absl::StrCat(plan.reason, "; everyone returns to ", base_.path)));
    swarm_.set_era(std::max(swarm_.era(), Era{Value(options_.era) - 1}));  // BeginEra counts up
    return BeginEra();
  }
  std::vector<Replica> replicas = admission_.Take(plan.serve);
  for (Replica& replica : replicas) replica.state = *replica.hello.held;
  RecordJoins(replicas, [this, replicas, plan] { Returned(replicas, plan); });
}

// As after a decision, but that some have applied it already: those only acknowledge it again. It
// is the recorded one, never another. The step after it begins from the start.
void Trainer::Returned(std::vector<Replica> replicas, const ReturnPlan& plan) {
  const LiveState& live = *live_;
  roll_call_.reset();
  skipped_ += live.skipped;
  Emit(Event("resumed")
           .With("version", Value(version_))
           .With("replicas", replicas.size())
           .With("finishing", plan.finish));
  for (Replica& replica : replicas) {
    detector_.OnHeard(replica.member.incarnation, env_->Now());
    swarm_.Add(std::move(replica));
  }
  OnMembersChanged();
  phase_ = Phase::kTraining;
  last_decision_ = env_->Now();
  SendApply(live.newest);
  if (!live.reported) Report(live.newest, StepOutcome());
  live_->skipped = 0;  // counted from here on
  live_->reported = true;
  if (CheckpointIsDue()) BeginSave();
  BeginStep();
  LoseThoseLostMeanwhile();
  OnAdmissionChanged();
}

// Somebody computed on a wrong state: what went through it is wrong wherever it was added. All of
// the step is given up, and everyone let in anew with what they hold, as after a restart.
void Trainer::TakeStepAgain() {
  if (taking_again_ || phase_ == Phase::kDone) return;
  taking_again_ = true;
  auto epoch = std::make_shared<Epoch>();
  files_->Run(
      [path = options_.run_directory + "/epoch", now = swarm_.epoch(), epoch](Disk& disk) {
        FileEpochStore store(&disk, path);
        STARLING_ASSIGN_OR_RETURN(*epoch, TakeNextEpoch(&store, now));
        return absl::OkStatus();
      },
      [this, epoch](absl::Status status) {
        if (phase_ == Phase::kDone) return;
        if (!status.ok()) return Finish(status, "no new epoch could be taken");
        ReignAnew(*epoch);
      });
}

void Trainer::ReignAnew(Epoch epoch) {
  const std::string reason = "the step under way is taken again";
  phase_ = Phase::kReturning;
  ForgetSteps();
  saver_.Abandon();
  LiveState live;
  if (live_) live = *live_;
  live.members.clear();
  live.dead.clear();
  live.hashes.clear();
  for (const auto& [incarnation, replica] : swarm_.replicas()) {
    live.members[incarnation] = replica.member;
    detector_.Forget(incarnation);
  }
  for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
    if (stage_states_[stage]) live.hashes[StageId{stage}] = stage_states_[stage]->hash;
  }
  for (const auto& [incarnation, member] : live.members) {
    swarm_.Tell(member.address, Refused{true, reason});
  }
  admission_.ForEach([this, &live](const Replica& joiner) {
    detector_.Forget(joiner.member.incarnation);
    // Who waits with the state of a stage that nobody else serves is waited for.
    const bool needed = swarm_.OfStage(joiner.member.stage).empty() && IsCurrent(joiner);
    if (needed) live.members[joiner.member.incarnation] = joiner.member;
  });
  admission_.DropAll(reason);
  swarm_.Clear();
  swarm_.set_epoch(epoch);
  taking_again_ = false;
  const bool decided = live_.has_value();
  live_ = std::move(live);
  if (decided) return BeginReturn();
  for (const auto& [incarnation, member] : live_->members)
    unrecorded_leaves_.push_back(incarnation);
  BeginEra();  // no step of this era was decided: it begins anew
}

// Nobody is told to stop: they belong to the other trainer.
void Trainer::RefuseToStart(const std::string& reason) {
  if (phase_ == Phase::kDone) return;
  phase_ = Phase::kDone;
  refused_to_start_ = true;
  env_->Cancel(watch_);
  swarm_.outbox().CancelAll();
  observer_->OnFinished(absl::FailedPreconditionError(reason), "this run has a trainer");
}

}  // namespace starling
