#include "runtime/trainer/swarm.h"

#include <algorithm>
#include <utility>

namespace starling {

Swarm::Swarm(Env* env, Transport* transport, RunId run, Epoch epoch, uint32_t stages)
    : run_(run),
      epoch_(epoch),
      stages_(stages),
      env_(env),
      outbox_(env, transport, Outbox::Options()) {}

void Swarm::Add(Replica replica) {
  const Incarnation incarnation = replica.member.incarnation;
  replica.since = env_->Now();
  replicas_.insert_or_assign(incarnation, std::move(replica));
}

void Swarm::Remove(Incarnation incarnation) {
  outbox_.CancelTo(incarnation);
  replicas_.erase(incarnation);
}

void Swarm::Clear() {
  while (!replicas_.empty()) Remove(replicas_.begin()->first);
}

Replica* Swarm::Find(Incarnation incarnation) {
  const auto it = replicas_.find(incarnation);
  return it == replicas_.end() ? nullptr : &it->second;
}

std::vector<Incarnation> Swarm::OfStage(StageId stage) const {
  std::vector<Incarnation> found;
  for (const auto& [incarnation, replica] : replicas_) {
    if (replica.member.stage == stage) found.push_back(incarnation);
  }
  return found;
}

std::vector<Incarnation> Swarm::TakersOf(StageId stage) const {
  std::vector<Incarnation> takers;
  for (const auto& [incarnation, replica] : replicas_) {
    if (replica.member.stage == stage && !replica.member.draining) takers.push_back(incarnation);
  }
  return takers.empty() ? OfStage(stage) : takers;
}

std::vector<uint32_t> Swarm::CountPerStage() const {
  std::vector<uint32_t> counts(stages_, 0);
  for (const auto& [incarnation, replica] : replicas_) ++counts[Value(replica.member.stage)];
  return counts;
}

std::optional<StageId> Swarm::EmptyStage() const {
  const std::vector<uint32_t> counts = CountPerStage();
  for (uint32_t stage = 0; stage < stages_; ++stage) {
    if (counts[stage] == 0) return StageId{stage};
  }
  return std::nullopt;
}

void Swarm::BroadcastView() {
  ++view_number_;
  for (const auto& [incarnation, replica] : replicas_) {
    const uint32_t stage = Value(replica.member.stage);
    View view;
    view.number = view_number_;
    for (const auto& [other, neighbour] : replicas_) {
      const uint32_t theirs = Value(neighbour.member.stage);
      if (theirs + 1 >= stage && theirs <= stage + 1) view.members.push_back(neighbour.member);
    }
    Ask(incarnation, std::move(view),
        [this, incarnation = incarnation, number = view.number](const Message&) {
          Replica* acknowledged = Find(incarnation);
          if (acknowledged == nullptr) return;
          acknowledged->view_acknowledged = std::max(acknowledged->view_acknowledged, number);
        });
  }
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
void Swarm::VisitBuffers(const BufferVisitor& visit) const {
  visit("requests under way", outbox_.pending(), 64 * replicas_.size() + 4096);
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
