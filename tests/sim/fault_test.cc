// One fault at one moment each: deaths at the end of a step and around checkpoints, links that
// lose, hold, refuse and repeat, a trainer that was stopped, full disks, garbage. Deaths while
// microbatches are under way, restarts of the trainer and joins have files of their own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>

#include "runtime/wire/wire.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using ::testing::Contains;

// The first time from now on that `from` sends a message of this kind (to `to`, if it is somebody),
// `then` happens, before anything else does.
void WhenSent(SwarmWorld& swarm, NodeId from, NodeId to, const std::string& kind,
              std::function<void()> then) {
  auto armed = std::make_shared<bool>(true);
  swarm.world().network().SetTap([&swarm, armed, from, to, kind, then](const PacketInfo& packet) {
    if (!*armed || packet.from != from || (to != kNobody && packet.to != to)) return;
    const auto message = DecodeMessage(packet.packet, WireLimits());
    if (!message.ok() || KindOf(*message) != kind) return;
    *armed = false;
    swarm.world().At(absl::ZeroDuration(), then);
  });
}

void CrashAndRestart(SwarmWorld& swarm, NodeId node) {
  swarm.world().Crash(node);
  swarm.world().Restart(node, absl::Milliseconds(300), true);
}

struct Moment {
  const char* name;
  bool sent_by_victim;  // else by the trainer to the victim
  const char* kind;
};

void PrintTo(const Moment& moment, std::ostream* out) { *out << moment.name; }

class EndOfStepTest : public ::testing::TestWithParam<Moment> {};

TEST_P(EndOfStepTest, ReplicaOfEachStageDiesThereAndTheStepIsStillOneMachines) {
  const Moment moment = GetParam();
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmWorld swarm(Calm());
    RunTo(swarm, 2);
    const NodeId victim = swarm.peer_node(stage, 1);
    const NodeId trainer = swarm.trainer_node();
    WhenSent(swarm, moment.sent_by_victim ? victim : trainer,
             moment.sent_by_victim ? kNobody : victim, moment.kind,
             [&] { CrashAndRestart(swarm, victim); });
    ExpectGoodEnd(swarm, absl::StrCat("stage ", stage));
    EXPECT_EQ(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.steps().size(), 6u) << swarm.Report();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Moments, EndOfStepTest,
    ::testing::Values(Moment{"AskedToSeal", false, "Seal"}, Moment{"Sealed", true, "Sealed"},
                      Moment{"InTheRoundBeforeSending", false, "Reduce"},
                      Moment{"InTheRoundAfterSendingItsFirstPiece", true, "Piece"},
                      Moment{"InTheRoundAfterSendingItsFirstResult", true, "Result"},
                      Moment{"InTheRoundWhenItIsDone", true, "Reduced"},
                      Moment{"BetweenDecisionAndApply", false, "Apply"},
                      Moment{"AfterApply", true, "Applied"}),
    [](const auto& info) { return info.param.name; });

TEST(FaultTest, ReplicaDiesBetweenDecisionAndApplyAndTheStepIsNotTakenAgain) {
  SwarmWorld swarm(Calm());
  RunTo(swarm, 2);
  const NodeId victim = swarm.peer_node(1, 1);
  WhenSent(swarm, swarm.trainer_node(), victim, "Apply", [&] { CrashAndRestart(swarm, victim); });
  RunTo(swarm, 3);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.steps()[2].replayed, 0u);
  for (size_t i = 0; i < swarm.steps().size(); ++i) {
    EXPECT_EQ(Value(swarm.steps()[i].step), i + 1);
  }
}

// --- checkpoints ---------------------------------------------------------------------------------

TEST(FaultTest, ReplicaDiesDonatingItsStateToACheckpointAndAnotherDonates) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmWorld swarm(Calm());
    RunTo(swarm, 1);
    for (uint32_t r : {0u, 1u}) {
      const NodeId donor = swarm.peer_node(stage, r);
      WhenSent(swarm, donor, swarm.trainer_node(), "Chunk",
               [&swarm, donor] { CrashAndRestart(swarm, donor); });
      RunTo(swarm, 2 + 2 * r);
    }
    ExpectGoodEnd(swarm, absl::StrCat("stage ", stage));
    EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
  }
}

