#include "tests/sim/swarm_world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_store.h"
#include "runtime/config/run_file.h"
#include "runtime/membership/outbox.h"
#include "runtime/trainer/decision_log.h"
#include "runtime/trainer/epoch_store.h"
#include "runtime/wire/wire.h"
#include "sync/plan.h"
#include "tests/sim/shared_disk.h"

namespace starling::sim {
namespace {

constexpr char kRunDirectory[] = "run";
constexpr int64_t kTokens = 4;  // per sequence, one sequence per microbatch
constexpr int64_t kWidth = 8;
constexpr int64_t kTiedElements = 23;
constexpr int64_t kLossyWidth = 32;  // room for a signal that survives codecs
constexpr RunId kRun{77};

// Of a run; a storm of messages is a failure too. A round takes messages between all members of a
// stage.
uint64_t EventLimit(const SwarmOptions& options) {
  const uint64_t peers = uint64_t{options.stages} * options.replicas;
  const uint64_t round = peers * options.replicas;
  return 2'000'000 + 1000 * peers + 20 * round * static_cast<uint64_t>(options.steps);
}

// Tokens are a pure function of (step, index).
class SimFeed : public DataFeed {
 public:
  SimFeed(uint32_t train, uint32_t evaluate) : train_(train), evaluate_(evaluate) {}

  MicrobatchData Train(Step step, uint32_t index) const override {
    return Make(Value(step) * 1000 + index, index);
  }
  MicrobatchData Evaluate(uint32_t index) const override { return Make(1u << 30 | index, index); }
  uint32_t train_microbatches() const override { return train_; }
  uint32_t evaluate_microbatches() const override { return evaluate_; }

