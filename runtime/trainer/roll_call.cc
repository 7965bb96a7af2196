#include "runtime/trainer/roll_call.h"

#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

constexpr absl::Duration kAskAgain = absl::Milliseconds(500);

}  // namespace

RollCall::RollCall(Options options, Env* env, Swarm* swarm, EventSink events, OnRefused refused)
    : options_(std::move(options)),
      env_(env),
      swarm_(swarm),
      events_(std::move(events)),
      refused_(std::move(refused)),
      detector_(FailureDetector::Options{options_.patience}),
      waiting_(options_.members) {}

void RollCall::Start() {
  began_ = env_->Now();
  for (const Incarnation& dead : options_.dead) GiveUp(dead, "it is not there any more");
  for (const auto& [incarnation, member] : waiting_) {
    detector_.OnHeard(incarnation, began_);
    Ask(incarnation);
  }
}

void RollCall::Ask(Incarnation incarnation) {
  const auto it = waiting_.find(incarnation);
  if (it == waiting_.end()) return;
  swarm_->AskAt(it->second.address, incarnation, Muster{options_.trainer},
                [this, incarnation, asked = env_->Now(),
                 alive = std::weak_ptr<bool>(alive_)](const Message& reply) {
                  if (!alive.expired()) OnAnswer(incarnation, asked, reply);
                });
}

void RollCall::OnAnswer(Incarnation incarnation, absl::Time asked, const Message& reply) {
  const auto it = waiting_.find(incarnation);
  const auto* answer = std::get_if<MusterReply>(&reply.body);
  if (it == waiting_.end() || answer == nullptr) return;
  detector_.OnHeard(incarnation, env_->Now());
  // It answered after it was asked, so it heard its trainer no earlier than this. What a trainer
  // said that is dead now may have been on the way for a while.
  const absl::Time heard = asked - absl::Seconds(answer->heard_ago_s);
  if (answer->hears && heard > began_ + options_.patience / 2) {
    return refused_(absl::StrCat("the replica at ", it->second.address.control, " (stage ",
                                 Value(it->second.stage), ") hears another trainer, of epoch ",
                                 Value(reply.epoch), ", which is alive: end that one first"));
  }
  env_->Schedule(kAskAgain, [this, incarnation, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) Ask(incarnation);
  });
}

void RollCall::OnHello(const Hello& hello) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const Incarnation incarnation = it->first;
    const bool reported = it->second.peer == hello.peer;
    const bool replaced = !reported && it->second.address.control == hello.address.control;
    ++it;
    if (replaced) GiveUp(incarnation, "another process is where it was");
    if (!reported) continue;
    detector_.Forget(incarnation);
    swarm_->outbox().CancelTo(incarnation);
    waiting_.erase(incarnation);
  }
}

void RollCall::OnLinkLost(const std::string& control) {
  std::vector<Incarnation> lost;
  for (const auto& [incarnation, member] : waiting_) {
    if (member.address.control == control) lost.push_back(incarnation);
  }
  for (const Incarnation& incarnation : lost) GiveUp(incarnation, "connection lost");
}

void RollCall::Watch(absl::Duration late) {
  if (late > absl::ZeroDuration()) detector_.Extend(late);
  for (const FailureDetector::Suspect& suspect : detector_.Overdue(env_->Now())) {
    GiveUp(suspect.incarnation, suspect.reason);
  }
}

void RollCall::GiveUp(Incarnation incarnation, const std::string& reason) {
  const auto it = waiting_.find(incarnation);
  if (it == waiting_.end()) return;
  events_(
      Event("peer_lost")
          .With("stage", Value(it->second.stage))
          .With("replica", ToString(incarnation))
          .With("peer", ToString(it->second.peer))
          .With("reason", absl::StrCat("it did not report to the restarted trainer: ", reason)));
  detector_.Forget(incarnation);
  swarm_->outbox().CancelTo(incarnation);
  waiting_.erase(it);
}

}  // namespace starling
