#include "router/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "runtime/base/check.h"

namespace starling {
namespace {

// Reported speeds are not trusted: nobody counts for more, or less, than this many times the
// median.
constexpr double kSpeedRange = 1000;
// Sums of speeds that differ by less than this part are equal.
constexpr double kRounding = 1e-9;

bool IsKnown(double speed) { return std::isfinite(speed) && speed > 0; }

// The speed of a device on a stage of cost 1, with the unknown and the absurd replaced.
class DeviceSpeeds {
 public:
  explicit DeviceSpeeds(const PlacementPicture& picture) {
    std::vector<double> known;
    for (const PlacementReplica& replica : picture.replicas) {
      if (!IsKnown(replica.speed)) continue;
      known.push_back(replica.speed * picture.stages[Value(replica.stage)].cost);
    }
    if (known.empty()) return;
    const auto middle = known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2);
    std::nth_element(known.begin(), middle, known.end());
    median_ = *middle;
    any_known_ = true;
  }

  double Of(double device_speed) const {
    if (!IsKnown(device_speed)) return median_;
    if (!any_known_) return device_speed;
    return std::clamp(device_speed, median_ / kSpeedRange, median_ * kSpeedRange);
  }

 private:
  double median_ = 1;
  bool any_known_ = false;
};

struct Device {
  double speed = 0;  // on a stage of cost 1
  Incarnation id;
  friend bool operator<(const Device& a, const Device& b) {
    return std::tie(a.speed, a.id) < std::tie(b.speed, b.id);
  }
};

struct Stage {
  double cost = 1;
  double download_s = 0;
  double level = 0;    // microbatches/s, with those under way
  size_t count = 0;    // with those under way
  size_t serving = 0;  // now
  std::vector<Device> movable;
};

std::vector<Stage> Survey(const PlacementPicture& picture) {
  STARLING_CHECK(!picture.stages.empty());
  std::vector<Stage> stages(picture.stages.size());
  for (size_t s = 0; s < stages.size(); ++s) {
    STARLING_CHECK(IsKnown(picture.stages[s].cost));
    stages[s].cost = picture.stages[s].cost;
    stages[s].download_s = absl::ToDoubleSeconds(picture.stages[s].download);
  }
  const DeviceSpeeds speeds(picture);
  for (const PlacementReplica& replica : picture.replicas) {
    STARLING_CHECK_LT(Value(replica.stage), stages.size());
    Stage& stage = stages[Value(replica.stage)];
    const double device = speeds.Of(replica.speed * stage.cost);
    stage.level += device / stage.cost;
    ++stage.count;
    if (replica.ready_in > absl::ZeroDuration()) continue;
    ++stage.serving;
    if (!replica.pinned) stage.movable.push_back({device, replica.id});
  }
  for (Stage& stage : stages) std::sort(stage.movable.begin(), stage.movable.end());
  return stages;
}

size_t Slowest(const std::vector<Stage>& stages) {
  size_t slowest = 0;
  for (size_t s = 1; s < stages.size(); ++s) {
    if (stages[s].level < stages[slowest].level * (1 - kRounding)) slowest = s;
  }
  return slowest;
}

double Throughput(const std::vector<Stage>& stages) { return stages[Slowest(stages)].level; }

// Throughput with departures in mind: each stage is one replica short for the time that a repair
// takes, as often as its replicas depart.
double ExpectedThroughput(const std::vector<Stage>& stages, double departure_rate,
                          absl::Duration reaction) {
  const double lowest = Throughput(stages);
  double loss = 0;
  for (const Stage& stage : stages) {
    if (stage.count == 0) continue;
    const double one = stage.level / static_cast<double>(stage.count);
    const double drop = lowest - (stage.level - one);
    if (drop <= 0) continue;
    const double repair_s = absl::ToDoubleSeconds(reaction) + stage.download_s;
    loss += departure_rate * static_cast<double>(stage.count) * repair_s * drop;
  }
  return std::max(0.0, lowest - loss);
}

// --- the search for moves ---

struct Candidate {
  size_t from = 0;
  size_t to = 0;
  Device device;
  double slower_after = 0;  // of the two stages
  double from_after = 0;
  double level_before = 0;  // of `to`
};

// The best device of `from` for `to`: the one nearest to making the two equally fast.
std::optional<Candidate> BestOf(const std::vector<Stage>& stages, size_t from, size_t to) {
  const Stage& a = stages[from];
  const Stage& b = stages[to];
  if (a.serving < 2 || a.movable.empty()) return std::nullopt;
  const double ideal = (a.level - b.level) / (1 / a.cost + 1 / b.cost);
  if (ideal <= 0) return std::nullopt;
  std::optional<Candidate> best;
  const auto consider = [&](const Device& device) {
    Candidate candidate{from, to, device};
    candidate.from_after = a.level - device.speed / a.cost;
    candidate.slower_after = std::min(candidate.from_after, b.level + device.speed / b.cost);
    candidate.level_before = b.level;
    if (!best || candidate.slower_after > best->slower_after) best = candidate;
  };
  const auto above = std::lower_bound(a.movable.begin(), a.movable.end(), Device{ideal, {}});
  if (above != a.movable.end()) consider(*above);
  if (above != a.movable.begin()) {
    // Of equals the first: the one that has been here longest.
    const double below = std::prev(above)->speed;
    consider(*std::lower_bound(a.movable.begin(), above, Device{below, {}}));
  }
  return best;
}

// The best move to the slowest stage; none where none helps enough.
std::optional<Candidate> BestMove(const std::vector<Stage>& stages, double min_raise) {
  const size_t to = Slowest(stages);
  std::optional<Candidate> best;
  for (size_t from = 0; from < stages.size(); ++from) {
    if (from == to) continue;
    const std::optional<Candidate> candidate = BestOf(stages, from, to);
    if (!candidate) continue;
    const double raise = candidate->slower_after - stages[to].level;
    if (raise <= 0 || raise < min_raise * candidate->device.speed / stages[to].cost) continue;
    const auto rank = [](const Candidate& c) { return std::pair(c.slower_after, c.from_after); };
    if (!best || rank(*candidate) > rank(*best)) best = candidate;
  }
  return best;
}

void Leave(const Candidate& move, std::vector<Stage>* stages) {
  Stage& from = (*stages)[move.from];
  from.level -= move.device.speed / from.cost;
  --from.count;
  --from.serving;
  from.movable.erase(std::lower_bound(from.movable.begin(), from.movable.end(), move.device));
}

void Arrive(const Candidate& move, std::vector<Stage>* stages) {
  Stage& to = (*stages)[move.to];
  to.level += move.device.speed / to.cost;
  ++to.count;
}

struct Plan {
  std::vector<Candidate> moves;
  double throughput_after = 0;
  double expected_gain = 0;  // microbatches/s once all have arrived
  double pays_s = 0;         // how long the gain counts
  double cost = 0;           // microbatches
};

// Moves one after the other to the stage that is then the slowest; of all beginnings of that row
// the one that is worth most over the horizon.
Plan Search(const std::vector<Stage>& survey, double departure_rate,
            const PlacementOptions& options) {
  const auto value = [&](const std::vector<Stage>& stages) {
    return ExpectedThroughput(stages, departure_rate, options.reaction);
  };
  double horizon_s = absl::ToDoubleSeconds(options.horizon);
  if (departure_rate > 0) horizon_s = std::min(horizon_s, 1 / departure_rate);
  const double before = value(survey);
  const size_t most = 64 + 2 * survey.size();

  Plan best;
  double best_worth = 0;
  std::vector<Candidate> moves;
  std::vector<Stage> gone = survey;   // the movers away
  std::vector<Stage> after = survey;  // the movers arrived
  double download_s = 0;
  double lost = 0;
  while (moves.size() < most) {
    const std::optional<Candidate> next = BestMove(after, options.min_raise);
    if (!next) break;
    moves.push_back(*next);
    Leave(*next, &gone);
    Leave(*next, &after);
    Arrive(*next, &after);
    download_s = std::max(download_s, after[next->to].download_s);
    lost += absl::ToDoubleSeconds(options.lost_work) * next->device.speed / after[next->from].cost;

    Plan plan;
    plan.throughput_after = Throughput(after);
    plan.expected_gain = value(after) - before;
    plan.pays_s = std::max(0.0, horizon_s - download_s);
    plan.cost = std::max(0.0, before - value(gone)) * std::min(download_s, horizon_s) + lost;
    if (plan.expected_gain <= options.min_gain * plan.throughput_after) continue;
    const double worth = plan.expected_gain * plan.pays_s - plan.cost;
    if (worth <= best_worth * (1 + kRounding)) continue;
    best_worth = worth;
    best = plan;
    best.moves = moves;
  }
  return best;
}

// --- in words ---

std::string Rate(double per_s) { return absl::StrFormat("%.4g/s", per_s); }

std::string WhyMove(const Candidate& move, const std::vector<Stage>& survey, double throughput) {
  const Stage& from = survey[move.from];
  const bool slowest = move.level_before <= throughput * (1 + kRounding);
  return absl::StrFormat(
      "stage %d %s (%s); %s can spare %s of stage %d's %s, after a download of %.3g s", move.to,
      slowest ? "is the slowest" : "has the least reserve", Rate(move.level_before),
      ToString(move.device.id), Rate(move.device.speed / from.cost), move.from, Rate(from.level),
      survey[move.to].download_s);
}

std::string WhyPlan(const Plan& plan, double before, size_t made) {
  const std::string what =
      plan.throughput_after > before * (1 + kRounding)
          ? absl::StrFormat("throughput from %s to %s", Rate(before), Rate(plan.throughput_after))
          : absl::StrFormat("%s more to be expected when replicas depart",
                            Rate(plan.expected_gain));
  return absl::StrFormat("%d of %d moves: %s for %.3g s, at a cost of %.3g microbatches", made,
                         plan.moves.size(), what, plan.pays_s, plan.cost);
}

}  // namespace