 private:
  static MicrobatchData Make(uint64_t key, uint32_t index) {
    MutableBlob tokens = MutableBlob::Uninitialized(DType::kI32, {1, kTokens});
    MutableBlob targets = MutableBlob::Uninitialized(DType::kI32, {1, kTokens});
    for (int64_t i = 0; i < kTokens; ++i) {
      tokens.As<int32_t>()[i] = static_cast<int32_t>(MixAll(key, i) % 256);
      targets.As<int32_t>()[i] = static_cast<int32_t>(MixAll(key, i + 1) % 256);
    }
    return {std::move(tokens).Freeze(), std::move(targets).Freeze(), index, absl::OkStatus()};
  }
  const uint32_t train_;
  const uint32_t evaluate_;
};

RunConfig ConfigOf(const SwarmOptions& options) {
  RunConfig config;
  config.model.layers = options.stages;
  config.model.width = options.lossy ? kLossyWidth : kWidth;
  config.model.heads = 1;
  config.model.context = kTokens;
  config.data.text = {"virtual"};
  config.train.steps = options.steps;
  config.train.global_batch = options.microbatches;
  config.train.microbatch = 1;
  config.train.eval_every = options.eval_every;
  config.train.eval_sequences = 3;
  config.optimizer.warmup = 1;
  config.model.tie_embeddings = options.tied;
  config.swarm.stages = options.stages;
  config.swarm.dead_after = options.dead_after;
  config.swarm.log_budget = options.log_budget;
  config.swarm.window = options.window;
  config.swarm.slots = options.slots;
  config.swarm.verify_every = options.verify_every;
  config.swarm.rebalance = options.rebalance;
  config.local.replicas = {options.replicas};
  config.checkpoint.every = options.checkpoint_every;
  config.train.delayed_commit = options.delayed;
  if (options.shared_store) config.checkpoint.store = StoreKind::kShared;
  if (options.lossy) {
    config.codec.forward = config.codec.backward = Encoding::kInt8;
    config.codec.rounding = Rounding::kStochastic;
    config.codec.round = Encoding::kBF16;
  }
  return config;
}

std::vector<SimStage> StagesOf(const SwarmOptions& options) {
  std::vector<SimStage> stages;
  for (uint32_t s = 0; s < options.stages; ++s) {
    SimStage stage;
    stage.stage = StageId{s};
    stage.last = s + 1 == options.stages;
    stage.width = options.lossy ? kLossyWidth : kWidth;
    const bool shares = options.tied && options.stages > 1 && (s == 0 || stage.last);
    stage.layout = shares ? SimTiedLayout(stage.stage, 2, 20 + 7 * s, kTiedElements, s == 0)
                          : SimLayout(stage.stage, 2, 20 + 7 * s);
    stages.push_back(std::move(stage));
  }
  return stages;
}

}  // namespace

SwarmOptions SwarmOptions::DrawnSimple(uint64_t seed) {
  Rng rng(MixAll(seed, 0x737761726dULL));
  SwarmOptions options;
  options.world = WorldOptions::Drawn(seed);
  options.stages = 1 + static_cast<uint32_t>(rng.Below(4));
  options.replicas = 1 + static_cast<uint32_t>(rng.Below(3));
  options.microbatches = 1 + static_cast<uint32_t>(rng.Below(10));
  options.steps = 3 + static_cast<int64_t>(rng.Below(5));
  options.eval_every = static_cast<int64_t>(rng.Below(3));
  options.checkpoint_every = 1 + static_cast<int64_t>(rng.Below(4));
  options.faults = static_cast<uint32_t>(rng.Below(6));
  options.kill_everything = rng.Chance(0.2);
  options.verify_every = static_cast<int64_t>(rng.Below(3));
  if (rng.Chance(0.4)) options.trainer_restarts = 1 + static_cast<uint32_t>(rng.Below(3));
  Rng logs(MixAll(seed, 0x6c6f6773ULL));  // none, a few boundaries, everything
  if (logs.Chance(0.4)) options.log_budget = static_cast<int64_t>(logs.Below(2) * logs.Below(1500));
  Rng membership(MixAll(seed, 0x6d656d62ULL));
  options.leaves = static_cast<uint32_t>(membership.Below(4));
  options.joins = static_cast<uint32_t>(membership.Below(3));
  if (membership.Chance(0.5)) {
    options.rebalance = absl::Milliseconds(200 + membership.Below(2000));
  }
  return options;
}

SwarmOptions SwarmOptions::Drawn(uint64_t seed, const FaultSet& allowed) {
  SwarmOptions options = DrawnSimple(seed);
  Rng rng(MixAll(seed, 0x6d6f7265ULL));
  if (!allowed.Has(FaultKind::kLoss)) options.world.network.loss = 0;
  const double duplicates = rng.Chance(0.3) ? 0.03 * rng.Unit() : 0;
  if (allowed.Has(FaultKind::kDuplicates)) options.world.network.duplicates = duplicates;
  if (!allowed.Has(FaultKind::kEverything)) options.kill_everything = false;
  if (!allowed.Has(FaultKind::kCrash) || !allowed.Has(FaultKind::kStall)) options.faults = 0;
  std::vector<FaultKind> kinds;
  for (FaultKind kind : allowed.Kinds()) {
    if (kind < FaultKind::kEverything) kinds.push_back(kind);
  }
  const uint64_t count = rng.Chance(0.7) ? rng.Below(5) : 0;
  for (uint64_t i = 0; i < count && !kinds.empty(); ++i) {
    options.more_faults.push_back(kinds[rng.Below(kinds.size())]);
  }
  Rng store(MixAll(seed, 0x73746f7265ULL));
  options.shared_store = store.Chance(0.25);
  if (options.shared_store && allowed.Has(FaultKind::kCrash)) {
    options.writer_deaths = static_cast<uint32_t>(store.Below(4));
  }
  Rng ties(MixAll(seed, 0x74696564ULL));
  options.tied = ties.Chance(0.25);
  options.delayed = Rng(MixAll(seed, 0x64656c6179ULL)).Chance(0.25);
  options.lossy = Rng(MixAll(seed, 0x6c6f737379ULL)).Chance(0.25);
  return options;
}

std::string SwarmOptions::ToString() const {
  std::string text = absl::StrCat(
      stages, " stages x ", replicas, ", ", microbatches, " microbatches, ", steps,
      " steps, evaluation every ", eval_every, ", checkpoint every ", checkpoint_every, ", ",
      faults, " crashes and stalls, ", leaves, " leaves, ", joins, " joins, rebalance ",
      absl::FormatDuration(rebalance), kill_everything ? ", everything killed once" : "");
  if (log_budget < (1 << 20)) absl::StrAppend(&text, ", logs of ", log_budget, " bytes");
  if (trainer_restarts > 0) absl::StrAppend(&text, ", trainer restarts ", trainer_restarts);
  for (FaultKind kind : more_faults) absl::StrAppend(&text, ", ", sim::ToString(kind));
  if (shared_store) absl::StrAppend(&text, ", shared store, ", writer_deaths, " writers die");
  if (tied) absl::StrAppend(&text, ", tied");
  if (liveness) absl::StrAppend(&text, ", then only a core left");
  if (lossy) absl::StrAppend(&text, ", lossy codecs");
  if (delayed) absl::StrAppend(&text, ", delayed commit");
  return text;
}

// --- processes -------------------------------------------------------------------------

class SwarmWorld::TrainerProcess : public Process {
 public:
  TrainerProcess(Trainer::Options options, NodeContext& node, const DataFeed* feed,
                 TrainerObserver* observer)
      : trainer_(std::move(options), &node.env, &node.transport, &node.files, feed, observer) {
    trainer_.Start();
  }
  Trainer& trainer() { return trainer_; }

