#include "tests/sim/planning/comparison.h"

#include <memory>

#include "runtime/base/check.h"
#include "tests/sim/planning/policies.h"

namespace starling {
namespace {

std::unique_ptr<PlanningPolicy> MakePolicy(Contender contender, const PeerTrace& trace,
                                           const Cell& cell, uint64_t seed) {
  switch (contender) {
    case Contender::kClairvoyant:
      return std::make_unique<ClairvoyantPolicy>(trace, cell.download_s);
    case Contender::kNoMoves:
      return std::make_unique<NoMovesPolicy>();
    case Contender::kSwarm300:
      return std::make_unique<SwarmPolicy>(300, seed);
    case Contender::kSwarm60:
      return std::make_unique<SwarmPolicy>(60, seed);
    case Contender::kStarling300:
      return std::make_unique<StarlingPolicy>(300, false);
    case Contender::kStarling60:
      return std::make_unique<StarlingPolicy>(60, false);
    case Contender::kStarlingAtDepartures:
      return std::make_unique<StarlingPolicy>(60, true);
  }
  STARLING_CHECK(false);
  return nullptr;
}

}  // namespace

Cell ManyPeers(size_t stages) {
  Cell cell;
  cell.stages = stages;
  return cell;
}

Cell FewPeers(size_t stages) {
  Cell cell;
  cell.stages = stages;
  cell.trace.population = 100;
  cell.trace.mean_life_s = 4 * 3600.0;
  cell.download_s = 120;
  return cell;
}

Comparison Compare(const Cell& cell, uint64_t seed) {
  const PeerTrace trace = DrawPeerTrace(cell.trace, seed);
  PlanningOptions options;
  options.stage_costs.assign(cell.stages, 1);
  options.download_s = cell.download_s;
  Comparison comparison;
  comparison.instant = InstantOptimum(trace, options.stage_costs, 0);
  comparison.bound = InstantOptimum(trace, options.stage_costs, cell.download_s);
  if (cell.trace.speed_range == 1) {
    comparison.without_foresight = LimitWithoutForesight(trace, cell.stages, cell.download_s);
  }
  for (Contender contender : kContenders) {
    comparison.results[static_cast<size_t>(contender)] =
        Simulate(trace, options, MakePolicy(contender, trace, cell, seed).get());
  }
  return comparison;
}

SwarmLike CompareLikeSwarm(double mean_life_s, uint64_t seed) {
  PeerTraceOptions trace_options;
  trace_options.mean_life_s = mean_life_s;
  const PeerTrace trace = DrawPeerTrace(trace_options, seed);
  PlanningOptions options;
  options.stage_costs.assign(4, 1);
  options.download_s = 0;
  options.victims_by_stage = seed;
  const double instant = InstantOptimum(trace, options.stage_costs, 0);
  const auto share = [&](PlanningPolicy&& moves) {
    RandomNewcomers policy(&moves, seed);
    return Simulate(trace, options, &policy).throughput / instant;
  };
  SwarmLike shares;
  shares.no_moves = share(NoMovesPolicy());
  shares.swarm_300 = share(SwarmPolicy(300, seed));
  shares.swarm_60 = share(SwarmPolicy(60, seed));
  shares.starling_300 = share(StarlingPolicy(300, false));
  shares.starling_60 = share(StarlingPolicy(60, false));
  return shares;
}

}  // namespace starling
