#include "runtime/trainer/departures.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

// Of those that left, so many are told again when they are heard.
constexpr size_t kGoneBound = 4096;

}  // namespace

Departures::Departures(Swarm* swarm, EventSink events)
    : swarm_(swarm), events_(std::move(events)) {}

std::string Departures::Ask(Incarnation incarnation, const std::string& reason,
                            std::optional<StageId> moves_to) {
  const Replica* replica = swarm_->Find(incarnation);
  if (replica == nullptr) return absl::StrCat(ToString(incarnation), " does not serve");
  const uint32_t stage = Value(replica->member.stage);
  const auto [it, first] = asked_.try_emplace(incarnation);
  if (first) {
    it->second.reason = reason;
    it->second.moves_to = moves_to;
    events_(Event("draining")
                .With("stage", stage)
                .With("replica", ToString(incarnation))
                .With("peer", ToString(replica->member.peer))
                .With("reason", reason));
  } else if (!moves_to) {
    it->second.moves_to.reset();
  }
  if (OthersServe(*replica)) {
    return absl::StrCat(ToString(incarnation), " leaves stage ", stage, " at the next decision");
  }
  return absl::StrCat(ToString(incarnation), " is the last replica of stage ", stage,
                      ": it leaves when another one serves there");
}

bool Departures::OthersServe(const Replica& replica) const {
  const std::set<Incarnation>& stage = swarm_->OfStage(replica.member.stage);
  const bool fresh = std::any_of(stage.begin(), stage.end(),
                                 [this](Incarnation other) { return asked_.count(other) == 0; });
  // Where all are to leave, the first of them stays until another one comes.
  return fresh || *stage.begin() != replica.member.incarnation;
}

bool Departures::NeighboursKnow(const Replica& replica, uint64_t view) const {
  if (view == 0) return false;
  for (const auto& [incarnation, other] : swarm_->replicas()) {
    const bool upstream = Next(other.member.stage) == replica.member.stage;
    if (upstream && other.view_acknowledged < view) return false;
  }
  return true;
}

void Departures::Review() {
  for (auto it = asked_.begin(); it != asked_.end();) {
    const Replica* replica = swarm_->Find(it->first);
    Asked& asked = it->second;
    // None: a joiner for now, which will be a member again.
    const bool leaves = replica != nullptr && (asked.named || OthersServe(*replica));
    if (replica != nullptr) swarm_->SetDraining(it->first, leaves);
    if (!leaves) asked.shown = 0;
    if (replica == nullptr || leaves) {
      asked.waiting_said = false;
      ++it;
      continue;
    }
    const auto say = [&](const char* what) {
      events_(Event(what)
                  .With("stage", Value(replica->member.stage))
                  .With("replica", ToString(it->first))
                  .With("reason", "it is the last replica of its stage"));
    };
    if (asked.moves_to) {
      say("move_called_off");
      it = asked_.erase(it);
      continue;
    }
    if (!std::exchange(asked.waiting_said, true)) say("drain_waits");
    ++it;
  }
}

void Departures::ViewIsOut() {
  for (auto& [incarnation, asked] : asked_) {
    const Replica* replica = swarm_->Find(incarnation);
    const bool shown = replica != nullptr && replica->member.draining;
    if (shown && asked.shown == 0) asked.shown = swarm_->view_number();
  }
}

Departures::Avoided Departures::AvoidedNow() const {
  Avoided avoided;
  for (const auto& [incarnation, asked] : asked_) {
    const Replica* replica = swarm_->Find(incarnation);
    if (replica != nullptr && NeighboursKnow(*replica, asked.shown)) {
      avoided[incarnation] = asked.shown;
    }
  }
  return avoided;
}

std::vector<Departure> Departures::Due(const Avoided* only) {
  std::vector<Departure> due;
  for (const auto& [incarnation, shown] : AvoidedNow()) {
    if (only != nullptr) {
      const auto before = only->find(incarnation);
      if (before == only->end() || before->second != shown) continue;
    }
    Asked& asked = asked_.at(incarnation);
    asked.named = true;
    due.push_back({incarnation, asked.moves_to});
  }
  return due;
}

bool Departures::MoveUnderWay() const {
  return std::any_of(asked_.begin(), asked_.end(),
                     [](const auto& entry) { return entry.second.moves_to.has_value(); });
}

std::optional<StageId> Departures::MovesTo(Incarnation incarnation) const {
  const auto it = asked_.find(incarnation);
  return it == asked_.end() ? std::nullopt : it->second.moves_to;
}

void Departures::Left(const std::vector<Departure>& due, Version at) {
  for (const Departure& departure : due) {
    const Replica* found = swarm_->Find(departure.incarnation);
    const auto asked = asked_.find(departure.incarnation);
    if (found == nullptr || asked == asked_.end()) continue;  // lost meanwhile
    const Replica replica = *found;
    swarm_->Remove(departure.incarnation);
    Gone gone{replica.member.address, Stop{absl::StrCat("left at version ", Value(at))}};
    Event event(departure.moves_to ? "moved" : "peer_left");
    event.With("stage", Value(replica.member.stage))
        .With("replica", ToString(departure.incarnation))
        .With("peer", ToString(replica.member.peer))
        .With("pid", replica.hello.pid)
        .With("version", Value(at));
    if (departure.moves_to) {
      gone.farewell = MoveTo{*departure.moves_to, at, asked->second.reason};
      event.With("to_stage", Value(*departure.moves_to));
    }
    events_(event.With("reason", asked->second.reason));
    asked_.erase(asked);
    swarm_->Tell(gone.address, gone.farewell);
    gone_.insert_or_assign(departure.incarnation, std::move(gone));
    if (gone_.size() > kGoneBound) gone_.erase(gone_.begin());
  }
}

void Departures::Forget(Incarnation incarnation) { asked_.erase(incarnation); }

bool Departures::TellAgain(Incarnation sender) {
  const auto it = gone_.find(sender);
  if (it == gone_.end()) return false;
  swarm_->Tell(it->second.address, it->second.farewell);
  return true;
}

}  // namespace starling
