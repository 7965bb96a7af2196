// PeerLinks: what the parts of a Peer (StateKeeper, StepEnd) need of it: who we are, and ways to
// say things. Implemented by Peer. Reactor thread; the Peer outlives its parts.
#ifndef STARLING_RUNTIME_PEER_PEER_LINKS_H_
#define STARLING_RUNTIME_PEER_PEER_LINKS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "runtime/base/event.h"
#include "runtime/base/ids.h"
#include "runtime/env/transport.h"
#include "runtime/membership/outbox.h"
#include "runtime/wire/messages.h"

namespace starling {

class PeerLinks {
 public:
  virtual ~PeerLinks() = default;

  virtual Incarnation self() const = 0;
  virtual const Endpoint& own_address() const = 0;

  // The answer to a request.
  virtual void ReplyToTrainer(uint64_t request, MessageBody body) = 0;
  virtual void ReplyAt(const Endpoint& address, uint64_t request, MessageBody body) = 0;

  // Requests, repeated until answered. AskMember: false if no View names `to` (yet); `answered`
  // (may be empty) is called when it has answered.
  virtual bool AskMember(Incarnation to, MessageBody body, std::function<void()> answered) = 0;
  // AskAt gives a number to cancel it by.
  virtual uint64_t AskAt(const Endpoint& to, MessageBody body, Outbox::OnReplyFn on_reply) = 0;
  virtual void CancelAsk(uint64_t request) = 0;

  // The account of this replica's time (step_clock.h) is told that the step is sealed, and gives
  // its times; that the version moved.
  virtual StepTimes TimesAtSeal() = 0;
  virtual void TimesMove() = 0;

  virtual void Emit(const Event& event) = 0;
  // Nothing can be gone on with from here: asks to be let in anew.
  virtual void TrainerLost(const std::string& why) = 0;
  // The device failed: this replica can do nothing more.
  virtual void DeviceFailed(const absl::Status& status) = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_PEER_LINKS_H_
