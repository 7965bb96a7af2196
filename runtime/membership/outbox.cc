#include "runtime/membership/outbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/planted.h"
#include "runtime/wire/wire.h"

namespace starling {
namespace {

// Endpoints come and go with their processes; what was learnt about them is only a hint, so it is
// all forgotten when it grows past this.
constexpr size_t kMaxAnswerTimes = 4096;

}  // namespace

Outbox::Outbox(Env* env, Transport* transport, Options options)
    : env_(env),
      transport_(transport),
      options_(options),
      next_request_((env->Random() >> 2) + 1) {}

Outbox::~Outbox() { env_->Cancel(timer_); }

uint64_t Outbox::Send(const Endpoint& to, Incarnation to_incarnation, Message message,
                      OnReplyFn on_reply) {
  STARLING_CHECK_MSG(on_reply != nullptr, KindOf(message));
  const uint64_t request = next_request_++;
  message.request = request;
  Pending& pending = pending_[request];
  pending.to = to;
  pending.to_incarnation = to_incarnation;
  pending.packet = EncodeMessage(message);
  pending.kind = message.body.index();
  pending.channel = ChannelOf(message);
  pending.pause = FirstPause(AnswerKey(to, pending.kind), pending.channel);
  pending.on_reply = std::move(on_reply);
  pending.first_sent = env_->Now();
  SendPacket(request, &pending);
  ArmTimer();
  most_pending_ = std::max(most_pending_, pending_.size());
  if (pending_.size() > options_.pending_bound) ++over_bound_;
  return request;
}

absl::Status Outbox::SendOnce(const Endpoint& to, Message message) {
  message.request = 0;
  const absl::Status sent = transport_->Send(to, ChannelOf(message), EncodeMessage(message));
  if (!sent.ok()) ++refused_sends_;
  return sent;
}

bool Outbox::OnReply(const Message& reply) {
  auto it = pending_.find(reply.reply_to);
  if (it == pending_.end()) return false;
  Pending& pending = it->second;
  LearnAnswerTime(AnswerKey(pending.to, pending.kind), env_->Now() - pending.first_sent);
  const OnReplyFn on_reply = std::move(pending.on_reply);
  Remove(it);
  ArmTimer();
  on_reply(reply);  // last: it may send and cancel
  return true;
}

void Outbox::CancelTo(Incarnation incarnation) {
  for (auto it = pending_.begin(); it != pending_.end();) {
    it = it->second.to_incarnation == incarnation ? Remove(it) : std::next(it);
  }
  ArmTimer();
}

void Outbox::Cancel(uint64_t request) {
  const auto it = pending_.find(request);
  if (it == pending_.end()) return;
  Remove(it);
  ArmTimer();
}

void Outbox::CancelAll() {
  pending_.clear();
  due_.clear();
  ArmTimer();
}

absl::Duration Outbox::FirstPause(const AnswerKey& key, Channel channel) const {
  auto it = answer_times_.find(key);
  if (it == answer_times_.end()) return options_.first_retry;
  const absl::Duration expected = it->second.mean + 4 * it->second.deviation;
  const absl::Duration least =
      channel == Channel::kBulk ? options_.least_bulk_retry : options_.least_retry;
  return std::max(least, std::min(options_.longest_retry, expected));
}

// A repeated request counts from its first send. That may be too long (the first one was lost) but
// not too short: the cost of an error is a late repeat, never a storm of early ones.
void Outbox::LearnAnswerTime(const AnswerKey& key, absl::Duration took) {
  if (answer_times_.size() >= kMaxAnswerTimes && answer_times_.count(key) == 0) {
    answer_times_.clear();
  }
  auto [it, is_new] = answer_times_.try_emplace(key, AnswerTime{took, took / 2});
  if (is_new) return;
  AnswerTime& known = it->second;
  const absl::Duration error = took - known.mean;
  known.deviation += (absl::AbsDuration(error) - known.deviation) / 4;
  known.mean += error / 8;
}

// Hands the packet to the transport and sets when it is due again.
void Outbox::SendPacket(uint64_t request, Pending* pending) {
  const absl::Status sent = transport_->Send(pending->to, pending->channel, pending->packet);
  absl::Duration pause = pending->pause;
  if (sent.ok()) {
    pending->pause = std::max(pause, std::min(2 * pause, options_.longest_retry));
  } else {
    ++refused_sends_;
    if (absl::IsResourceExhausted(sent)) pause = std::min(pause, options_.full_retry);
  }
  pending->due = env_->Now() + pause;
  due_.emplace(pending->due, request);
}

Outbox::PendingMap::iterator Outbox::Remove(PendingMap::iterator it) {
  due_.erase({it->second.due, it->first});
  return pending_.erase(it);
}

// A timer that is set too early finds nothing due and arms itself again: most requests are answered
// long before their time, and setting the timer anew for each would cost more.
void Outbox::ArmTimer() {
  if (due_.empty()) {
    env_->Cancel(timer_);
    timer_ = kNoTimer;
    timer_due_ = absl::InfiniteFuture();
    return;
  }
  const absl::Time earliest = due_.begin()->first;
  if (earliest >= timer_due_) return;
  env_->Cancel(timer_);
  timer_due_ = earliest;
  timer_ = env_->Schedule(earliest - env_->Now(), [this] { OnTimer(); });
}

void Outbox::OnTimer() {
  timer_ = kNoTimer;
  timer_due_ = absl::InfiniteFuture();
  const absl::Time now = env_->Now();
  // Those sent now are due later, so the loop ends.
  while (!due_.empty() && due_.begin()->first <= now) {
    const uint64_t request = due_.begin()->second;
    due_.erase(due_.begin());
    if (Planted(Bug::kNeverRepeat)) continue;
    const uint64_t refused_before = refused_sends_;
    SendPacket(request, &pending_.at(request));
    if (refused_sends_ == refused_before) ++retries_;
  }
  ArmTimer();
}

}  // namespace starling
