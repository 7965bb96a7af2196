// Leaving in order, pausing, and the orders of `starling leave` and `starling pause`.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/trainer/trainer.h"

namespace starling {
namespace {

constexpr size_t kObeyedBound = 64;

}  // namespace

std::string Trainer::Drain(Incarnation incarnation, const std::string& reason,
                           std::optional<StageId> moves_to) {
  const bool known = departures_.WasAsked(incarnation);
  const std::string when = departures_.Ask(incarnation, reason, moves_to);
  if (!known) {
    OnMembersChanged();
    if (step_run_) step_run_->Poke();
  }
  return when;
}

bool Trainer::StageIsGone() const {
  return env_->Now() - stage_lost_ >= options_.config.swarm.orphan_timeout;
}

// A record of their own: no step ends that could name them, the run is paused or waits for a stage.
void Trainer::DepartWithoutStep() {
  if (departing_ || admitting_ || deciding_) return;
  if (phase_ != Phase::kTraining && phase_ != Phase::kEnding) return;
  std::vector<Departure> due = departures_.Due();
  if (due.empty()) return;
  const Decision record = NewRecord(std::move(due));
  departing_ = true;
  log_.Append(record, [this, record](absl::Status status) {
    departing_ = false;
    if (phase_ == Phase::kDone) return;
    if (!status.ok()) return Finish(status, "the decision log cannot be written");
    observer_->OnDecision(record);
    Depart(record, version_);
    for (const Departure& departure : record.departures) applied_.erase(departure.incarnation);
    for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
      if (!Judge(StageId{stage}, {})) return;  // one of them was the one that had not answered
    }
    // What they did of a step that waits for a stage goes with them.
    if (step_run_) step_run_->OnFenced(record.leaves);
    if (ahead_run_) ahead_run_->OnFenced(record.leaves);
    if (step_run_ == nullptr && phase_ == Phase::kTraining && !paused_) BeginStep();
    OnAdmissionChanged();
  });
}

// The record that names them is on disk.
void Trainer::Depart(const Decision& record, Version at) {
  if (record.departures.empty()) return;
  for (const Departure& departure : record.departures) {
    detector_.Forget(departure.incarnation);
    const Replica* replica = swarm_.Find(departure.incarnation);
    if (replica != nullptr) saver_.OnFenced(replica->member.address);
    // Lost meanwhile: it is named already.
    unrecorded_leaves_.erase(
        std::remove(unrecorded_leaves_.begin(), unrecorded_leaves_.end(), departure.incarnation),
        unrecorded_leaves_.end());
  }
  departures_.Left(record.departures, at);
  OnMembersChanged();
}

void Trainer::Rebalance() {
  if (phase_ == Phase::kDone) return;
  rebalance_ = env_->Schedule(options_.config.swarm.rebalance, [this] { Rebalance(); });
  if (phase_ == Phase::kGathering) return SendJoinersToEmptyStages();
  const bool gone = StageIsGone();
  if (paused_ || (swarm_.EmptyStage() && !gone)) return;
  if (phase_ != Phase::kTraining && !(phase_ == Phase::kEnding && gone)) return;
  for (const Move& move : mover_.Propose()) Drain(move.replica, move.reason, move.to);
}

// Nobody can serve before every stage has somebody.
void Trainer::SendJoinersToEmptyStages() {
  if (env_->Now() - gathering_since_ < options_.config.swarm.orphan_timeout) return;
  const std::vector<uint32_t> joining = admission_.CountPerStage();
  if (std::count(joining.begin(), joining.end(), 0u) == 0) return;
  for (const Move& move : mover_.ProposeForJoiners()) {
    if (joining[Value(move.to)] > 0) continue;
    const Member& member = admission_.Find(move.replica)->member;
    Emit(Event("joiner_moved")
             .With("stage", Value(move.from))
             .With("replica", ToString(move.replica))
             .With("to_stage", Value(move.to))
             .With("reason", move.reason));
    swarm_.Tell(member.address, MoveTo{move.to, version_, move.reason});
  }
}

void Trainer::SetPaused(bool paused) {
  if (paused_ == paused) return;
  paused_ = paused;
  const bool between_steps = phase_ == Phase::kTraining && step_run_ == nullptr;
  if (!paused) Emit(Event("unpaused").With("step", Value(version_)));
  if (paused || !between_steps || deciding_ || departing_) return;
  BeginStep();
  OnAdmissionChanged();
}

// --- orders ----------------------------------------------------------------------------

void Trainer::OnOrder(const Order& order, const Message& message) {
  const std::string name = absl::StrCat(order.reply_address.control, " ", message.request);
  const auto known = std::find_if(obeyed_.begin(), obeyed_.end(),
                                  [&name](const auto& entry) { return entry.first == name; });
  if (known != obeyed_.end()) {
    return swarm_.Reply(order.reply_address, message.request, known->second);
  }
  const Ack answer = Obey(order);
  obeyed_.emplace_back(name, answer);
  if (obeyed_.size() > kObeyedBound) obeyed_.pop_front();
  swarm_.Reply(order.reply_address, message.request, answer);
}

Ack Trainer::Obey(const Order& order) {
  if (order.kind == OrderKind::kPause) {
    SetPaused(true);
    return {absl::StatusCode::kOk,
            step_run_ == nullptr
                ? absl::StrCat("paused after step ", Value(version_))
                : absl::StrCat("pauses when step ", Value(version_) + (ahead_run_ ? 2 : 1),
                               " is decided")};
  }
  if (order.kind == OrderKind::kUnpause) {
    const bool was = paused_;
    SetPaused(false);
    return {absl::StatusCode::kOk, was ? absl::StrCat("goes on with step ", Value(version_) + 1)
                                       : std::string("it was not paused")};
  }
  const Replica* chosen = nullptr;
  for (const auto& [incarnation, replica] : swarm_.replicas()) {
    const Member& member = replica.member;
    if (departures_.WasAsked(incarnation) && order.replica.empty()) continue;
    if (order.stage && member.stage != *order.stage) continue;
    const bool named =
        order.replica == ToString(incarnation) || order.replica == ToString(member.peer);
    if (!order.replica.empty() && !named) continue;
    // Of a stage, the slowest one.
    if (chosen == nullptr || replica.load.service_s > chosen->load.service_s) chosen = &replica;
  }
  if (chosen != nullptr) {
    return {absl::StatusCode::kOk, Drain(chosen->member.incarnation, "asked to leave", {})};
  }
  std::optional<Incarnation> joiner;
  admission_.ForEach([&](const Replica& replica) {
    const Member& member = replica.member;
    const bool named = order.replica.empty() ? order.stage && member.stage == *order.stage
                                             : order.replica == ToString(member.incarnation) ||
                                                   order.replica == ToString(member.peer);
    if (named) joiner = member.incarnation;
  });
  if (!joiner) {
    return {absl::StatusCode::kNotFound,
            order.replica.empty() ? absl::StrCat("nobody to leave serves stage ",
                                                 order.stage ? Value(*order.stage) : 0)
                                  : absl::StrCat("no replica or peer ", order.replica,
                                                 " serves here; `starling status` lists them")};
  }
  swarm_.Tell(admission_.Find(*joiner)->member.address, Stop{"left before it served"});
  Lose(*joiner, "asked to leave");
  return {absl::StatusCode::kOk, absl::StrCat(ToString(*joiner), " left before it served")};
}

}  // namespace starling
