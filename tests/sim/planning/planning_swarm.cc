#include "tests/sim/planning/planning_swarm.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

absl::Time AtSecond(double s) { return absl::UnixEpoch() + absl::Seconds(s); }

}  // namespace

PlanningSwarm::PlanningSwarm(const PeerTrace& trace, const PlanningOptions& options)
    : options_(options), peers_(trace.peers.size()), members_(options.stage_costs.size()) {
  for (size_t i = 0; i < peers_.size(); ++i) peers_[i].speed = trace.peers[i].speed;
}

std::vector<double> PlanningSwarm::Levels() const {
  std::vector<double> levels(stages(), 0);
  for (size_t s = 0; s < stages(); ++s) {
    for (size_t i : members_[s]) {
      if (serves(i)) levels[s] += SpeedAt(i, s);
    }
  }
  return levels;
}

double PlanningSwarm::Throughput() const {
  const std::vector<double> levels = Levels();
  return *std::min_element(levels.begin(), levels.end());
}

PlacementPicture PlanningSwarm::Picture() const {
  PlacementPicture picture;
  for (double cost : options_.stage_costs) {
    picture.stages.push_back({cost, absl::Seconds(options_.download_s)});
  }
  for (size_t s = 0; s < stages(); ++s) {
    for (size_t i : members_[s]) {
      PlacementReplica replica;
      replica.id = {Epoch{1}, static_cast<uint32_t>(i)};
      replica.stage = static_cast<StageId>(s);
      replica.speed = SpeedAt(i, s);
      replica.ready_in = absl::Seconds(std::max(0.0, peers_[i].ready_s - now_s_));
      picture.replicas.push_back(replica);
    }
  }
  picture.departure_rate = meter_.RateAt(AtSecond(now_s_));
  return picture;
}

void PlanningSwarm::Advance(double now_s) { now_s_ = now_s; }

void PlanningSwarm::Arrive(size_t i, size_t stage, double ready_s) {
  peers_[i].here = true;
  peers_[i].stage = stage;
  peers_[i].ready_s = ready_s;
  members_[stage].push_back(i);
  meter_.OnReplicas(AtSecond(now_s_), ++here_);
}

void PlanningSwarm::Leave(size_t i) {
  std::vector<size_t>& members = members_[peers_[i].stage];
  members.erase(std::find(members.begin(), members.end(), i));
}

void PlanningSwarm::Move(size_t i, size_t stage) {
  STARLING_CHECK(serves(i) && peers_[i].stage != stage);
  Leave(i);
  peers_[i].stage = stage;
  peers_[i].ready_s = now_s_ + options_.download_s;
  members_[stage].push_back(i);
}

void PlanningSwarm::Depart(size_t i) {
  Leave(i);
  peers_[i].here = false;
  meter_.OnDeparture(AtSecond(now_s_));
  meter_.OnReplicas(AtSecond(now_s_), --here_);
}

// --- the simulation ---

namespace {

// At one moment, in this order.
enum class Kind : uint8_t { kDeparture, kArrival, kWake, kReady };

struct Happening {
  double at_s = 0;
  Kind kind = Kind::kWake;
  size_t peer = 0;
  friend bool operator>(const Happening& a, const Happening& b) {
    return std::tie(a.at_s, a.kind, a.peer) > std::tie(b.at_s, b.kind, b.peer);
  }
};

class Simulation {
 public:
  Simulation(const PeerTrace& trace, const PlanningOptions& options, PlanningPolicy* policy)
      : trace_(trace),
        options_(options),
        policy_(policy),
        swarm_(trace, options),
        victims_(options.victims_by_stage.value_or(0)) {}

