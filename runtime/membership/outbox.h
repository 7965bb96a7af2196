// Outbox: reliable requests over the lossy transport. Sans-I/O; the trainer and every replica have
// one.
//
//   outbox.Send(endpoint, incarnation, std::move(message), [this](const Message& reply) { ... });
//   ...
//   if (message.reply_to != 0) outbox.OnReply(message);   // from the transport's handler
//
// A request is repeated, with doubling pauses, until a message names its number in `reply_to` or it
// is cancelled. So it may arrive several times, or in another order than it was sent in: handlers
// are idempotent (messages.h). The first pause adapts to how long this kind of request took to
// answer at this endpoint, as TCP's does (RFC 6298: smoothed time plus four mean deviations): a
// lost packet on a fast link is soon sent again, and an answer with work behind it may take its
// time.
//
// The request is encoded once, when it is sent: what the envelope says of the sender (load, epoch)
// is as of then in the repeats too. Pending requests share the bytes of their tensors; they are as
// many as the caller has sent and not cancelled, so the caller bounds them (invariant I5): the
// outbox says how many there were at most, and how often there were more than stated. It refuses
// none, since a protocol cannot go on without its requests.
//
// Threads: the reactor's only. Cost: O(log pending) for all but CancelTo and CancelAll, which are
// linear.
#ifndef STARLING_RUNTIME_MEMBERSHIP_OUTBOX_H_
#define STARLING_RUNTIME_MEMBERSHIP_OUTBOX_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "runtime/base/ids.h"
#include "runtime/env/env.h"
#include "runtime/env/transport.h"
#include "runtime/wire/messages.h"

namespace starling {

class Outbox {
 public:
  struct Options {
    absl::Duration first_retry = absl::Seconds(2);  // before the first repeat, where none was asked
    // Where answers are known to come fast, at least this before the first repeat. More for what
    // travels on the bulk channel: a repeat is no small matter there.
    absl::Duration least_retry = absl::Milliseconds(250);
    absl::Duration least_bulk_retry = absl::Seconds(1);
    absl::Duration longest_retry = absl::Seconds(30);     // at most this between repeats
    absl::Duration full_retry = absl::Milliseconds(200);  // after the transport's queue was full
    size_t pending_bound = 16384;  // requests that the owner should never have open at once
  };
  using OnReplyFn = std::function<void(const Message& reply)>;

  // `env` and `transport` outlive the outbox. Request numbers begin at a random place, so that
  // answers to an earlier life of this process match nothing.
  Outbox(Env* env, Transport* transport, Options options);
  ~Outbox();
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Gives `message` its request number (unique, growing), sends it and repeats it until it is
  // answered or cancelled. `on_reply` is called exactly once, from OnReply, unless cancelled: then
  // never. Any kind of body may come as the answer (Refused too); `on_reply` checks.
  // `to_incarnation` is whom the request is for; {0, 0} where that is not known. Returns the
  // request number.
  uint64_t Send(const Endpoint& to, Incarnation to_incarnation, Message message,
                OnReplyFn on_reply);

  // Sends without a request number: heartbeats, replies. Lost if the transport loses it.
  //   the transport's errors, which most callers ignore
  absl::Status SendOnce(const Endpoint& to, Message message);

  // For a message with `reply_to` set: calls the request's on_reply. False if no such request is
  // pending (answered already, cancelled, never sent): drop the message.
  bool OnReply(const Message& reply);

  // Forgets requests; their on_reply is destroyed uncalled. One that is not pending is ignored.
  void Cancel(uint64_t request);
  void CancelTo(Incarnation incarnation);
  void CancelAll();

  size_t pending() const { return pending_.size(); }
  size_t most_pending() const { return most_pending_; }  // ever at once
  uint64_t over_bound() const { return over_bound_; }    // requests made beyond pending_bound
  uint64_t retries() const { return retries_; }          // repeats handed to the transport
  uint64_t refused_sends() const {
    return refused_sends_;
  }  // first sends and repeats it did not take

 private:
  struct Pending {
    Endpoint to;
    Incarnation to_incarnation;
    size_t kind = 0;  // the body's index in the variant
    Channel channel = Channel::kControl;
    Packet packet;
    OnReplyFn on_reply;
    absl::Time first_sent;
    absl::Time due;        // of the next repeat
    absl::Duration pause;  // after the next send
  };
  // The smoothed answer time of one kind of request at one endpoint.
  struct AnswerTime {
    absl::Duration mean;
    absl::Duration deviation;
  };
  using AnswerKey = std::pair<Endpoint, size_t>;  // the body's index in the variant
  using PendingMap = std::map<uint64_t, Pending>;

  absl::Duration FirstPause(const AnswerKey& key, Channel channel) const;
  void LearnAnswerTime(const AnswerKey& key, absl::Duration took);
  void SendPacket(uint64_t request, Pending* pending);
  PendingMap::iterator Remove(PendingMap::iterator it);
  void ArmTimer();
  void OnTimer();

  Env* const env_;
  Transport* const transport_;
  const Options options_;
  uint64_t next_request_;
  PendingMap pending_;
  std::set<std::pair<absl::Time, uint64_t>> due_;  // one entry for each pending request
  std::map<AnswerKey, AnswerTime> answer_times_;
  TimerId timer_ = kNoTimer;
  absl::Time timer_due_ = absl::InfiniteFuture();
  size_t most_pending_ = 0;
  uint64_t over_bound_ = 0;
  uint64_t retries_ = 0;
  uint64_t refused_sends_ = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_MEMBERSHIP_OUTBOX_H_
