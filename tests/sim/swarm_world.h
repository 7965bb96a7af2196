// SwarmWorld: a trainer and its peers, the very code of real runs, in the virtual world.
//
//   SwarmOptions options = SwarmOptions::Drawn(seed, FaultSet::All());
//   SwarmWorld swarm(options);
//   swarm.world().At(absl::Seconds(1), [&] { swarm.CrashPeer(0, 1); });
//   EXPECT_TRUE(swarm.RunToEnd()) << swarm.Report();
//   EXPECT_THAT(swarm.violations(), IsEmpty()) << swarm.Report();
//
// Checkers (swarm_checkers.h) look at every decision, state and event on the way. Peers that end by
// themselves are started again; what crashes comes back only if told to, as drawn faults do.
#ifndef STARLING_TESTS_SIM_SWARM_WORLD_H_
#define STARLING_TESTS_SIM_SWARM_WORLD_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/config/run_config.h"
#include "runtime/peer/peer.h"
#include "runtime/trainer/trainer.h"
#include "tests/sim/swarm_checkers.h"
#include "tests/sim/swarm_faults.h"
#include "tests/sim/world.h"

namespace starling::sim {

struct SwarmOptions {
  WorldOptions world;
  uint32_t stages = 3;
  uint32_t replicas = 2;
  uint32_t microbatches = 8;
  int64_t steps = 6;
  int64_t eval_every = 3;
  int64_t checkpoint_every = 2;
  absl::Duration dead_after = absl::Seconds(5);
  int64_t log_budget = int64_t{1} << 30;            // bytes
  int64_t window = 0;                               // swarm.window
  int64_t slots = 0;                                // swarm.slots
  absl::Duration restart_after = absl::Seconds(1);  // of a peer that died
  uint32_t faults = 0;                 // drawn crashes and stalls of peers while the run goes on
  uint32_t leaves = 0;                 // drawn peers that are drained, and come back afterwards
  uint32_t joins = 0;                  // drawn newcomers
  absl::Duration rebalance;            // between looks at who should serve what; zero: never
  bool kill_everything = false;        // once, at a drawn moment: all crash, the trainer resumes
  std::vector<FaultKind> more_faults;  // each at a drawn moment, to drawn victims
  // RunLiveness: once the drawn faults have happened, the trainer and one replica of each stage are
  // healed, everyone else is gone for good, and steps must go on.
  bool liveness = false;
  uint32_t trainer_restarts = 0;  // drawn crashes of the trainer alone, which comes back
  int64_t verify_every = 0;       // swarm.verify_every
  // checkpoint.store = "shared": the trainer's disk is everyone's. `writer_deaths`: drawn peers,
  // each of which dies after a drawn number of changes that it makes to it.
  bool shared_store = false;
  uint32_t writer_deaths = 0;
  // With shared_store, what stage 0's replicas have instead of it: a disk of their own, with or
  // without the folders of those names.
  enum class Stray : uint8_t { kNone, kOwnDisk, kOwnDiskWithSameFolders };
  Stray stray = Stray::kNone;
  // Boundaries in int8, rounded stochastically, and rounds in bf16. The virtual model's numbers are
  // such that nothing is lost by it but in the gaps between tensors.
  bool lossy = false;
  // The first and the last stage share a parameter, where there are two stages or more.
  bool tied = false;
  bool delayed = false;  // train.delayed_commit
  // A planted mistake: a restarted trainer does not know of the newest decision.
  bool forget_newest_decision = false;

  // World, shape and faults drawn from the seed; no other kinds of fault than `allowed`.
  static SwarmOptions Drawn(uint64_t seed, const FaultSet& allowed = FaultSet::All());
  // Crashes, stalls and loss only.
  static SwarmOptions DrawnSimple(uint64_t seed);
  std::string ToString() const;
};

class SwarmWorld {
 public:
  explicit SwarmWorld(SwarmOptions options);
  ~SwarmWorld();

  // Runs until the trainer has finished. False: it failed, or `limit` of virtual time passed.
  bool RunToEnd(absl::Duration limit = absl::Minutes(10));
  bool RunUntil(const std::function<bool()>& condition, absl::Duration limit = absl::Minutes(10));
  // See SwarmOptions::liveness. False, and a violation of I6, if the core does not get on.
  bool RunLiveness();
  // Lines go to `sink` from now on; with `all` also every event and message.
  void SetTraceSink(std::function<void(const std::string&)> sink, bool all);

  World& world() { return world_; }
  // The trainer's process dies, and is started again after `delay`.
  void RestartTrainer(absl::Duration delay, CrashOptions crash = {});
  NodeId trainer_node() const { return trainer_; }
  NodeId peer_node(uint32_t stage, uint32_t replica) const;
  // One more replica than configured, from now on.
  NodeId AddPeer(uint32_t stage);
  // With shared_store: the peer dies when it has made so many more changes, and comes back.
  void KillAsItWrites(NodeId peer, uint64_t changes);
  // SIGTERM: the peer leaves in order, and is not started again unless it is to come back.
  void DrainPeer(NodeId peer, bool comes_back = false);
  // `starling leave` and `starling pause`: the answer stands in order_answers() when it has come.
  void GiveOrder(Order order);
  const std::vector<Ack>& order_answers() const { return order_answers_; }
  Trainer* trainer();  // null while it is down
  const std::vector<StepReport>& steps() const { return checkers_.steps(); }
  const SwarmCheckers& checkers() const { return checkers_; }
  const std::vector<std::string>& violations() { return world_.trace().violations(); }
  bool finished() const { return checkers_.finished(); }
  std::string Parameters() const;
  // What was drawn, the last lines of the trace, the violations.
  std::string Report();

 private:
  class TrainerProcess;
  class PeerProcess;
  class OrderProcess;

  void DrawFaults();
  void DrawFault(Rng* rng);
  void Happen(FaultKind kind);
  void CrashAndRestart(NodeId node, CrashOptions options);
  void Disturb(FaultKind kind);
  void CheckAfter(NodeId node);
  // One replica of each stage that serves at the newest version; empty if some stage has none.
  std::vector<NodeId> FindCore();
  void KeepOnly(const std::vector<NodeId>& core);
  void DrawMembership();
  void DrawWriterDeaths();
  std::unique_ptr<Process> MakeTrainer(NodeContext& node);

  const SwarmOptions options_;
  RunConfig config_;
  std::vector<SimStage> stages_;
  std::unique_ptr<DataFeed> feed_;
  World world_;
  SwarmCheckers checkers_;
  NodeId trainer_ = kNobody;
  std::vector<NodeId> peers_;
  Rng fault_rng_;  // for more_faults and RunLiveness
  std::set<NodeId> drained_;
  std::vector<Ack> order_answers_;
  bool core_only_ = false;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SWARM_WORLD_H_
