#include "tests/sim/world.h"

#include <cstdio>
#include <utility>

#include "absl/time/time.h"
#include "runtime/base/check.h"
#include "runtime/base/ids.h"

namespace starling::sim {
namespace {

constexpr uint64_t kNodeSeed = 0x6e6f6465;
constexpr uint64_t kDeviceSeed = 0x64657669;
constexpr uint32_t kFirstPort = 20000;

}  // namespace

WorldOptions WorldOptions::Drawn(uint64_t seed) {
  Rng rng(MixAll(seed, 0x647261776eULL));
  WorldOptions options;
  options.seed = seed;
  options.network.delay_max = absl::Microseconds(200 + rng.Below(20000));
  options.network.jitter = absl::Microseconds(rng.Below(5000));
  options.network.loss = rng.Chance(0.5) ? 0.02 * rng.Unit() : 0;
  options.network.bandwidth = rng.Chance(0.5) ? 1e5 + 1e7 * rng.Unit() : 0;
  options.network.link_lost_max = absl::Milliseconds(2 + rng.Below(200));
  options.slowness_max = 1 + 3 * rng.Unit();
  options.speed.jitter = 0.4 * rng.Unit();
  options.disk_delay = absl::Microseconds(100 + rng.Below(20000));
  return options;
}

std::string WorldOptions::ToString() const {
  char text[256];
  std::snprintf(text, sizeof(text),
                "seed %llu: delay %.1f-%.1f ms + %.1f, loss %.4f, twice %.4f, %.0f bytes/s, link "
                "lost %.0f-%.0f "
                "ms, slowness up to %.2f, device jitter %.2f, disk %.1f ms",
                static_cast<unsigned long long>(seed),  // NOLINT: what %llu takes
                absl::ToDoubleMilliseconds(network.delay_min),
                absl::ToDoubleMilliseconds(network.delay_max),
                absl::ToDoubleMilliseconds(network.jitter), network.loss, network.duplicates,
                network.bandwidth, absl::ToDoubleMilliseconds(network.link_lost_min),
                absl::ToDoubleMilliseconds(network.link_lost_max), slowness_max, speed.jitter,
                absl::ToDoubleMilliseconds(disk_delay));
  return text;
}

std::unique_ptr<Compute> NodeContext::MakeCompute(SimStage stage) {
  return world.MakeCompute(id, std::move(stage));
}

void NodeContext::Trace(const Event& event) { world.trace().Line(name, event); }

void NodeContext::Exit(int code) { world.ExitNode(id, code); }

World::Life::Life(World* world, NodeId id, uint32_t number, SimDisk* disk, const Endpoint& address,
                  const std::string& name, uint64_t seed)
    : env(&world->scheduler_, id, MixAll(seed, 1)),
      transport(world->network_.Attach(id, address)),
      files(&world->scheduler_, id, disk, world->options_.disk_delay, MixAll(seed, 2)),
      context{id, number, name, env, *transport, files, *disk, *world} {}

World::World(WorldOptions options)
    : options_(options),
      start_(scheduler_.Now()),
      trace_(&scheduler_),
      rng_(MixAll(options.seed, 0x776f726c64ULL)),
      network_(&scheduler_, &trace_, options.network, MixAll(options.seed, 0x6e6574ULL)) {
  AfterEveryEvent(nullptr);
}

World::~World() {
  // Else each node would look for its own among those of all.
  scheduler_.DropAll();
  network_.CutAll();
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const NodeId id = static_cast<NodeId>(i);
    if (NodeOf(id).life != nullptr) Bury(id, CrashOptions{true, false, false});
  }
}

NodeId World::AddNode(NodeOptions options, ProcessFactory factory) {
  const NodeId id = static_cast<NodeId>(nodes_.size());
  nodes_.emplace_back();
  Node& node = nodes_.back();
  node.slowness =
      options.slowness > 0
          ? options.slowness
          : 1 + (options_.slowness_max - 1) * ToUnit(MixAll(options_.seed, kNodeSeed, Value(id)));
  node.port = kFirstPort;
  trace_.Name(id, options.name);
  const std::string disk =
      options.disk.empty() ? "of node " + std::to_string(Value(id)) : options.disk;
  std::unique_ptr<SimDisk>& slot = disks_[disk];
  if (slot == nullptr) slot = std::make_unique<SimDisk>();
  node.disk = slot.get();
  node.faults = std::make_unique<ComputeFaults>();
  node.factory = std::move(factory);
  const bool start = options.start;
  node.options = std::move(options);
  if (start) Restart(id, absl::ZeroDuration());
  return id;
}

void World::Start(NodeId id) {
  Node& node = NodeOf(id);
  if (node.life != nullptr || node.retired) return;
  ++node.lives;
  trace_.Line(node.options.name, Event("starts").With("life", node.lives));
  node.life =
      std::make_unique<Life>(this, id, node.lives, node.disk, address(id), node.options.name,
                             MixAll(options_.seed, kNodeSeed, Value(id), node.lives));
  Life* life = node.life.get();
  std::unique_ptr<Process> process = node.factory(life->context);
  life->process = std::move(process);
}

