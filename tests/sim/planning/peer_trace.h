// Who comes and goes: the lives of a swarm's peers, drawn from a seed.
//
// Peers come at random times (a Poisson process), live for exponentially distributed times, and
// some go in bursts: several at once, as when a provider takes machines back. The population stands
// at its mean when the trace begins and wanders around it, since as many come as go.
#ifndef STARLING_TESTS_SIM_PLANNING_PEER_TRACE_H_
#define STARLING_TESTS_SIM_PLANNING_PEER_TRACE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace starling {

struct PeerLife {
  double arrives_s = 0;  // 0: serves from the beginning
  double departs_s = 0;  // may be after the end of the trace
  double speed = 1;      // microbatches/s on a stage of cost 1
};

struct PeerTrace {
  std::vector<PeerLife> peers;  // in order of arrival
  double end_s = 0;
};

struct PeerTraceOptions {
  size_t population = 400;
  double mean_life_s = 8 * 3600.0;  // bursts included
  double end_s = 32 * 3600.0;
  double burst_share = 0.25;  // of the departures
  size_t max_burst = 6;       // bursts are of 2 to this many, equally likely
  double speed_range = 1;     // speeds are log-uniform in [1, this]
};

PeerTrace DrawPeerTrace(const PeerTraceOptions& options, uint64_t seed);

// Mean over the trace of the throughput that no policy can exceed with stages of these costs, if
// newcomers serve `download_s` after their arrival and moves cost nothing and take no time. With 0
// it is what SWARM's paper compares with. Exact for equal speeds and costs, else that of peers that
// can be divided (an upper bound).
double InstantOptimum(const PeerTrace& trace, const std::vector<double>& stage_costs,
                      double download_s);

// Mean throughput that no policy without foresight can exceed, in expectation over which peers
// depart. For equal speeds, and stages of cost 1.
//
// Whoever serves at time t was assigned a download earlier. Let the first departure since then find
// n peers, q = floor(n / S), r = n - q S. Only r stages can have more than q replicas, so at least
// (S - r) q peers serve in stages that have no more than q; if one of those is among the k that
// have departed since, the throughput at t is at most q - 1.
double LimitWithoutForesight(const PeerTrace& trace, size_t stages, double download_s);

}  // namespace starling

#endif  // STARLING_TESTS_SIM_PLANNING_PEER_TRACE_H_
