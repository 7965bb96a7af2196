// The policies that the planning simulator compares.
#ifndef STARLING_TESTS_SIM_PLANNING_POLICIES_H_
#define STARLING_TESTS_SIM_PLANNING_POLICIES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "router/placement.h"
#include "runtime/base/rng.h"
#include "tests/sim/planning/planning_swarm.h"

namespace starling {

// Nobody ever moves. Newcomers go where router/placement sends them.
class NoMovesPolicy : public PlanningPolicy {
 public:
  size_t StageFor(const PlanningSwarm& swarm, size_t peer) override;
  std::vector<double> Wakes(const PeerTrace& trace) const override;
  std::vector<PlannedMove> Moves(const PlanningSwarm& swarm) override;
};

// Another policy, but newcomers take any stage with equal chances.
class RandomNewcomers : public PlanningPolicy {
 public:
  RandomNewcomers(PlanningPolicy* moves, uint64_t seed) : moves_(moves), rng_(seed) {}
  size_t StageFor(const PlanningSwarm& swarm, size_t peer) override;
  std::vector<double> Wakes(const PeerTrace& trace) const override { return moves_->Wakes(trace); }
  std::vector<PlannedMove> Moves(const PlanningSwarm& swarm) override {
    return moves_->Moves(swarm);
  }

 private:
  PlanningPolicy* const moves_;
  Rng rng_;
};

// router/placement: moves every period, and, if `on_departures`, when somebody was lost.
class StarlingPolicy : public NoMovesPolicy {
 public:
  StarlingPolicy(double period_s, bool on_departures);
  std::vector<double> Wakes(const PeerTrace& trace) const override;
  std::vector<PlannedMove> Moves(const PlanningSwarm& swarm) override;

 private:
  const double period_s_;
  const bool on_departures_;
  PlacementOptions options_;
};

// SWARM's rule (Algorithm 2), with perfect knowledge of what its queues would show: the load of a
// stage grows as its capacity falls. Every period one peer of the stage with the lowest load goes
// to the one with the highest; newcomers go there too. Who is under way has no queue and is not
// seen. Where all stages are equally loaded nobody moves.
class SwarmPolicy : public PlanningPolicy {
 public:
  SwarmPolicy(double period_s, uint64_t seed) : period_s_(period_s), rng_(seed) {}
  size_t StageFor(const PlanningSwarm& swarm, size_t peer) override;
  std::vector<double> Wakes(const PeerTrace& trace) const override;
  std::vector<PlannedMove> Moves(const PlanningSwarm& swarm) override;

 private:
  const double period_s_;
  Rng rng_;
};

// Knows all arrivals and departures to come, and pays for its moves: a download of which the mover
// serves nowhere, as for everyone else. It acts a download ahead: at every moment at which
// something changes, now or a download later, it looks at the swarm as it will be when a move begun
// now ends. If the slowest stage is then below another by more than the mover takes away, a replica
// that the other can do without in the meantime starts at once, so that it serves at the very
// moment when another one departs. Newcomers go where they will be needed most when they are ready.
// It never gives up throughput now for throughput later.
class ClairvoyantPolicy : public PlanningPolicy {
 public:
  ClairvoyantPolicy(const PeerTrace& trace, double download_s)
      : trace_(trace), download_s_(download_s) {}
  size_t StageFor(const PlanningSwarm& swarm, size_t peer) override;
  std::vector<double> Wakes(const PeerTrace& trace) const override;
  std::vector<PlannedMove> Moves(const PlanningSwarm& swarm) override;

 private:
  struct Outlook {
    std::vector<double> later;  // per stage: level when a download that begins now ends
    std::vector<double> spare;  // per stage: what it can do without until then
  };
  bool GoneLater(const PlanningSwarm& swarm, size_t peer) const;
  Outlook LookAhead(const PlanningSwarm& swarm) const;
  std::optional<PlannedMove> Best(const PlanningSwarm& swarm, const Outlook& outlook,
                                  const std::vector<bool>& moving) const;

  const PeerTrace& trace_;
  const double download_s_;
};

}  // namespace starling

#endif  // STARLING_TESTS_SIM_PLANNING_POLICIES_H_