 private:
  Trainer trainer_;
};

class SwarmWorld::PeerProcess : public Process {
 public:
  // `disk`: what it writes checkpoints to.
  PeerProcess(Peer::Options options, NodeContext& node, SimDisk* disk, std::vector<SimStage> stages,
              SwarmCheckers* checkers)
      : disk_(disk),
        files_(&node.world.scheduler(), node.id, &disk_, node.world.options().disk_delay,
               MixAll(Value(options.id), 0x66696c6573ULL)),
        peer_(
            WithFiles(std::move(options), stages), &node.env, &node.transport,
            [&node, stages](const RunConfig&,
                            StageId stage) -> absl::StatusOr<std::unique_ptr<Compute>> {
              return node.MakeCompute(stages[Value(stage)]);
            },
            [&node, checkers](const Event& event) {
              node.Trace(event);
              if (event.name == "admitted") {
                checkers->OnAdmitted(std::get<std::string>(event.fields[0].second), node.id,
                                     node.life);
              }
            },
            [&node](absl::Status status, const std::string& reason) {
              node.Trace(Event("done").With("reason", reason));
              node.Exit(status.ok() ? 0 : 1);
            }) {
    peer_.Start();
  }
  ~PeerProcess() override { files_.Stop(); }
  Peer& peer() { return peer_; }
  SharedDisk& disk() { return disk_; }

 private:
  Peer::Options WithFiles(Peer::Options options, std::vector<SimStage> stages) {
    options.files = &files_;
    options.layout_of = [stages = std::move(stages)](const RunConfig&, StageId stage) {
      return stages[Value(stage)].layout;
    };
    return options;
  }

  SharedDisk disk_;
  SimFiles files_;
  Peer peer_;
};

// A command: asks once, repeats until it is answered.
class SwarmWorld::OrderProcess : public Process, private TransportHandler {
 public:
  OrderProcess(NodeContext& node, const Endpoint& trainer, Order order, std::vector<Ack>* answers)
      : outbox_(&node.env, &node.transport, Outbox::Options()) {
    node.transport.SetHandler(this);
    order.reply_address = node.transport.address();
    Message message;
    message.body = std::move(order);
    outbox_.Send(trainer, Incarnation{}, std::move(message), [answers](const Message& reply) {
      if (const auto* ack = std::get_if<Ack>(&reply.body)) answers->push_back(*ack);
    });
  }

