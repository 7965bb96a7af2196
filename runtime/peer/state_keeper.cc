#include "runtime/peer/state_keeper.h"

#include <string>
#include <utility>

namespace starling {

StateKeeper::StateKeeper(StageId stage, StateDonor::Options donor, Env* env, Compute* compute,
                         PeerLinks* links)
    : compute_(compute),
      links_(links),
      donor_(stage, donor, env, compute, links),
      loader_(
          stage, env, compute, links,
          [this](const std::optional<StateName>& held) { OnHeld(held); },
          [this](const absl::Status& status) { AnswerLoaded(status); }) {}

bool StateKeeper::Begins(uint64_t request) {
  if (request == load_request_ && answer_) links_->ReplyToTrainer(request, *answer_);
  return request > load_request_;
}

void StateKeeper::OnLoad(const LoadState& load, uint64_t request) {
  load_request_ = request;
  asked_ = load.state;
  answer_.reset();
  compute_->FreeThrough(Step{Value(load.state.version) + 2});  // delayed commit has two steps open
  donor_.ServesNothing();
  loader_.Load(load, held_);
}

void StateKeeper::GiveUpLoading(bool same_trainer) {
  loader_.GiveUp();
  if (!same_trainer) load_request_ = 0;
  answer_.reset();
  if (held_) donor_.Serves(held_->era, held_->version);
}

void StateKeeper::SetHeld(const std::optional<StateName>& held) {
  const bool same = held_ && held && held_->era == held->era && held_->version == held->version;
  const bool next =
      held_ && held && held_->era == held->era && Next(held_->version) == held->version;
  if (next) {
    // A skip changes nothing.
    older_ = held_->hash == held->hash ? OlderParameters::kSame : OlderParameters::kUpdated;
  } else if (!same) {
    older_ = OlderParameters::kNone;
  }
  held_ = held;
}

void StateKeeper::OnHeld(const std::optional<StateName>& held) {
  SetHeld(held);
  if (!held_) donor_.ForgetResults();
}

void StateKeeper::AnswerLoaded(const absl::Status& status) {
  if (!status.ok()) {
    links_->Emit(Event("load_failed").With("reason", std::string(status.message())));
  } else {
    donor_.Serves(held_->era, held_->version);
  }
  answer_ = Loaded{status.code(), std::string(status.message()), *asked_,
                   older_ != OlderParameters::kNone};
  links_->ReplyToTrainer(load_request_, *answer_);
}

void StateKeeper::VisitBuffers(const BufferVisitor& visit) const { donor_.VisitBuffers(visit); }

void StateKeeper::OnVersion(Version version) {
  if (held_) donor_.Serves(held_->era, version);
}

void StateKeeper::OnApplied(const StateName& state, ResultRecord record, std::vector<Blob> pieces) {
  record.version = state.version;
  record.before = held_ ? held_->hash : Hash128();
  record.after = state.hash;
  SetHeld(state);
  donor_.OnResult(state.era, record, std::move(pieces));
}

}  // namespace starling
