#include "tests/sim/planning/peer_trace.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

double Exponential(Rng* rng, double mean) { return -mean * std::log1p(-rng->Unit()); }

double DrawSpeed(Rng* rng, double range) { return std::exp(rng->Unit() * std::log(range)); }

}  // namespace

PeerTrace DrawPeerTrace(const PeerTraceOptions& options, uint64_t seed) {
  STARLING_CHECK(options.max_burst >= 2);
  STARLING_CHECK(options.speed_range >= 1);
  Rng rng(seed);
  PeerTrace trace;
  trace.end_s = options.end_s;
  std::vector<size_t> alive;
  const auto arrive = [&](double now_s) {
    alive.push_back(trace.peers.size());
    const double after_the_end = 2 * options.end_s;
    trace.peers.push_back({now_s, after_the_end, DrawSpeed(&rng, options.speed_range)});
  };
  const auto depart = [&](double now_s) {
    if (alive.empty()) return;
    std::swap(alive[rng.Below(alive.size())], alive.back());
    trace.peers[alive.back()].departs_s = now_s;
    alive.pop_back();
  };
  for (size_t i = 0; i < options.population; ++i) arrive(0);

  const double arrivals_per_s = static_cast<double>(options.population) / options.mean_life_s;
  const double mean_burst = static_cast<double>(2 + options.max_burst) / 2;
  for (double now_s = 0;;) {
    const double departures_per_s = static_cast<double>(alive.size()) / options.mean_life_s;
    const double single = (1 - options.burst_share) * departures_per_s;
    const double bursts = options.burst_share * departures_per_s / mean_burst;
    const double all = arrivals_per_s + single + bursts;
    now_s += Exponential(&rng, 1 / all);
    if (now_s >= options.end_s) return trace;
    const double which = rng.Unit() * all;
    if (which < arrivals_per_s) {
      arrive(now_s);
    } else if (which < arrivals_per_s + single) {
      depart(now_s);
    } else {
      const uint64_t size = 2 + rng.Below(options.max_burst - 1);
      for (uint64_t i = 0; i < size; ++i) depart(now_s);
    }
  }
}

double InstantOptimum(const PeerTrace& trace, const std::vector<double>& stage_costs,
                      double download_s) {
  const bool equal =
      std::all_of(trace.peers.begin(), trace.peers.end(),
                  [&](const PeerLife& peer) { return peer.speed == trace.peers[0].speed; }) &&
      std::all_of(stage_costs.begin(), stage_costs.end(),
                  [&](double cost) { return cost == stage_costs[0]; });
  const double cost = std::accumulate(stage_costs.begin(), stage_costs.end(), 0.0);

  std::vector<std::pair<double, double>> changes;  // (time, speed that comes or goes)
  for (const PeerLife& peer : trace.peers) {
    const double serves_s = peer.arrives_s == 0 ? 0 : peer.arrives_s + download_s;
    if (serves_s >= peer.departs_s) continue;
    changes.emplace_back(serves_s, peer.speed);
    changes.emplace_back(peer.departs_s, -peer.speed);
  }
  changes.emplace_back(trace.end_s, 0);
  std::sort(changes.begin(), changes.end());
  double microbatches = 0;
  double speed = 0;
  double then_s = 0;
  for (const auto& [now_s, change] : changes) {
    if (now_s > trace.end_s) break;
    double throughput = speed / cost;
    if (equal) {  // whole peers
      const double one = trace.peers[0].speed;
      const double stages = static_cast<double>(stage_costs.size());
      throughput = std::floor(std::round(speed / one) / stages) * one / stage_costs[0];
    }
    microbatches += throughput * (now_s - then_s);
    then_s = now_s;
    speed += change;
  }
  return microbatches / trace.end_s;
}

double LimitWithoutForesight(const PeerTrace& trace, size_t stages, double download_s) {
  std::vector<double> arrivals;
  std::vector<double> departures;
  std::vector<double> moments = {trace.end_s};
  for (const PeerLife& life : trace.peers) {
    arrivals.push_back(life.arrives_s);
    departures.push_back(life.departs_s);
    moments.insert(moments.end(),
                   {life.arrives_s + download_s, life.departs_s, life.departs_s + download_s});
  }
  std::sort(arrivals.begin(), arrivals.end());
  std::sort(departures.begin(), departures.end());
  std::sort(moments.begin(), moments.end());
  const auto up_to = [](const std::vector<double>& times, double at_s) {
    return static_cast<double>(std::upper_bound(times.begin(), times.end(), at_s) - times.begin());
  };
  const double count = static_cast<double>(stages);
  double microbatches = 0;
  double then_s = 0;
  for (double moment : moments) {
    const double now_s = std::min(moment, trace.end_s);
    if (now_s <= then_s) continue;
    const double at_s = (then_s + now_s) / 2;  // nothing changes in between
    const double since_s = at_s - download_s;
    const double departed = up_to(departures, at_s) - up_to(departures, since_s);
    // Those that have come since then do not serve yet.
    const double came = since_s < 0 ? up_to(arrivals, 0) : up_to(arrivals, since_s);
    const double serving = came - up_to(departures, at_s);
    const double whole = std::floor(serving / count);
    double expected = whole;
    if (departed > 0) {
      const double first_s = *std::upper_bound(departures.begin(), departures.end(), since_s);
      const double found = up_to(arrivals, first_s) - up_to(departures, since_s);
      const double each = std::floor(found / count);
      const double spared = found - (count - (found - each * count)) * each;
      // Drawn without replacement; some may be of those that came since.
      const double newcomers = up_to(arrivals, at_s) - up_to(arrivals, first_s);
      double none_hit = 1;
      for (int k = 0; k < static_cast<int>(departed); ++k) {
        none_hit *= std::max(0.0, spared + newcomers - k) / (found + newcomers - k);
      }
      expected = none_hit * std::min(each, whole) + (1 - none_hit) * std::min(each - 1, whole);
    }
    microbatches += expected * (now_s - then_s);
    then_s = now_s;
  }
  return microbatches / trace.end_s;
}

}  // namespace starling