  PlanningResult Run() {
    DealTheFirst();
    for (size_t i = 0; i < trace_.peers.size(); ++i) {
      const PeerLife& life = trace_.peers[i];
      if (life.arrives_s > 0) events_.push({life.arrives_s, Kind::kArrival, i});
      if (life.departs_s < trace_.end_s) events_.push({life.departs_s, Kind::kDeparture, i});
    }
    for (double at_s : policy_->Wakes(trace_)) events_.push({std::max(0.0, at_s), Kind::kWake, 0});
    while (!events_.empty() && events_.top().at_s < trace_.end_s) {
      const Happening event = events_.top();
      events_.pop();
      const bool woken_already = event.kind == Kind::kWake && event.at_s == last_wake_s_;
      if (woken_already) continue;
      Account(event.at_s);
      Handle(event);
    }
    Account(trace_.end_s);
    result_.throughput /= trace_.end_s;
    result_.first_hour /= 3600;
    result_.last_hour /= 3600;
    return result_;
  }

 private:
  void DealTheFirst() {
    std::vector<size_t> first;
    for (size_t i = 0; i < trace_.peers.size() && trace_.peers[i].arrives_s == 0; ++i) {
      first.push_back(i);
    }
    std::stable_sort(first.begin(), first.end(), [&](size_t a, size_t b) {
      return trace_.peers[a].speed > trace_.peers[b].speed;
    });
    std::vector<double> levels(swarm_.stages(), 0);
    for (size_t i : first) {
      const auto lowest = std::min_element(levels.begin(), levels.end());
      const auto stage = static_cast<size_t>(lowest - levels.begin());
      *lowest += swarm_.SpeedAt(i, stage);
      swarm_.Arrive(i, stage, 0);
    }
    throughput_ = swarm_.Throughput();
  }

  // What was served since the last event.
  void Account(double now_s) {
    const auto overlap = [&](double from_s, double to_s) {
      return std::max(0.0, std::min(now_s, to_s) - std::max(swarm_.now_s(), from_s));
    };
    result_.throughput += throughput_ * overlap(0, trace_.end_s);
    result_.first_hour += throughput_ * overlap(0, 3600);
    result_.last_hour += throughput_ * overlap(trace_.end_s - 3600, trace_.end_s);
    swarm_.Advance(now_s);
  }

  void Handle(const Happening& event) {
    switch (event.kind) {
      case Kind::kDeparture:
        swarm_.Depart(options_.victims_by_stage ? Victim() : event.peer);
        break;
      case Kind::kArrival:
        swarm_.Arrive(event.peer, policy_->StageFor(swarm_, event.peer),
                      swarm_.now_s() + options_.download_s);
        events_.push({swarm_.now_s() + options_.download_s, Kind::kReady, event.peer});
        break;
      case Kind::kWake:
        last_wake_s_ = event.at_s;
        for (const PlannedMove& move : policy_->Moves(swarm_)) Make(move);
        break;
      case Kind::kReady:
        break;  // throughput is computed anew
    }
    throughput_ = swarm_.Throughput();
  }

  void Make(const PlannedMove& move) {
    const std::vector<size_t>& siblings = swarm_.members(swarm_.peer(move.peer).stage);
    const auto serving =
        std::count_if(siblings.begin(), siblings.end(), [&](size_t i) { return swarm_.serves(i); });
    if (serving == 1) ++result_.emptied;
    swarm_.Move(move.peer, move.to);
    ++result_.moves;
    events_.push({swarm_.now_s() + options_.download_s, Kind::kReady, move.peer});
  }

  size_t Victim() {
    size_t stage = victims_.Below(swarm_.stages());
    while (swarm_.members(stage).empty()) stage = (stage + 1) % swarm_.stages();
    const std::vector<size_t>& members = swarm_.members(stage);
    return members[victims_.Below(members.size())];
  }

  const PeerTrace& trace_;
  const PlanningOptions& options_;
  PlanningPolicy* const policy_;
  PlanningSwarm swarm_;
  Rng victims_;
  std::priority_queue<Happening, std::vector<Happening>, std::greater<>> events_;
  double throughput_ = 0;
  double last_wake_s_ = -1;
  PlanningResult result_;
};

}  // namespace

PlanningResult Simulate(const PeerTrace& trace, const PlanningOptions& options,
                        PlanningPolicy* policy) {
  return Simulation(trace, options, policy).Run();
}

}  // namespace starling
