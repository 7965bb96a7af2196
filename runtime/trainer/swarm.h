// Swarm: the replicas that serve, as the trainer knows them, and the way to talk to them.
//
// Membership changes only through Add and Remove. The trainer persists a join before it calls Add;
// a loss acts at once and is named in the next record. Reactor thread.
#ifndef STARLING_RUNTIME_TRAINER_SWARM_H_
#define STARLING_RUNTIME_TRAINER_SWARM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/buffers.h"
#include "runtime/env/env.h"
#include "runtime/membership/outbox.h"
#include "runtime/wire/messages.h"

namespace starling {

// A serving replica.
struct Replica {
  Member member;
  Hello hello;
  Load load;           // as it last reported
  StateName state;     // the last it acknowledged
  bool older = false;  // when it joined it had the parameters of the version before, too
  int64_t tokens = 0;  // of microbatches it added since `since`
  absl::Time since;
  uint64_t view_acknowledged = 0;  // the newest View it was told and has answered
};

class Swarm {
 public:
  Swarm(Env* env, Transport* transport, RunId run, Epoch epoch, uint32_t stages);

  void set_era(Era era) { era_ = era; }
  Era era() const { return era_; }
  // The same process reigns anew: everyone must be let in again.
  void set_epoch(Epoch epoch) { epoch_ = epoch; }
  Epoch epoch() const { return epoch_; }
  Incarnation self() const { return {epoch_, 0}; }
  uint32_t stages() const { return stages_; }

  void Add(Replica replica);
  // Cancels what was asked of it.
  void Remove(Incarnation incarnation);
  void Clear();

  const std::map<Incarnation, Replica>& replicas() const { return replicas_; }
  Replica* Find(Incarnation incarnation);
  // In their order.
  const std::set<Incarnation>& OfStage(StageId stage) const { return by_stage_[Value(stage)]; }
  // Who gets new work of a stage: those that are not about to leave, or all if there are no others.
  std::vector<Incarnation> TakersOf(StageId stage) const;
  std::vector<uint32_t> CountPerStage() const;
  std::optional<StageId> EmptyStage() const;  // the first stage nobody serves

  // It is about to leave, or is not any more: others see it in their next View.
  void SetDraining(Incarnation incarnation, bool draining);

  // These stages are neighbours of each other too: their replicas sum a parameter group together.
  void AddNeighbours(const std::vector<StageId>& stages);

  // Tells replicas who serves their own and the neighbouring stages: those of them for whom that is
  // not as in the View before, whichever change it was. A change of one stage concerns three, not
  // the whole swarm: of n replicas in S stages 3 n / S get a View of 3 n / S members.
  void SendViews();
  uint64_t view_number() const { return view_number_; }  // of the newest View

  // A request to a serving replica, repeated until answered or the replica is removed.
  void Ask(Incarnation to, MessageBody body, Outbox::OnReplyFn on_reply);
  // The same for someone who does not serve (yet). Gives a number to cancel it by.
  uint64_t AskAt(const Endpoint& to, Incarnation incarnation, MessageBody body,
                 Outbox::OnReplyFn on_reply);
  void Tell(const Endpoint& to, MessageBody body);
  void Reply(const Endpoint& to, uint64_t request, MessageBody body);

  Outbox& outbox() { return outbox_; }
  // `joiners`: how many others are asked something.
  void VisitBuffers(const BufferVisitor& visit, size_t joiners) const;

 private:
  Message Make(MessageBody body) const;

  const RunId run_;
  Epoch epoch_;
  const uint32_t stages_;
  Env* const env_;
  Era era_{0};
  Outbox outbox_;
  std::map<Incarnation, Replica> replicas_;
  std::vector<std::set<Incarnation>> by_stage_;
  std::vector<std::set<uint32_t>> near_;  // by stage: whom its replicas know, itself among them
  std::set<uint32_t> changed_;            // stages, since the newest View
  uint64_t view_number_ = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_SWARM_H_
