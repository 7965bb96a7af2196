// Delayed commit: the step that runs ahead of the one to be decided next (docs/decisions/0029).
//
// In steady state step t+1 is computed on version t-1 while step t is summed up and applied.
// Whoever joins must have both versions: it has, once it has come to the newest one by an update.
// The first step after a start or a return is computed on the newest version.
//
// Where a round takes longer than a step computes, a step is complete when it is promoted. It is
// not sealed before joiners that were at the version before have come to the newest one: nobody
// could ever join else.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "runtime/trainer/trainer.h"

namespace starling {
namespace {

constexpr uint32_t kWaitsForAJoiner = 3;
constexpr absl::Duration kLeastWait = absl::Seconds(1);

}  // namespace

// After a decision.
void Trainer::NextStep() {
  if (!stop_reason_.empty()) ahead_run_.reset();  // the run ends here
  if (ahead_run_ == nullptr) return BeginStep();
  step_run_ = std::move(ahead_run_);
  step_run_->Promote(EvaluationIsDue());
  BeginAhead();
}

bool Trainer::MayBeginAhead() const {
  const auto& train = options_.config.train;
  if (!train.delayed_commit || phase_ != Phase::kTraining) return false;
  if (step_run_ == nullptr || ahead_run_ != nullptr || deciding_ || admitting_ || departing_) {
    return false;
  }
  if (taking_again_ || paused_ || !stop_reason_.empty() || swarm_.EmptyStage()) return false;
  return static_cast<int64_t>(Value(version_)) + 2 <= train.steps;
}

void Trainer::BeginAhead() {
  if (!MayBeginAhead()) return;
  StepRun::Options step;
  step.step = Step{Value(version_) + 2};
  step.computed_on = version_;
  step.microbatches = data_->train_microbatches();
  step.room = [this] {
    return step_run_ != nullptr && step_run_->all_sent() &&
           step_run_->in_flight() + ahead_run_->in_flight() < Window();
  };
  ahead_avoids_ = departures_.AvoidedNow();
  ahead_run_ = MakeStep(std::move(step));
  ahead_run_->Start();
}

// One that has the newest version alone can take part.
bool Trainer::AllStepsOnNewest() const {
  return step_run_ == nullptr || step_run_->computed_on() == version_;
}

// Every stage without a replica has one again that waits with the newest state, but one of them
// with no version before: the step that they were lost in cannot be computed there.
bool Trainer::LastStateIsBack() const {
  if (AllStepsOnNewest() || !swarm_.EmptyStage()) return false;
  std::set<StageId> back;
  std::set<StageId> with_older;
  admission_.ForEach([&](const Replica& joiner) {
    const StageId stage = joiner.member.stage;
    if (!swarm_.OfStage(stage).empty() || !IsCurrent(joiner)) return;
    back.insert(stage);
    if (joiner.older) with_older.insert(stage);
  });
  for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
    if (swarm_.OfStage(StageId{stage}).empty() && back.count(StageId{stage}) == 0) return false;
  }
  return with_older != back;
}

// A decision is about to move the version on.
void Trainer::ExpectJoiners() {
  expected_joiners_.clear();
  if (!options_.config.train.delayed_commit) return;
  // Who keeps up with the steps needs no longer than one.
  const absl::Time now = env_->Now();
  joiners_until_ =
      now + std::min(std::max(now - last_decision_, kLeastWait), options_.config.swarm.dead_after);
  std::map<Incarnation, uint32_t> waited;
  admission_.ForEach([&](const Replica& joiner) {
    const Incarnation name = joiner.member.incarnation;
    const auto before = waited_for_.find(name);
    const uint32_t times = before == waited_for_.end() ? 0 : before->second;
    const bool expect = IsCurrent(joiner) && times < kWaitsForAJoiner;
    if (expect) expected_joiners_.insert(name);
    waited[name] = times + (expect ? 1 : 0);
  });
  waited_for_ = std::move(waited);
}

// One of those has not come to the newest version yet, or is about to be let in.
bool Trainer::WaitsForJoiner() const {
  if (phase_ != Phase::kTraining || env_->Now() >= joiners_until_) return false;
  return std::any_of(expected_joiners_.begin(), expected_joiners_.end(),
                     [this](const Incarnation& name) {
                       const Replica* joiner = admission_.Find(name);
                       return joiner != nullptr && (!IsCurrent(*joiner) || joiner->older);
                     });
}

}  // namespace starling
