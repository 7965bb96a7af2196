// ShardOrders: has each stage's part of one checkpoint written by one of its replicas, onto a file
// system that all see (checkpoint.store = "shared"). The trainer's side of peer/shard_saver.h; one
// per save.
//
// Up to two replicas of each stage hold a snapshot, so that the steps need not wait and one of them
// may die; the first that holds one writes. Where it dies another that holds one writes anew: both
// write the same bytes, and whole files only. A replica that cannot write ends the save, since it
// would fail the next time too, and is named.
//
// Reactor thread; sans-I/O. Destroying it lets the snapshots go. Env and Swarm outlive it.
#ifndef STARLING_RUNTIME_TRAINER_SHARD_ORDERS_H_
#define STARLING_RUNTIME_TRAINER_SHARD_ORDERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/shard.h"
#include "runtime/base/layout.h"
#include "runtime/trainer/swarm.h"

namespace starling {

class ShardOrders {
 public:
  // All but `changed` may destroy the ShardOrders.
  struct Events {
    std::function<void()> changed;  // holds() may have ended
    // Files that `writer` says are written and synced. Whether they are to be seen from here has
    // yet to be looked at.
    std::function<void(StageId stage, Shard shard, const std::string& writer)> written;
    std::function<void(absl::Status)> failed;
  };

  // `save` names this attempt, and no other.
  ShardOrders(Swarm* swarm, Era era, Version version, uint64_t save,
              const std::vector<StageLayout>* layouts, Events events);
  ~ShardOrders();
  ShardOrders(const ShardOrders&) = delete;
  ShardOrders& operator=(const ShardOrders&) = delete;

  // Asks those that have come to the version. False: some stage's replicas have all gone on.
  bool Look();
  bool LookAt(StageId stage);  // the same for one stage
  // Where to write, as replicas see it: it exists from now on.
  void OnFolder(std::string folder);
  void OnFenced(const Endpoint& address);
  // A stage of which nobody holds a snapshot yet.
  bool holds() const;

 private:
  struct Holder {
    Endpoint address;
    uint64_t request = 0;  // under way; 0: none
    bool held = false;
  };
  struct Part {
    std::map<Incarnation, Holder> holders;
    std::set<Incarnation> refused;  // past the version
    std::optional<Incarnation> writer;
    bool done = false;
  };

  void AskToHold(StageId stage, Incarnation incarnation, const Endpoint& address);
  void OnHeld(StageId stage, Incarnation from, const ShardSaved& answer);
  void ChooseWriter(StageId stage);
  void OnSaved(StageId stage, Incarnation from, const ShardSaved& answer);
  void OnRefused(StageId stage, Incarnation from, const ShardSaved& answer);
  using OnAnswer = std::function<void(const ShardSaved&)>;
  uint64_t Ask(Incarnation to, const Endpoint& address, SaveShard order, OnAnswer on_answer);
  void Release(StageId stage);  // its snapshots are not needed any more
  SaveShard Order(ShardOrder order, StageId stage) const;

  Swarm* const swarm_;
  const Era era_;
  const Version version_;
  const uint64_t save_;
  const std::vector<StageLayout>* const layouts_;
  const Events events_;
  std::string folder_;
  std::vector<StateName> states_;  // per stage, once a replica is known to be there
  std::vector<Part> parts_;        // per stage
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_SHARD_ORDERS_H_