StageChoice ChooseStage(const PlacementPicture& picture, double device_speed) {
  std::vector<Stage> stages = Survey(picture);
  const size_t slowest = Slowest(stages);
  Stage& stage = stages[slowest];
  const double level = stage.level;
  StageChoice choice;
  choice.stage = static_cast<StageId>(slowest);
  choice.throughput_before = level;
  Arrive({slowest, slowest, {DeviceSpeeds(picture).Of(device_speed), {}}}, &stages);
  choice.throughput_after = Throughput(stages);
  if (stage.count == 1) {
    choice.reason = absl::StrFormat("nobody serves stage %d", slowest);
  } else if (choice.throughput_after > choice.throughput_before * (1 + kRounding)) {
    choice.reason = absl::StrFormat("stage %d is the slowest (%s): throughput rises to %s", slowest,
                                    Rate(level), Rate(choice.throughput_after));
  } else {
    choice.reason = absl::StrFormat("stage %d is one of the slowest (%s)", slowest, Rate(level));
  }
  return choice;
}

Rebalancing ProposeMoves(const PlacementPicture& picture, const PlacementOptions& options) {
  STARLING_CHECK(options.max_moves > 0);
  STARLING_CHECK(options.min_raise > 0 && options.min_raise <= 1);
  const std::vector<Stage> survey = Survey(picture);
  const Plan plan = Search(survey, picture.departure_rate, options);

  Rebalancing result;
  result.throughput_before = Throughput(survey);
  std::vector<Stage> after = survey;
  for (const Candidate& move : plan.moves) {
    if (result.moves.size() == options.max_moves) break;
    Leave(move, &after);
    Arrive(move, &after);
    result.moves.push_back({move.device.id, static_cast<StageId>(move.from),
                            static_cast<StageId>(move.to),
                            WhyMove(move, survey, result.throughput_before)});
  }
  result.throughput_after = Throughput(after);
  result.reason = result.moves.empty()
                      ? absl::StrFormat("no move pays: stage %d is the slowest (%s)",
                                        Slowest(survey), Rate(result.throughput_before))
                      : WhyPlan(plan, result.throughput_before, result.moves.size());
  return result;
}

// --- DepartureMeter ---

DepartureMeter::Sums DepartureMeter::At(absl::Time now) const {
  if (since_ == absl::InfinitePast()) return sums_;
  const double elapsed_s = absl::ToDoubleSeconds(now - since_);
  const double decay = std::exp2(-elapsed_s / absl::ToDoubleSeconds(half_life_));
  return {sums_.departures * decay,
          sums_.replica_seconds * decay + static_cast<double>(replicas_) * elapsed_s};
}

void DepartureMeter::OnReplicas(absl::Time now, size_t replicas) {
  sums_ = At(now);
  since_ = now;
  replicas_ = replicas;
}

void DepartureMeter::OnDeparture(absl::Time now) {
  sums_ = At(now);
  since_ = now;
  sums_.departures += 1;
}

double DepartureMeter::RateAt(absl::Time now) const {
  const Sums sums = At(now);
  return sums.replica_seconds > 0 ? sums.departures / sums.replica_seconds : 0;
}

}  // namespace starling