TEST(FaultTest, PowerFailsAtEveryWriteOfACheckpointAndTheRunGoesOnFromTheOneBefore) {
  int cut = 0;
  for (uint64_t changes = 0; changes < 60; changes += 3) {
    SwarmOptions options = Calm(2, 1);
    options.checkpoint_every = 1;
    SwarmWorld swarm(options);
    RunTo(swarm, 2);
    SimDisk& disk = swarm.world().disk(swarm.trainer_node());
    disk.CutPowerAfter(changes);
    swarm.RunUntil([&] { return !disk.powered() || swarm.finished(); });
    if (swarm.finished()) continue;
    ++cut;
    swarm.world().Crash(swarm.trainer_node(), {false, true, changes % 2 == 0});
    swarm.world().Restart(swarm.trainer_node(), absl::Seconds(1));
    ExpectGoodEnd(swarm, absl::StrCat("after ", changes, " changes"));
    EXPECT_EQ(Value(swarm.steps().back().step), 6u) << swarm.Report();
  }
  EXPECT_GT(cut, 10);
}

TEST(FaultTest, LastReplicaDiesWhileACheckpointIsWrittenAndTheEraHoldsWhatItSays) {
  for (int at_ms = 0; at_ms < 200; at_ms += 10) {
    SwarmOptions options = Calm(3, 1);
    options.checkpoint_every = 1;
    options.world.disk_delay = absl::Milliseconds(400);  // the file thread is behind
    SwarmWorld swarm(options);
    RunTo(swarm, 3);
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      swarm.world().Crash(swarm.peer_node(1, 0));
      swarm.world().Restart(swarm.peer_node(1, 0), absl::Milliseconds(1), true);
    });
    ExpectGoodEnd(swarm, absl::StrCat(at_ms, " ms"));
  }
}

TEST(FaultTest, DiskIsFullAndTrainingGoesOnAndCheckpointsAreMadeAgainWhenItIsNot) {
  SwarmOptions options = Calm();
  options.steps = 12;
  options.checkpoint_every = 1;
  SwarmWorld swarm(options);
  RunTo(swarm, 2);
  SimDisk& disk = swarm.world().disk(swarm.trainer_node());
  disk.SetBudget(disk.used_bytes() + 500, "run/checkpoints");
  RunTo(swarm, 6);
  EXPECT_GE(swarm.checkers().count("checkpoint_failed"), 2u) << swarm.Report();
  const uint64_t saved = swarm.checkers().count("checkpoint_saved");
  disk.LiftBudget();
  ExpectGoodEnd(swarm);
  EXPECT_GE(swarm.checkers().count("checkpoint_saved"), saved + 4) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 1u);
}

// --- links ---------------------------------------------------------------------------------------

// Runs a world in which `disturb` does something to the link from one node to another, for every
// pair of nodes.
void ForEveryLink(const std::function<void(SwarmWorld&, NodeId from, NodeId to)>& disturb) {
  for (uint32_t from = 0; from < 5; ++from) {
    for (uint32_t to = 0; to < 5; ++to) {
      if (from == to) continue;
      SwarmOptions options = Calm(2, 2);
      options.world.seed = 10 * from + to + 1;
      SwarmWorld swarm(options);
      RunTo(swarm, 2);
      disturb(swarm, NodeId{from}, NodeId{to});
      ExpectGoodEnd(swarm, absl::StrCat("node ", from, " to node ", to));
      EXPECT_EQ(Value(swarm.steps().back().step), 6u);
    }
  }
}

void HealAfter(SwarmWorld& swarm, absl::Duration duration) {
  swarm.world().At(duration, [&swarm] { swarm.world().network().HealAll(); });
}

TEST(FaultTest, TwoNodesAreParted3SecondsThenHealAndTheRunGoesOn) {
  ForEveryLink([](SwarmWorld& swarm, NodeId from, NodeId to) {
    swarm.world().network().Partition(from, to);
    swarm.world().network().Partition(to, from);
    HealAfter(swarm, absl::Seconds(3));
  });
}

TEST(FaultTest, TwoNodesAreParted12SecondsThenHealAndTheRunGoesOn) {
  ForEveryLink([](SwarmWorld& swarm, NodeId from, NodeId to) {
    swarm.world().network().Partition(from, to);
    swarm.world().network().Partition(to, from);
    HealAfter(swarm, absl::Seconds(12));
  });
}

