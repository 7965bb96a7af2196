// World: a virtual run of Starling's own code, from one seed.
//
//   World world(WorldOptions::Drawn(seed));
//   NodeId trainer = world.AddNode({"trainer"}, [](NodeContext& node) {
//     return std::make_unique<MyProcess>(&node.env, &node.transport, ...);
//   });
//   world.At(absl::Seconds(3), [&] { world.Crash(peer); world.Restart(peer, absl::Seconds(1)); });
//   world.Run({[&] { return done; }, world.start() + absl::Minutes(10)});
//
// A node is a place where a process runs: a name, an address, a disk, a device's speed. Each start
// of its process is a new *life* with its own Env, Transport, Files and random numbers, made by the
// node's factory. A crash destroys the process with everything it had pending.
//
// The same seed and the same calls give the same run: compare trace().hash().
#ifndef STARLING_TESTS_SIM_WORLD_H_
#define STARLING_TESTS_SIM_WORLD_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/rng.h"
#include "tests/sim/journal.h"
#include "tests/sim/network.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_compute.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_env.h"
#include "tests/sim/sim_executor.h"
#include "tests/sim/trace.h"

namespace starling::sim {

class World;

struct WorldOptions {
  uint64_t seed = 1;
  NetworkOptions network;
  SimSpeed speed;                                     // of a node with slowness 1
  double slowness_max = 1;                            // each node's is drawn from [1, slowness_max]
  absl::Duration disk_delay = absl::Milliseconds(2);  // of a file job, at most

  // Network, speeds and loss drawn from the seed, within what a run should survive.
  static WorldOptions Drawn(uint64_t seed);
  std::string ToString() const;  // one line
};

// What runs on a node. Its destructor is its death: it may call what it was given, to no effect.
class Process {
 public:
  virtual ~Process() = default;
};

// What a process is given. Lives as long as the process.
struct NodeContext {
  NodeId id;
  uint32_t life;  // 1, 2, ...
  std::string name;
  Env& env;
  Transport& transport;
  Files& files;
  SimDisk& disk;
  World& world;

  // A device serving this stage, at the node's speed. Destroy it before or with the process.
  std::unique_ptr<Compute> MakeCompute(SimStage stage);
  void Trace(const Event& event);  // a line
  // The process ends itself, with an exit code, once its current callback is over.
  void Exit(int code);
};

using ProcessFactory = std::function<std::unique_ptr<Process>(NodeContext&)>;

struct NodeOptions {
  std::string name;
  double slowness = 0;  // 0: drawn
  std::string disk{};   // nodes of one name share it, one alive at a time; empty: its own
  bool start = true;    // at once; else at Restart
  // The process ended itself. Restart it here, or not.
  std::function<void(int code)> on_exit{};
};

struct CrashOptions {
  bool silent = false;          // the machine vanishes: its neighbours hear nothing
  bool forget_unsynced = true;  // the disk forgets; false: only the process died
  bool torn = false;            // what was being appended may survive in part
};

class World {
 public:
  explicit World(WorldOptions options);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  NodeId AddNode(NodeOptions options, ProcessFactory factory);

  // Kills the process now; from inside one of its own callbacks, once that is over. Nothing happens
  // to a node that is down.
  void Crash(NodeId node, CrashOptions options = {});
  // Starts the process again after `delay`, unless it runs by then. At another address, others must
  // be told of it.
  void Restart(NodeId node, absl::Duration delay, bool new_address = false);
  // The node is not started again, whatever was asked for.
  void Retire(NodeId node) { NodeOf(node).retired = true; }
  // Stops the process for a while, as SIGSTOP does: device, timers and sockets.
  void Stall(NodeId node, absl::Duration duration);

  bool alive(NodeId node) const;
  uint32_t life(NodeId node) const;
  const std::string& name(NodeId node) const;
  // The running process, or null. Valid until it dies.
  Process* process(NodeId node);
  // Where the node listens, or will after its next start.
  Endpoint address(NodeId node) const;
  double slowness(NodeId node) const;
  SimDisk& disk(NodeId node);
  ComputeFaults& faults(NodeId node);  // looked at by all its devices
  size_t node_count() const { return nodes_.size(); }

  // Something that happens to the world `delay` from now: a fault, a check.
  void At(absl::Duration delay, std::function<void()> happening);
  RunEnd Run(const RunLimits& limits) { return scheduler_.Run(limits); }
  RunEnd RunFor(absl::Duration duration);
  // Called after every event with whose it was; for checkers.
  void AfterEveryEvent(std::function<void(NodeId)> check);

  absl::Time Now() const { return scheduler_.Now(); }
  absl::Time start() const { return start_; }
  Scheduler& scheduler() { return scheduler_; }
  SimNetwork& network() { return network_; }
  Trace& trace() { return trace_; }
  Journal& journal() { return journal_; }
  Rng& rng() { return rng_; }  // for drawing faults
  const WorldOptions& options() const { return options_; }
  // The seed, all that was drawn, and each node's speed and address.
  std::string Parameters() const;

 private:
  friend struct NodeContext;

  struct Life {
    Life(World* world, NodeId id, uint32_t number, SimDisk* disk, const Endpoint& address,
         const std::string& name, uint64_t seed);

    SimEnv env;
    std::unique_ptr<SimTransport> transport;
    SimFiles files;
    NodeContext context;
    uint32_t executors = 0;
    bool dying = false;
    std::unique_ptr<Process> process;  // the first to go
  };
  struct Node {
    NodeOptions options;
    ProcessFactory factory;
    double slowness = 1;
    uint32_t lives = 0;
    bool retired = false;
    uint32_t port = 0;
    SimDisk* disk = nullptr;
    std::unique_ptr<ComputeFaults> faults;
    std::unique_ptr<Life> life;
  };

  Node& NodeOf(NodeId id) { return nodes_.at(Value(id)); }
  const Node& NodeOf(NodeId id) const { return nodes_.at(Value(id)); }
  void Start(NodeId id);
  void Bury(NodeId id, CrashOptions options);
  void EndSoon(NodeId id, bool silent, std::function<void()> end);
  std::unique_ptr<Compute> MakeCompute(NodeId id, SimStage stage);
  void ExitNode(NodeId id, int code);

  const WorldOptions options_;
  Scheduler scheduler_;
  const absl::Time start_;
  Trace trace_;
  Journal journal_;
  Rng rng_;
  SimNetwork network_;
  std::map<std::string, std::unique_ptr<SimDisk>> disks_;
  std::deque<Node> nodes_;  // by id; a deque, for nodes may be added while one starts
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_WORLD_H_
