// A swarm as placement sees it: who serves which stage, how fast, and who is under way. Virtual
// time, event by event; no messages, no steps.
//
// A replica that moves serves nowhere until its download is over; so does a newcomer. Throughput is
// the minimum over stages of the sum of the speeds of those that serve.
#ifndef STARLING_TESTS_SIM_PLANNING_PLANNING_SWARM_H_
#define STARLING_TESTS_SIM_PLANNING_PLANNING_SWARM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "router/placement.h"
#include "tests/sim/planning/peer_trace.h"

namespace starling {

struct PlanningOptions {
  std::vector<double> stage_costs;
  double download_s = 30;
  // Departures as in SWARM's own experiment: instead of the peer of the trace, one of a stage drawn
  // with equal chances goes, however few serve it.
  std::optional<uint64_t> victims_by_stage;  // the seed of the draw
};

// What policies may look at.
class PlanningSwarm {
 public:
  struct Peer {
    bool here = false;
    size_t stage = 0;    // where it serves or will
    double ready_s = 0;  // serves from then on
    double speed = 0;    // on a stage of cost 1
  };

  PlanningSwarm(const PeerTrace& trace, const PlanningOptions& options);

  double now_s() const { return now_s_; }
  double download_s() const { return options_.download_s; }
  size_t stages() const { return options_.stage_costs.size(); }
  double cost(size_t stage) const { return options_.stage_costs[stage]; }
  const std::vector<size_t>& members(size_t stage) const { return members_[stage]; }
  const Peer& peer(size_t i) const { return peers_[i]; }
  bool serves(size_t i) const { return peers_[i].here && peers_[i].ready_s <= now_s_; }
  double SpeedAt(size_t i, size_t stage) const { return peers_[i].speed / cost(stage); }
  // Of those that serve now, in microbatches/s.
  std::vector<double> Levels() const;
  double Throughput() const;
  // For router/placement; replica i is incarnation (1, i).
  PlacementPicture Picture() const;

  // For the simulation.
  void Advance(double now_s);
  void Arrive(size_t i, size_t stage, double ready_s);
  void Move(size_t i, size_t stage);
  void Depart(size_t i);

 private:
  void Leave(size_t i);

  const PlanningOptions options_;
  double now_s_ = 0;
  std::vector<Peer> peers_;
  std::vector<std::vector<size_t>> members_;  // by stage, in order of arrival there
  size_t here_ = 0;
  DepartureMeter meter_;
};

struct PlannedMove {
  size_t peer = 0;
  size_t to = 0;
};

class PlanningPolicy {
 public:
  virtual ~PlanningPolicy() = default;
  // Where a newcomer goes.
  virtual size_t StageFor(const PlanningSwarm& swarm, size_t peer) = 0;
  // When it wants to be asked for moves; the order does not matter.
  virtual std::vector<double> Wakes(const PeerTrace& trace) const = 0;
  virtual std::vector<PlannedMove> Moves(const PlanningSwarm& swarm) = 0;
};

struct PlanningResult {
  double throughput = 0;  // microbatches/s, mean over the trace
  double first_hour = 0;
  double last_hour = 0;
  size_t moves = 0;
  size_t emptied = 0;  // times that the last serving replica of a stage was moved away
};

// Plays the trace with the policy. Before it begins, the peers that are there stand as well as they
// can (dealt one by one, the fastest first, to the stage that is then the slowest).
PlanningResult Simulate(const PeerTrace& trace, const PlanningOptions& options,
                        PlanningPolicy* policy);

}  // namespace starling

#endif  // STARLING_TESTS_SIM_PLANNING_PLANNING_SWARM_H_