TEST(FaultTest, OneWayPartitionThatNobodyIsToldOfHealsAndTheRunGoesOn) {
  ForEveryLink([](SwarmWorld& swarm, NodeId from, NodeId to) {
    swarm.world().network().Partition(from, to, /*silent=*/true);
    HealAfter(swarm, absl::Seconds(12));
  });
}

TEST(FaultTest, LinkHoldsEverythingBackFor8SecondsAndDeliversItAtOnce) {
  ForEveryLink([](SwarmWorld& swarm, NodeId from, NodeId to) {
    swarm.world().network().Clog(from, to, absl::Seconds(8));
  });
}

TEST(FaultTest, LinkAcceptsNothingFor8SecondsAndTheRunGoesOn) {
  ForEveryLink([](SwarmWorld& swarm, NodeId from, NodeId to) {
    swarm.world().network().Jam(from, to, absl::Seconds(8));
  });
}

TEST(FaultTest, PacketsArriveTwiceAndNothingIsDoneTwice) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SwarmOptions options = Calm();
    options.world.seed = seed;
    options.world.network.duplicates = 0.2;
    SwarmWorld swarm(options);
    ExpectGoodEnd(swarm, absl::StrCat("seed ", seed));
    EXPECT_GT(swarm.world().network().counters().duplicated, 20u);
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u);
  }
}

// A LoadState of the era before arrives when the next era's has been answered: seed 20206 of the
// search.
TEST(FaultTest, LoadOfAnEarlierEraComesLateAndIsDropped) {
  for (uint64_t seed : {20206, 21393}) {
    SwarmWorld swarm(SwarmOptions::Drawn(seed));
    ExpectGoodEnd(swarm, absl::StrCat("seed ", seed));
  }
}

// --- the trainer, stopped ------------------------------------------------------------------------

TEST(FaultTest, TrainerIsStopped20SecondsAtEveryMomentOfAStepAndGoesOnWhereItWas) {
  for (int at_ms = 0; at_ms < 120; at_ms += 6) {
    SwarmWorld swarm(Calm());
    RunTo(swarm, 2);
    swarm.world().At(absl::Milliseconds(at_ms),
                     [&] { swarm.world().Stall(swarm.trainer_node(), absl::Seconds(20)); });
    ExpectGoodEnd(swarm, absl::StrCat(at_ms, " ms"));
    EXPECT_EQ(Value(swarm.steps().back().step), 6u);
  }
}

// --- garbage -------------------------------------------------------------------------------------

// Sends every node what is no message: noise, and the beginnings of real packets.
class Stranger : public Process, public TransportHandler {
 public:
  explicit Stranger(NodeContext& node) : node_(node) {
    node_.transport.SetHandler(this);
    Again();
  }
  void OnPacket(Packet packet) override {}
  void OnLinkLost(const Endpoint& peer) override {}

 private:
  void Again() {
    for (uint32_t to = 0; to + 1 < node_.world.node_count(); ++to) {
      std::string noise(1 + node_.env.Random() % 200, '\0');
      for (char& c : noise) c = static_cast<char>(node_.env.Random());
      Message hello;
      hello.body = Heartbeat();
      Packet packet = EncodeMessage(hello);
      const size_t keep = node_.env.Random() % packet.envelope.size_bytes();
      const bool real = node_.env.Random() % 2 == 0;
      packet.envelope =
          Blob::CopyOf(real ? static_cast<const void*>(packet.envelope.data())
                            : static_cast<const void*>(noise.data()),
                       DType::kU8, {static_cast<int64_t>(real ? keep : noise.size())});
      if (node_.env.Random() % 2 == 0) packet.frames.push_back(packet.envelope);
      node_.transport.Send(node_.world.address(NodeId{to}), Channel::kControl, std::move(packet))
          .IgnoreError();
    }
    node_.env.Schedule(absl::Milliseconds(5), [this] { Again(); });
  }

  NodeContext& node_;
};

TEST(FaultTest, StrangerSendsGarbageToEveryoneAndItIsRefusedAndCounted) {
  SwarmWorld swarm(Calm());
  swarm.world().AddNode({"stranger"},
                        [](NodeContext& node) { return std::make_unique<Stranger>(node); });
  ExpectGoodEnd(swarm);
  EXPECT_GT(swarm.checkers().count("message_refused"), 20u);
  EXPECT_EQ(swarm.steps().size(), 6u);
  for (const StepReport& step : swarm.steps()) EXPECT_EQ(step.retries, 0u);
}

}  // namespace
}  // namespace starling::sim
