#include "runtime/trainer/swarm.h"

#include <algorithm>
#include <utility>

namespace starling {

Swarm::Swarm(Env* env, Transport* transport, RunId run, Epoch epoch, uint32_t stages)
    : run_(run),
      epoch_(epoch),
      stages_(stages),
      env_(env),
      outbox_(env, transport, Outbox::Options()),
      by_stage_(stages),
      near_(stages) {
  for (uint32_t stage = 0; stage < stages; ++stage) {
    near_[stage].insert(stage);
    if (stage == 0) continue;
    near_[stage].insert(stage - 1);
    near_[stage - 1].insert(stage);
  }
}

void Swarm::AddNeighbours(const std::vector<StageId>& stages) {
  for (const StageId& stage : stages) {
    for (const StageId& other : stages) near_[Value(stage)].insert(Value(other));
  }
}

void Swarm::Add(Replica replica) {
  const Incarnation incarnation = replica.member.incarnation;
  replica.since = env_->Now();
  by_stage_[Value(replica.member.stage)].insert(incarnation);
  changed_.insert(Value(replica.member.stage));
  replicas_.insert_or_assign(incarnation, std::move(replica));
}

void Swarm::Remove(Incarnation incarnation) {
  outbox_.CancelTo(incarnation);
  const auto it = replicas_.find(incarnation);
  if (it == replicas_.end()) return;
  by_stage_[Value(it->second.member.stage)].erase(incarnation);
  changed_.insert(Value(it->second.member.stage));
  replicas_.erase(it);
}

void Swarm::Clear() {
  while (!replicas_.empty()) Remove(replicas_.begin()->first);
}

Replica* Swarm::Find(Incarnation incarnation) {
  const auto it = replicas_.find(incarnation);
  return it == replicas_.end() ? nullptr : &it->second;
}

std::vector<Incarnation> Swarm::TakersOf(StageId stage) const {
  const std::set<Incarnation>& all = OfStage(stage);
  std::vector<Incarnation> takers;
  for (const Incarnation& incarnation : all) {
    if (!replicas_.at(incarnation).member.draining) takers.push_back(incarnation);
  }
  if (takers.empty()) takers.assign(all.begin(), all.end());
  return takers;
}

std::vector<uint32_t> Swarm::CountPerStage() const {
  std::vector<uint32_t> counts;
  for (const auto& stage : by_stage_) counts.push_back(static_cast<uint32_t>(stage.size()));
  return counts;
}

std::optional<StageId> Swarm::EmptyStage() const {
  for (uint32_t stage = 0; stage < stages_; ++stage) {
    if (by_stage_[stage].empty()) return StageId{stage};
  }
  return std::nullopt;
}

void Swarm::SetDraining(Incarnation incarnation, bool draining) {
  Replica* replica = Find(incarnation);
  if (replica == nullptr || replica->member.draining == draining) return;
  replica->member.draining = draining;
  changed_.insert(Value(replica->member.stage));
}

void Swarm::SendViews() {
  if (changed_.empty()) return;
  ++view_number_;
  for (uint32_t stage = 0; stage < stages_; ++stage) {
    const std::set<uint32_t>& near = near_[stage];
    const bool concerned = std::any_of(
        near.begin(), near.end(), [this](uint32_t other) { return changed_.count(other) > 0; });
    if (!concerned) continue;
    View view;
    view.number = view_number_;
    for (const uint32_t other : near) {
      for (const Incarnation& member : by_stage_[other]) {
        view.members.push_back(replicas_.at(member).member);
      }
    }
    for (const Incarnation& incarnation : by_stage_[stage]) {
      Ask(incarnation, view, [this, incarnation, number = view.number](const Message&) {
        Replica* acknowledged = Find(incarnation);
        if (acknowledged == nullptr) return;
        acknowledged->view_acknowledged = std::max(acknowledged->view_acknowledged, number);
      });
    }
  }
  changed_.clear();
}

void Swarm::Ask(Incarnation to, MessageBody body, Outbox::OnReplyFn on_reply) {
  const Replica* replica = Find(to);
  if (replica == nullptr) return;
  AskAt(replica->member.address, to, std::move(body), std::move(on_reply));
}

uint64_t Swarm::AskAt(const Endpoint& to, Incarnation incarnation, MessageBody body,
                      Outbox::OnReplyFn on_reply) {
  return outbox_.Send(to, incarnation, Make(std::move(body)), std::move(on_reply));
}

void Swarm::Tell(const Endpoint& to, MessageBody body) {
  outbox_.SendOnce(to, Make(std::move(body))).IgnoreError();
}

void Swarm::Reply(const Endpoint& to, uint64_t request, MessageBody body) {
  if (request == 0) return;
  Message message = Make(std::move(body));
  message.reply_to = request;
  outbox_.SendOnce(to, std::move(message)).IgnoreError();
}

// Of each replica what a step asks of it, and the microbatches in flight; joiners' loads.
void Swarm::VisitBuffers(const BufferVisitor& visit, size_t joiners) const {
  visit("requests under way", outbox_.pending(), 64 * replicas_.size() + 4 * joiners + 4096);
}

Message Swarm::Make(MessageBody body) const {
  Message message;
  message.run = run_;
  message.era = era_;
  message.epoch = epoch_;
  message.sender = self();
  message.body = std::move(body);
  return message;
}

}  // namespace starling
