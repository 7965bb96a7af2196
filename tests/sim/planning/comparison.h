// The comparison that docs/benchmarks.md reports: policies side by side on the same traces.
#ifndef STARLING_TESTS_SIM_PLANNING_COMPARISON_H_
#define STARLING_TESTS_SIM_PLANNING_COMPARISON_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/planning/peer_trace.h"
#include "tests/sim/planning/planning_swarm.h"

namespace starling {

enum class Contender : uint8_t {
  kClairvoyant,
  kNoMoves,
  kSwarm300,
  kSwarm60,
  kStarling300,
  kStarling60,
  kStarlingAtDepartures,  // every 60 s, and whenever somebody departs
};
constexpr std::array<Contender, 7> kContenders = {Contender::kClairvoyant,
                                                  Contender::kNoMoves,
                                                  Contender::kSwarm300,
                                                  Contender::kSwarm60,
                                                  Contender::kStarling300,
                                                  Contender::kStarling60,
                                                  Contender::kStarlingAtDepartures};

struct Cell {
  PeerTraceOptions trace;
  size_t stages = 4;  // all of the same cost
  double download_s = 30;
};
Cell ManyPeers(size_t stages);  // 400 that live 8 h, 30 s downloads
Cell FewPeers(size_t stages);   // 100 that live 4 h, 120 s downloads

// One trace.
struct Comparison {
  double instant = 0;            // InstantOptimum with downloads of 0
  double bound = 0;              // InstantOptimum with the cell's: no policy exceeds it
  double without_foresight = 0;  // LimitWithoutForesight; 0 where speeds differ
  std::array<PlanningResult, kContenders.size()> results;

  const PlanningResult& of(Contender contender) const {
    return results[static_cast<size_t>(contender)];
  }
};

Comparison Compare(const Cell& cell, uint64_t seed);

// Like SWARM's own experiment: 4 stages, newcomers go anywhere, departures hit all stages equally
// however few serve them, moves take no time. Shares of the instant optimum.
struct SwarmLike {
  double no_moves = 0;
  double swarm_300 = 0;
  double swarm_60 = 0;
  double starling_300 = 0;
  double starling_60 = 0;
};
SwarmLike CompareLikeSwarm(double mean_life_s, uint64_t seed);

}  // namespace starling

#endif  // STARLING_TESTS_SIM_PLANNING_COMPARISON_H_
