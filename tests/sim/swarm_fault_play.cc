// SwarmWorld's drawn faults, and the core that is left in liveness mode.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/sim/swarm_world.h"

namespace starling::sim {
namespace {

constexpr char kCheckpoints[] = "run/checkpoints";
constexpr absl::Duration kForGood = absl::Hours(1000);
// In liveness mode: until a core serves at one version once the faults are over, and until it has
// taken kStepsOfCore steps on its own.
constexpr absl::Duration kCoreLimit = absl::Minutes(5);
constexpr absl::Duration kProgressLimit = absl::Minutes(3);
constexpr size_t kStepsOfCore = 3;

absl::Duration Between(Rng* rng, int low_ms, int high_ms) {
  return absl::Milliseconds(low_ms + static_cast<int>(rng->Below(high_ms - low_ms + 1)));
}

}  // namespace

void SwarmWorld::DrawFaults() {
  for (uint32_t i = 0; i < options_.faults; ++i) {
    world_.At(absl::Milliseconds(world_.rng().Below(4000)), [this] { DrawFault(&world_.rng()); });
  }
  for (uint32_t i = 0; i < options_.trainer_restarts; ++i) {
    world_.At(absl::Milliseconds(100 + world_.rng().Below(4000)), [this] {
      CrashOptions crash;
      crash.silent = world_.rng().Chance(0.2);
      RestartTrainer(absl::Milliseconds(1 + world_.rng().Below(2000)), crash);
    });
  }
  for (FaultKind kind : options_.more_faults) {
    world_.At(Between(&fault_rng_, 0, 5000), [this, kind] { Happen(kind); });
  }
  if (!options_.kill_everything) return;
  world_.At(absl::Milliseconds(500 + world_.rng().Below(3000)), [this] {
    if (checkers_.finished()) return;
    for (NodeId peer : peers_) world_.Crash(peer);
    world_.Crash(trainer_);
    world_.Restart(trainer_, absl::Seconds(1));
    for (NodeId peer : peers_) world_.Restart(peer, absl::Seconds(2), true);
  });
}

void SwarmWorld::DrawFault(Rng* rng) {
  const NodeId peer = peers_[rng->Below(peers_.size())];
  if (checkers_.finished() || !world_.alive(peer)) return;
  if (rng->Chance(0.3)) return world_.Stall(peer, absl::Milliseconds(1 + rng->Below(8000)));
  world_.Crash(peer);
  world_.Restart(peer, options_.restart_after, true);
}

void SwarmWorld::CrashAndRestart(NodeId node, CrashOptions options) {
  if (!world_.alive(node)) return;
  world_.Crash(node, options);
  // The trainer is looked for where it was.
  world_.Restart(node, Between(&fault_rng_, 100, 3000), node != trainer_);
}

void SwarmWorld::Happen(FaultKind kind) {
  if (checkers_.finished() || core_only_) return;
  Rng& rng = fault_rng_;
  const NodeId peer = peers_[rng.Below(peers_.size())];
  CrashOptions crash;
  crash.forget_unsynced = rng.Chance(0.7);
  crash.torn = rng.Chance(0.5);
  switch (kind) {
    case FaultKind::kCrash:
      return CrashAndRestart(peer, crash);
    case FaultKind::kVanish:
      crash.silent = true;
      return CrashAndRestart(peer, crash);
    case FaultKind::kTrainerCrash:
      return CrashAndRestart(trainer_, crash);
    case FaultKind::kStall:
      return world_.Stall(peer, Between(&rng, 1, 8000));
    case FaultKind::kTrainerStall:
      return world_.Stall(trainer_, Between(&rng, 1, 20000));
    case FaultKind::kSlow: {
      world_.trace().Line(world_.name(peer), Event("slows"));
      world_.faults(peer).slowdown = 3 + 30 * rng.Unit();
      world_.At(Between(&rng, 100, 5000), [this, peer] { world_.faults(peer).slowdown = 1; });
      return;
    }
    case FaultKind::kHiccup:
      world_.trace().Line(world_.name(peer), Event("hiccups"));
      world_.faults(peer).hiccup = Between(&rng, 1000, 8000);
      return;
    case FaultKind::kFullDisk: {
      SimDisk& disk = world_.disk(trainer_);
      world_.trace().Line("trainer", Event("disk_full"));
      checkers_.AllowDiskFull();
      disk.SetBudget(disk.used_bytes() + rng.Below(2000), kCheckpoints);
      world_.At(Between(&rng, 100, 5000), [&disk] { disk.LiftBudget(); });
      return;
    }
    default:
      return Disturb(kind);
  }
}

// A fault between two nodes.
void SwarmWorld::Disturb(FaultKind kind) {
  Rng& rng = fault_rng_;
  const size_t nodes = world_.node_count();
  const NodeId from{static_cast<uint32_t>(rng.Below(nodes))};
  const NodeId to{static_cast<uint32_t>(rng.Below(nodes))};
  if (from == to) return;
  SimNetwork& network = world_.network();
  const absl::Duration duration = Between(&rng, 10, 8000);
  world_.trace().Line(world_.name(from), Event(ToString(kind))
                                             .With("to", world_.name(to))
                                             .With("for", absl::FormatDuration(duration)));
  const auto heal = [this, from, to] {
    if (core_only_) return;  // what is left is for good
    world_.network().Heal(from, to);
    world_.network().Heal(to, from);
    world_.trace().Line(world_.name(from), Event("healed").With("to", world_.name(to)));
  };
  switch (kind) {
    case FaultKind::kPartition:
      network.Partition(from, to);
      network.Partition(to, from);
      return world_.At(duration, heal);
    case FaultKind::kOneWay:
      network.Partition(from, to, /*silent=*/true);
      return world_.At(duration, heal);
    case FaultKind::kClog:
      return network.Clog(from, to, duration);
    case FaultKind::kJam:
      return network.Jam(from, to, duration);
    default:
      return;
  }
}

// --- liveness ------------------------------------------------------------------------------------

std::vector<NodeId> SwarmWorld::FindCore() {
  std::vector<NodeId> core;
  Trainer* const trainer = this->trainer();
  if (trainer == nullptr || world_.scheduler().stalled(trainer_)) return {};
  for (uint32_t stage = 0; stage < options_.stages; ++stage) {
    std::vector<NodeId> able;
    for (NodeId peer : peers_) {
      if (!world_.alive(peer) || world_.scheduler().stalled(peer)) continue;
      const Peer::Look look = checkers_.LookOf(peer);
      if (!look.serving || Value(look.stage) != stage || look.era != trainer->swarm().era())
        continue;
      // One that is about to leave its stage, or to move, is none to rely on.
      const auto known = trainer->swarm().replicas().find(look.self);
      if (known == trainer->swarm().replicas().end() || known->second.member.draining) continue;
      if (look.version == trainer->version()) able.push_back(peer);
    }
    if (able.empty()) return {};
    core.push_back(able[fault_rng_.Below(able.size())]);
  }
  return core;
}

void SwarmWorld::KeepOnly(const std::vector<NodeId>& core) {
  core_only_ = true;
  world_.network().HealAll();
  world_.disk(trainer_).LiftBudget();
  for (NodeId peer : peers_) {
    world_.faults(peer).slowdown = 1;
    if (std::count(core.begin(), core.end(), peer) > 0) continue;
    world_.Retire(peer);
    if (!world_.alive(peer)) continue;
    const uint64_t how = fault_rng_.Below(4);
    if (how == 0) world_.Crash(peer);
    if (how == 1) world_.Crash(peer, {true, true, false});
    if (how == 2) world_.Stall(peer, kForGood);
    if (how < 3) continue;
    world_.trace().Line(world_.name(peer), Event("cut_off"));
    for (uint32_t other = 0; other < world_.node_count(); ++other) {
      world_.network().Partition(peer, NodeId{other}, /*silent=*/true);
      world_.network().Partition(NodeId{other}, peer, /*silent=*/true);
    }
  }
}

bool SwarmWorld::RunLiveness() {
  const auto over = [this] { return checkers_.finished(); };
  RunUntil(over, absl::Seconds(6) + Between(&fault_rng_, 0, 3000));
  std::vector<NodeId> core;
  if (!RunUntil([&] { return over() || !(core = FindCore()).empty(); }, kCoreLimit)) {
    world_.trace().Violation("I6: the faults are over, and some stage has nobody who serves");
    return false;
  }
  if (over()) return checkers_.ended_well();
  world_.trace().Line("world", Event("core_only"));
  KeepOnly(core);
  const size_t steps = checkers_.steps().size();
  if (RunUntil([&] { return over() || checkers_.steps().size() >= steps + kStepsOfCore; },
               kProgressLimit)) {
    return !over() || checkers_.ended_well();
  }
  world_.trace().Violation(absl::StrCat("I6: a healed core took ", checkers_.steps().size() - steps,
                                        " steps in ", absl::FormatDuration(kProgressLimit)));
  return false;
}

}  // namespace starling::sim
