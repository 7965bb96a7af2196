// Admission: peers that want in, from Hello until they hold the current state.
//
//   Hello -> (incarnation) Waiting -> LoadState -> Loading -> Loaded at a version -> taken by the
//   trainer
//
// The swarm goes on meanwhile. With each version joiners are told the new target; they get there by
// themselves (runtime/peer/state_loader.h), and one that shows the current state may be taken.
//
// It gives incarnations, picks stages, and has joiners load. Whether and when a loaded joiner
// becomes a member is the trainer's decision, since only a persisted record changes membership.
// Reactor thread; sans-I/O.
#ifndef STARLING_RUNTIME_TRAINER_ADMISSION_H_
#define STARLING_RUNTIME_TRAINER_ADMISSION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/event.h"
#include "runtime/env/env.h"
#include "runtime/trainer/swarm.h"

namespace starling {

class Admission {
 public:
  struct LoadTarget {
    StateName state;
    std::vector<Endpoint> donors;
  };
  // The state a replica of `stage` needs to serve now, and who has it; none: not to be had now.
  // `held` is what the joiner has from before: if it is current no donor is needed.
  using FindTarget =
      std::function<std::optional<LoadTarget>(StageId stage, const std::optional<StateName>& held)>;

  // `changed` is called when a joiner came, loaded or went.
  Admission(Env* env, Swarm* swarm, std::string config_toml, EventSink events, FindTarget target,
            std::function<void()> changed);

  // Where a peer goes that leaves it to the trainer; without this, where there are fewest.
  using ChooseStageFn = std::function<StageId(const Hello&)>;
  void SetChooser(ChooseStageFn choose) { choose_ = std::move(choose); }

  // Lets a peer in, or refuses it. `previous` is the incarnation it had when it said Hello. Returns
  // the member that this peer was until now, and is no more: the trainer fences it.
  std::optional<Incarnation> OnHello(const Hello& hello, Incarnation previous, uint64_t request);

  // Sends LoadState to everyone who waits and can be served.
  void OfferLoads();
  // What was asked to be loaded is not current any more: joiners will be told what is.
  void RestartLoads();

  void Drop(Incarnation incarnation, const std::string& reason);
  // All joiners must say Hello again.
  void DropAll(const std::string& reason);
  // Members of an ended era become joiners again.
  void Readmit(Replica replica);
  // Joiners that hold exactly the state `current` names for their stage, removed from here.
  std::vector<Replica> TakeLoaded(const std::function<bool(const Replica&)>& current);

  // These joiners, removed from here, whatever they have loaded.
  std::vector<Replica> Take(const std::set<Incarnation>& incarnations);

  const Replica* Find(Incarnation incarnation) const;
  std::optional<Incarnation> FindByAddress(const std::string& control) const;
  // A load is under way that the start of the run should wait for.
  bool loading() const;
  // A joiner says that it will not catch up as things are.
  void OnBehind(Incarnation incarnation, const Behind& behind);
  size_t size() const { return joiners_.size(); }
  bool empty() const { return joiners_.empty(); }
  // Joiners per stage, in any state.
  std::vector<uint32_t> CountPerStage() const;
  // Loaded joiners per stage.
  std::vector<uint32_t> LoadedPerStage() const;
  void ForEach(const std::function<void(const Replica&)>& visit) const;

 private:
  enum class State : uint8_t { kWaiting, kLoading, kLoaded };
  struct Joiner {
    Replica replica;
    State state = State::kWaiting;
    absl::Time load_began;
    uint64_t load = 0;           // counts loads, so that an answer to an old one is known
    bool failed_before = false;  // a load of this state
  };

  std::string Objection(const Hello& hello) const;
  StageId ChooseStage(const Hello& hello) const;
  void SendWelcome(const Replica& replica, uint64_t request);
  void BeginLoad(Incarnation incarnation, Joiner* joiner, const LoadTarget& target);
  void OnLoaded(Incarnation incarnation, uint64_t load, const Loaded& loaded);

  Env* const env_;
  Swarm* const swarm_;
  const std::string config_toml_;
  const EventSink events_;
  const FindTarget target_;
  const std::function<void()> changed_;
  ChooseStageFn choose_;
  std::map<Incarnation, Joiner> joiners_;
  uint32_t last_counter_ = 0;
  uint64_t loads_ = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_ADMISSION_H_