 private:
  void OnPacket(Packet packet) override {
    const absl::StatusOr<Message> message = DecodeMessage(std::move(packet), WireLimits());
    if (message.ok() && message->reply_to != 0) outbox_.OnReply(*message);
  }
  void OnLinkLost(const Endpoint& peer) override {}

  Outbox outbox_;
};

std::unique_ptr<Process> SwarmWorld::MakeTrainer(NodeContext& node) {
  SimDisk& disk = node.disk;
  const std::string log = absl::StrCat(kRunDirectory, "/decisions.jsonl");
  CheckpointStore store(absl::StrCat(kRunDirectory, "/checkpoints"));
  std::vector<StageLayout> layouts;
  for (const SimStage& stage : stages_) layouts.push_back(stage.layout);
  if (!disk.Exists(log)) {
    STARLING_CHECK(disk.MakeDirectories(kRunDirectory).ok());
    STARLING_CHECK(disk.MakeDirectories(absl::StrCat(kRunDirectory, "/checkpoints")).ok());
    STARLING_CHECK(CreateDecisionLog(disk, log, kRun).ok());
    STARLING_CHECK(disk.SyncDirectory(kRunDirectory).ok());
    STARLING_CHECK(disk.SyncDirectory("").ok());
    std::vector<StagePart> parts;
    for (const SimStage& stage : stages_) {
      parts.push_back({stage.layout, SimInitialState(stage.layout, 1)});
    }
    CheckpointMeta meta;
    meta.run = kRun;
    meta.config_toml = ToToml(config_);
    meta.text_sha256 = std::string(64, '0');
    const absl::Status saved = store.Save(disk, meta, parts);
    STARLING_CHECK_MSG(saved.ok(), saved.ToString());
  }
  auto state = ReadDecisionLog(disk, log);
  STARLING_CHECK_MSG(state.ok(), state.status().ToString());
  checkers_.OnTrainerStart(state->newest);
  if (options_.forget_newest_decision && state->newest) {
    state->newest->step = Step{Value(state->newest->step) - 1};
  }
  const auto newest = store.Newest(disk);
  STARLING_CHECK_MSG(newest.ok(), newest.status().ToString());
  const auto manifest = LoadManifest(disk, *newest);
  STARLING_CHECK_MSG(manifest.ok(), manifest.status().ToString());

  Trainer::Options options;
  options.config = config_;
  options.config_toml = ToToml(config_);
  options.run_directory = kRunDirectory;
  options.run = kRun;
  FileEpochStore epochs(&disk, absl::StrCat(kRunDirectory, "/epoch"));
  const auto epoch = TakeNextEpoch(&epochs, state->epoch);
  STARLING_CHECK_MSG(epoch.ok(), epoch.status().ToString());
  options.epoch = *epoch;
  options.era = Next(state->era);
  options.last_record = state->last_number;
  options.start = *newest;
  options.start_meta = manifest->meta;
  options.layouts = layouts;
  if (state->newest) {
    options.live = LiveState();
    options.live->newest = *state->newest;
    options.live->members = state->members;
    for (const Step& step : state->skipped) {
      if (VersionAfter(step) > newest->version) ++options.live->skipped;
    }
  }
  options.expected.assign(options_.stages, options_.replicas);
  options.gather_patience = absl::Seconds(5);
  return std::make_unique<TrainerProcess>(std::move(options), node, feed_.get(), &checkers_);
}

SwarmWorld::SwarmWorld(SwarmOptions options)
    : options_(options),
      config_(ConfigOf(options_)),
      stages_(StagesOf(options_)),
      feed_(std::make_unique<SimFeed>(options_.microbatches, 3)),
      world_(options_.world),
      checkers_(&world_, stages_, feed_.get()),
      fault_rng_(MixAll(options_.world.seed, 0x6661756c74ULL)) {
  world_.AfterEveryEvent([this](NodeId node) { CheckAfter(node); });
  trainer_ = world_.AddNode({"trainer"}, [this](NodeContext& node) { return MakeTrainer(node); });
  Coding round;
  round.encoding = config_.codec.round;
  round.scale_exponent = MeanExponent(config_.train.global_batch * config_.model.context);
  checkers_.SetRoundCoding(round);
  checkers_.SetDisk(&world_.disk(trainer_));
  if (options_.delayed) checkers_.AllowDelayed();
  for (uint32_t s = 0; s < options_.stages; ++s) {
    for (uint32_t r = 0; r < options_.replicas; ++r) AddPeer(s);
  }
  DrawFaults();
  DrawMembership();
  DrawWriterDeaths();
}

SwarmWorld::~SwarmWorld() = default;

NodeId SwarmWorld::AddPeer(uint32_t stage) {
  NodeOptions node;
  node.name = absl::StrCat("peer", peers_.size(), "/stage", stage);
  auto id = std::make_shared<NodeId>(kNobody);
  node.on_exit = [this, id](int) {
    if (!checkers_.finished() && drained_.count(*id) == 0)
      world_.Restart(*id, options_.restart_after, true);
  };
  *id = world_.AddNode(std::move(node), [this, stage](NodeContext& context) {
    Peer::Options peer;
    peer.id = PeerId{context.env.Random()};
    peer.trainer = world_.address(trainer_);
    peer.stage = StageId{stage};
    peer.host = context.name;
    const bool strays = options_.stray != SwarmOptions::Stray::kNone && stage == 0;
    auto process = std::make_unique<PeerProcess>(std::move(peer), context,
                                                 strays ? &context.disk : &world_.disk(trainer_),
                                                 stages_, &checkers_);
    if (options_.stray == SwarmOptions::Stray::kOwnDiskWithSameFolders && strays) {
      process->disk().HasEveryFolder();
    }
    return process;
  });
  peers_.push_back(*id);
  return *id;
}

void SwarmWorld::DrainPeer(NodeId peer, bool comes_back) {
  auto* process = static_cast<PeerProcess*>(world_.process(peer));
  if (process == nullptr) return;
  if (!comes_back) drained_.insert(peer);
  TraceLine line;
  line.what = "SIGTERM";
  world_.trace().Line(world_.name(peer), line);
  process->peer().Drain("asked to leave");
}

void SwarmWorld::KillAsItWrites(NodeId peer, uint64_t changes) {
  auto* process = static_cast<PeerProcess*>(world_.process(peer));
  if (process == nullptr) return;
  process->disk().DieAfter(changes, [this, peer] {
    if (core_only_) return;
    world_.Crash(peer, {false, false, false});
    world_.Restart(peer, options_.restart_after, true);
  });
}

void SwarmWorld::DrawWriterDeaths() {
  Rng rng(MixAll(options_.world.seed, 0x777269746572ULL));
  for (uint32_t i = 0; i < options_.writer_deaths; ++i) {
    const NodeId peer = peers_[rng.Below(peers_.size())];
    const uint64_t changes = rng.Below(40);
    world_.At(absl::Milliseconds(rng.Below(4000)), [this, peer, changes] {
      if (!checkers_.finished() && !core_only_) KillAsItWrites(peer, changes);
    });
  }
}

void SwarmWorld::GiveOrder(Order order) {
  NodeOptions node;
  node.name = absl::StrCat("order", world_.node_count());
  world_.AddNode(std::move(node), [this, order](NodeContext& context) {
    return std::make_unique<OrderProcess>(context, world_.address(trainer_), order,
                                          &order_answers_);
  });
}

NodeId SwarmWorld::peer_node(uint32_t stage, uint32_t replica) const {
  return peers_[stage * options_.replicas + replica];
}

Trainer* SwarmWorld::trainer() {
  auto* process = static_cast<TrainerProcess*>(world_.process(trainer_));
  return process == nullptr ? nullptr : &process->trainer();
}

void SwarmWorld::CheckAfter(NodeId node) {
  checkers_.CheckStates();
  if (node == kNobody) return;
  Process* const process = world_.process(node);
  if (process == nullptr) return;
  if (node == trainer_)
    return checkers_.CheckTrainer(static_cast<TrainerProcess*>(process)->trainer());
  if (!std::binary_search(peers_.begin(), peers_.end(), node)) return;  // a test's own
  checkers_.CheckPeer(node, world_.life(node), static_cast<PeerProcess*>(process)->peer());
}

void SwarmWorld::RestartTrainer(absl::Duration delay, CrashOptions crash) {
  if (checkers_.finished() || !world_.alive(trainer_)) return;
  world_.Crash(trainer_, crash);
  world_.Restart(trainer_, delay);
}

void SwarmWorld::DrawMembership() {
  Rng rng(MixAll(options_.world.seed, 0x6a6f696eULL));
  for (uint32_t i = 0; i < options_.leaves; ++i) {
    const NodeId peer = peers_[rng.Below(peers_.size())];
    world_.At(absl::Milliseconds(rng.Below(4000)), [this, peer] { DrainPeer(peer, true); });
  }
  for (uint32_t i = 0; i < options_.joins; ++i) {
    const auto stage = static_cast<uint32_t>(rng.Below(options_.stages));
    world_.At(absl::Milliseconds(rng.Below(4000)), [this, stage] {
      if (!checkers_.finished()) AddPeer(stage);
    });
  }
}

bool SwarmWorld::RunUntil(const std::function<bool()>& condition, absl::Duration limit) {
  RunLimits limits;
  limits.until = condition;
  limits.deadline = world_.Now() + limit;
  limits.max_events = EventLimit(options_);  // a storm of messages is a failure too
  return world_.Run(limits) == RunEnd::kConditionHolds;
}

bool SwarmWorld::RunToEnd(absl::Duration limit) {
  if (!RunUntil([this] { return checkers_.finished(); }, limit)) {
    world_.trace().Violation("I6: the run does not come to its end");
    return false;
  }
  CheckpointStore store(absl::StrCat(kRunDirectory, "/checkpoints"));
  SimDisk& disk = world_.disk(trainer_);
  const auto newest = store.Newest(disk);
  if (!newest.ok()) {
    world_.trace().Violation(absl::StrCat("I7: ", newest.status().ToString()));
  } else if (const auto report = Verify(disk, *newest); !report.ok() || !report->ok()) {
    world_.trace().Violation(absl::StrCat("I7: ", newest->path, " does not verify"));
  }
  return checkers_.ended_well();
}

std::string SwarmWorld::Parameters() const {
  return options_.ToString() + "\n" + world_.Parameters();
}

std::string SwarmWorld::Report() {
  std::string text = Parameters() + "\n" + world_.trace().Text();
  if (trainer() != nullptr) text += "\nstatus: " + trainer()->StatusJson();
  for (const std::string& violation : violations()) text += "\nVIOLATION " + violation;
  return text;
}

void SwarmWorld::SetTraceSink(std::function<void(const std::string&)> sink, bool all) {
  world_.trace().SetSink(std::move(sink), all);
  if (!all) return;
  world_.network().SetTap([this](const PacketInfo& packet) {
    const auto message = DecodeMessage(packet.packet, WireLimits());
    TraceLine line{"sends", {}, {}, "to " + world_.name(packet.to) + ": "};
    line.detail += message.ok() ? KindOf(*message) : message.status().ToString();
    world_.trace().Note(world_.name(packet.from), line);
  });
}

}  // namespace starling::sim