void World::Restart(NodeId id, absl::Duration delay, bool new_address) {
  scheduler_.After(delay, kNobody, EventKind::kWorld, "start", [this, id, new_address] {
    Node& node = NodeOf(id);
    if (node.life != nullptr) return;
    if (new_address) ++node.port;
    Start(id);
  });
}

void World::Bury(NodeId id, CrashOptions options) {
  Node& node = NodeOf(id);
  std::unique_ptr<Life> life = std::move(node.life);
  life->dying = true;
  life->env.Stop();
  life->files.Stop();
  life->transport->Close(options.silent);
  scheduler_.DropNode(id);
  life->process = nullptr;
  scheduler_.DropNode(id);  // what the destructors left
  if (options.forget_unsynced) {
    node.disk->Crash(options.torn ? &rng_ : nullptr);
  } else {
    node.disk->CloseHandles();
  }
}

void World::EndSoon(NodeId id, bool silent, std::function<void()> end) {
  Life* life = NodeOf(id).life.get();
  if (life == nullptr || life->dying) return;
  if (scheduler_.running() != id && life->process != nullptr) {
    end();
    return;
  }
  // Inside one of its own callbacks, or its factory: nothing it still does has an effect.
  life->dying = true;
  life->env.Stop();
  life->files.Stop();
  life->transport->Close(silent);
  scheduler_.After(absl::ZeroDuration(), kNobody, EventKind::kWorld, "end", std::move(end));
}

void World::Crash(NodeId id, CrashOptions options) {
  EndSoon(id, options.silent, [this, id, options] {
    trace_.Line(name(id), Event(options.silent ? "vanishes" : "crashes"));
    Bury(id, options);
  });
}

void World::ExitNode(NodeId id, int code) {
  EndSoon(id, /*silent=*/false, [this, id, code] {
    trace_.Line(name(id), Event("exits").With("code", code));
    Bury(id, CrashOptions{false, false, false});
    if (NodeOf(id).options.on_exit) NodeOf(id).options.on_exit(code);
  });
}

void World::Stall(NodeId id, absl::Duration duration) {
  if (!alive(id)) return;
  trace_.Line(name(id), Event("stalls").With("for", absl::FormatDuration(duration)));
  scheduler_.Stall(id, duration);
}

bool World::alive(NodeId id) const {
  const Life* life = NodeOf(id).life.get();
  return life != nullptr && !life->dying;
}

uint32_t World::life(NodeId id) const { return NodeOf(id).lives; }

const std::string& World::name(NodeId id) const { return NodeOf(id).options.name; }

Process* World::process(NodeId id) { return alive(id) ? NodeOf(id).life->process.get() : nullptr; }

Endpoint World::address(NodeId id) const { return SimNetwork::AddressOf(id, NodeOf(id).port); }

double World::slowness(NodeId id) const { return NodeOf(id).slowness; }

SimDisk& World::disk(NodeId id) { return *NodeOf(id).disk; }

ComputeFaults& World::faults(NodeId id) { return *NodeOf(id).faults; }

std::unique_ptr<Compute> World::MakeCompute(NodeId id, SimStage stage) {
  Node& node = NodeOf(id);
  STARLING_CHECK(node.life != nullptr);
  const uint32_t number = node.life->executors++;
  const ReplicaName replica{id, node.lives, number, stage.stage};
  journal_.Replaced(replica);
  auto executor = std::make_unique<SimExecutor>(std::move(stage), replica, &scheduler_, &journal_,
                                                &trace_, node.faults.get());
  SimSpeed speed = options_.speed;
  speed.slowness *= node.slowness;
  return std::make_unique<SimCompute>(
      &scheduler_, id, std::move(executor), speed,
      MixAll(options_.seed, kDeviceSeed, Value(id), node.lives, number), node.faults.get());
}

void World::At(absl::Duration delay, std::function<void()> happening) {
  scheduler_.After(delay, kNobody, EventKind::kWorld, "happening", std::move(happening));
}

RunEnd World::RunFor(absl::Duration duration) {
  RunLimits limits;
  limits.deadline = Now() + duration;
  return Run(limits);
}

void World::AfterEveryEvent(std::function<void(NodeId)> check) {
  scheduler_.SetObservers([this](const EventInfo& event) { trace_.Event(event); },
                          std::move(check));
}

std::string World::Parameters() const {
  std::string text = options_.ToString();
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const NodeId id = static_cast<NodeId>(i);
    char line[160];
    std::snprintf(line, sizeof(line), "\n  node %zu %s at %s, slowness %.2f, life %u", i,
                  name(id).c_str(), address(id).control.c_str(), slowness(id), life(id));
    text += line;
  }
  return text;
}

}  // namespace starling::sim
