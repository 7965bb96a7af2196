#include "tests/sim/planning/policies.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

namespace starling {
namespace {

constexpr double kRounding = 1e-9;
constexpr double kSameMoment_s = 1e-6;

std::vector<double> EveryPeriod(const PeerTrace& trace, double period_s) {
  std::vector<double> wakes;
  const auto periods = static_cast<size_t>(trace.end_s / period_s);
  for (size_t i = 1; i <= periods; ++i) wakes.push_back(static_cast<double>(i) * period_s);
  return wakes;
}

size_t Lowest(const std::vector<double>& levels) {
  return static_cast<size_t>(std::min_element(levels.begin(), levels.end()) - levels.begin());
}

}  // namespace

// --- none ---

size_t NoMovesPolicy::StageFor(const PlanningSwarm& swarm, size_t peer) {
  return Value(ChooseStage(swarm.Picture(), swarm.peer(peer).speed).stage);
}

std::vector<double> NoMovesPolicy::Wakes(const PeerTrace& /*trace*/) const { return {}; }

std::vector<PlannedMove> NoMovesPolicy::Moves(const PlanningSwarm& /*swarm*/) { return {}; }

size_t RandomNewcomers::StageFor(const PlanningSwarm& swarm, size_t /*peer*/) {
  return rng_.Below(swarm.stages());
}

// --- Starling ---

StarlingPolicy::StarlingPolicy(double period_s, bool on_departures)
    : period_s_(period_s), on_departures_(on_departures) {
  options_.reaction = on_departures ? absl::ZeroDuration() : absl::Seconds(period_s / 2);
}

std::vector<double> StarlingPolicy::Wakes(const PeerTrace& trace) const {
  std::vector<double> wakes = EveryPeriod(trace, period_s_);
  if (!on_departures_) return wakes;
  for (const PeerLife& life : trace.peers) wakes.push_back(life.departs_s);
  return wakes;
}

std::vector<PlannedMove> StarlingPolicy::Moves(const PlanningSwarm& swarm) {
  std::vector<PlannedMove> moves;
  for (const Move& move : ProposeMoves(swarm.Picture(), options_).moves) {
    moves.push_back({move.replica.counter, Value(move.to)});
  }
  return moves;
}

// --- SWARM ---

size_t SwarmPolicy::StageFor(const PlanningSwarm& swarm, size_t /*peer*/) {
  return Lowest(swarm.Levels());
}

std::vector<double> SwarmPolicy::Wakes(const PeerTrace& trace) const {
  return EveryPeriod(trace, period_s_);
}

std::vector<PlannedMove> SwarmPolicy::Moves(const PlanningSwarm& swarm) {
  const std::vector<double> levels = swarm.Levels();
  const size_t to = Lowest(levels);
  const auto from =
      static_cast<size_t>(std::max_element(levels.begin(), levels.end()) - levels.begin());
  if (levels[from] <= levels[to] * (1 + kRounding)) return {};
  std::vector<size_t> serving;
  for (size_t i : swarm.members(from)) {
    if (swarm.serves(i)) serving.push_back(i);
  }
  return {{serving[rng_.Below(serving.size())], to}};
}

// --- clairvoyant ---

std::vector<double> ClairvoyantPolicy::Wakes(const PeerTrace& trace) const {
  std::vector<double> wakes;
  for (const PeerLife& life : trace.peers) {
    for (double at_s : {life.arrives_s, life.departs_s}) {
      wakes.insert(wakes.end(), {at_s - download_s_, at_s, at_s + download_s_});
    }
  }
  return wakes;
}

bool ClairvoyantPolicy::GoneLater(const PlanningSwarm& swarm, size_t peer) const {
  return trace_.peers[peer].departs_s <= swarm.now_s() + download_s_ + kSameMoment_s;
}

ClairvoyantPolicy::Outlook ClairvoyantPolicy::LookAhead(const PlanningSwarm& swarm) const {
  Outlook outlook;
  outlook.later.assign(swarm.stages(), 0);
  const double later_s = swarm.now_s() + download_s_ - kSameMoment_s;
  std::vector<double> levels = swarm.Levels();
  std::vector<std::tuple<double, size_t, double>> changes;  // (time, stage, change of its level)
  for (size_t s = 0; s < swarm.stages(); ++s) {
    for (size_t i : swarm.members(s)) {
      const double speed = swarm.SpeedAt(i, s);
      if (!GoneLater(swarm, i)) outlook.later[s] += speed;
      const double departs_s = trace_.peers[i].departs_s;
      const double ready_s = swarm.peer(i).ready_s;
      if (ready_s >= departs_s) continue;
      if (!swarm.serves(i) && ready_s < later_s) changes.emplace_back(ready_s, s, speed);
      if (departs_s < later_s) changes.emplace_back(departs_s, s, -speed);
    }
  }
  std::sort(changes.begin(), changes.end());
  outlook.spare.assign(swarm.stages(), std::numeric_limits<double>::infinity());
  const auto look = [&] {
    const double throughput = levels[Lowest(levels)];
    for (size_t s = 0; s < levels.size(); ++s) {
      outlook.spare[s] = std::min(outlook.spare[s], levels[s] - throughput);
    }
  };
  look();
  for (const auto& [at_s, stage, change] : changes) {
    levels[stage] += change;
    look();
  }
  return outlook;
}

std::optional<PlannedMove> ClairvoyantPolicy::Best(const PlanningSwarm& swarm,
                                                   const Outlook& outlook,
                                                   const std::vector<bool>& moving) const {
  const size_t to = Lowest(outlook.later);
  std::optional<PlannedMove> best;
  std::tuple<double, double, double> best_rank;
  for (size_t from = 0; from < swarm.stages(); ++from) {
    if (from == to) continue;
    for (size_t i : swarm.members(from)) {
      if (moving[i] || !swarm.serves(i) || GoneLater(swarm, i)) continue;
      const double speed = swarm.SpeedAt(i, from);
      if (speed > outlook.spare[from] * (1 + kRounding) + kRounding) continue;
      const double from_after = outlook.later[from] - speed;
      const double slower = std::min(from_after, outlook.later[to] + swarm.SpeedAt(i, to));
      if (slower <= outlook.later[to] * (1 + kRounding)) continue;
      const std::tuple<double, double, double> rank(slower, from_after, trace_.peers[i].departs_s);
      if (best && rank <= best_rank) continue;
      best = PlannedMove{i, to};
      best_rank = rank;
    }
  }
  return best;
}

size_t ClairvoyantPolicy::StageFor(const PlanningSwarm& swarm, size_t /*peer*/) {
  return Lowest(LookAhead(swarm).later);
}

std::vector<PlannedMove> ClairvoyantPolicy::Moves(const PlanningSwarm& swarm) {
  Outlook outlook = LookAhead(swarm);
  std::vector<bool> moving(trace_.peers.size(), false);
  std::vector<PlannedMove> moves;
  while (const std::optional<PlannedMove> move = Best(swarm, outlook, moving)) {
    const size_t from = swarm.peer(move->peer).stage;
    outlook.later[from] -= swarm.SpeedAt(move->peer, from);
    outlook.spare[from] -= swarm.SpeedAt(move->peer, from);
    outlook.later[move->to] += swarm.SpeedAt(move->peer, move->to);
    moving[move->peer] = true;
    moves.push_back(*move);
  }
  return moves;
}

}  // namespace starling
