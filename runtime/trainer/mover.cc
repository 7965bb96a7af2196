#include "runtime/trainer/mover.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

// Until a join was seen: how fast state comes, and what a join costs beside that.
constexpr double kGuessedBytesPerSecond = 64e6;
constexpr absl::Duration kGuessedDelay = absl::Seconds(1);
constexpr double kSmoothing = 0.5;

// Multiplications per token: the blocks' matrices, and the last stage's head. Of layers of the
// user's own nothing is known, so each counts the same.
double CostOf(const RunConfig& config, const LayerRange& layers, bool last) {
  const ModelConfig& model = config.model;
  if (model.own()) return static_cast<double>(layers.end - layers.begin);
  const auto width = static_cast<double>(model.width);
  const double key_value =
      static_cast<double>(model.head_width()) * static_cast<double>(model.key_value_heads());
  const double matrices = model.mlp == MlpKind::kSwiGlu ? 3 : 2;
  const double block = 2 * width * width + 2 * width * key_value +
                       matrices * width * static_cast<double>(model.mlp_hidden());
  const double head = last ? width * static_cast<double>(model.vocabulary) : 0;
  return static_cast<double>(layers.end - layers.begin) * block + head;
}

}  // namespace

Mover::Mover(const RunConfig& config, const std::vector<StageLayout>& layouts, Env* env,
             Swarm* swarm, const Admission* admission, const Departures* departures,
             EventSink events)
    : period_(config.swarm.rebalance),
      env_(env),
      swarm_(swarm),
      admission_(admission),
      departures_(departures),
      events_(std::move(events)),
      stages_(layouts.size()),
      download_known_(layouts.size(), false) {
  const std::vector<LayerRange> ranges = StageRanges(config);
  const double unit = CostOf(config, ranges.front(), false);
  for (size_t stage = 0; stage < layouts.size(); ++stage) {
    stages_[stage].cost = CostOf(config, ranges[stage], stage + 1 == layouts.size()) / unit;
    const double bytes =
        static_cast<double>(kStatePlanes * layouts[stage].size) * double{sizeof(float)};
    stages_[stage].download = kGuessedDelay + absl::Seconds(bytes / kGuessedBytesPerSecond);
  }
}

PlacementPicture Mover::Picture(bool joiners_serve) {
  PlacementPicture picture;
  picture.stages = stages_;
  const absl::Time now = env_->Now();
  const auto add = [&](const Replica& replica, StageId stage, absl::Duration ready_in) {
    PlacementReplica placed;
    placed.id = replica.member.incarnation;
    placed.stage = stage;
    placed.pinned = replica.hello.pinned;
    placed.ready_in = ready_in;
    const auto known = device_speeds_.find(replica.member.peer);
    if (known != device_speeds_.end()) placed.speed = known->second / stages_[Value(stage)].cost;
    picture.replicas.push_back(placed);
  };
  for (const auto& [incarnation, replica] : swarm_->replicas()) {
    const StageId stage = replica.member.stage;
    if (replica.load.service_s > 0) {
      device_speeds_[replica.member.peer] = stages_[Value(stage)].cost / replica.load.service_s;
    }
    if (!departures_->WasAsked(incarnation)) {
      add(replica, stage, absl::ZeroDuration());
    } else if (const auto to = departures_->MovesTo(incarnation)) {
      add(replica, *to, stages_[Value(*to)].download);
    }
  }
  admission_->ForEach([&](const Replica& joiner) {
    const StageId stage = joiner.member.stage;
    const absl::Duration left = stages_[Value(stage)].download - (now - joiner.since);
    add(joiner, stage,
        joiners_serve ? absl::ZeroDuration() : std::max(left, absl::Milliseconds(1)));
  });
  picture.departure_rate = departures_seen_.RateAt(now);
  return picture;
}

StageId Mover::ChooseStage(const Hello& hello) {
  const PlacementPicture picture = Picture();
  const auto known = device_speeds_.find(hello.peer);
  const double speed = known == device_speeds_.end() ? 0 : known->second;
  const StageChoice choice = starling::ChooseStage(picture, speed);
  events_(Event("stage_chosen")
              .With("stage", Value(choice.stage))
              .With("peer", ToString(hello.peer))
              .With("reason", choice.reason));
  return choice.stage;
}

std::vector<Move> Mover::Propose() {
  if (departures_->MoveUnderWay()) return {};
  PlacementOptions options;
  options.reaction = period_ / 2;
  return ProposeMoves(Picture(), options).moves;
}

std::vector<Move> Mover::ProposeForJoiners() {
  return ProposeMoves(Picture(true), PlacementOptions()).moves;
}

void Mover::OnJoined(const Replica& replica) {
  const size_t stage = Value(replica.member.stage);
  const absl::Duration took = env_->Now() - replica.since;
  absl::Duration& download = stages_[stage].download;
  download = download_known_[stage] ? download + kSmoothing * (took - download) : took;
  download_known_[stage] = true;
  departures_seen_.OnReplicas(env_->Now(), swarm_->replicas().size());
}

void Mover::OnGone() {
  departures_seen_.OnDeparture(env_->Now());
  departures_seen_.OnReplicas(env_->Now(), swarm_->replicas().size());
}

}  // namespace starling
