#include "tests/sim/world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace starling::sim {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Counts what it hears from others, and greets them all every few milliseconds.
class Greeter : public Process, public TransportHandler {
 public:
  Greeter(NodeContext& node, std::vector<Endpoint> others)
      : node_(node), others_(std::move(others)) {
    node_.transport.SetHandler(this);
    Greet();
  }
  ~Greeter() override {
    // A process may use what it was given until its end.
    node_.env.Schedule(absl::ZeroDuration(), [] { FAIL() << "a timer of the dead"; });
    for (const Endpoint& other : others_) SendTo(other, "last words");
  }

  void OnPacket(Packet packet) override { heard.push_back(packet.envelope.ToStringBytes()); }
  void OnLinkLost(const Endpoint& peer) override { lost.push_back(peer.control); }

  std::vector<std::string> heard;
  std::vector<std::string> lost;

 private:
  void Greet() {
    for (const Endpoint& other : others_)
      SendTo(other, node_.name + std::to_string(node_.env.Random() % 100));
    node_.env.Schedule(absl::Milliseconds(5), [this] { Greet(); });
  }
  void SendTo(const Endpoint& other, const std::string& text) {
    node_.transport.Send(other, Channel::kControl, Packet{Blob::OfString(text), {}}).IgnoreError();
  }

  NodeContext& node_;
  const std::vector<Endpoint> others_;
};

class WorldTest : public ::testing::Test {
 protected:
  static NodeId AddGreeter(World* world, const std::string& name, std::vector<Endpoint> others) {
    return world->AddNode(
        {name}, [others](NodeContext& node) { return std::make_unique<Greeter>(node, others); });
  }
  static Greeter& At(World& world, NodeId id) { return *static_cast<Greeter*>(world.process(id)); }

  // Two greeters, with a crash and a stall on the way.
  static Hash128 RunOnce(uint64_t seed, std::string* text = nullptr) {
    World world(WorldOptions::Drawn(seed));
    const Endpoint a_address = SimNetwork::AddressOf(NodeId{0}, 20000);
    const Endpoint b_address = SimNetwork::AddressOf(NodeId{1}, 20000);
    AddGreeter(&world, "a", {b_address});
    const NodeId b = AddGreeter(&world, "b", {a_address});
    world.At(absl::Seconds(1) * world.rng().Unit(), [&world, b] {
      world.Crash(b);
      world.Restart(b, absl::Milliseconds(300));
    });
    world.At(absl::Seconds(2), [&world, b] { world.Stall(b, absl::Milliseconds(500)); });
    world.RunFor(absl::Seconds(4));
    if (text != nullptr) *text = world.Parameters() + "\n" + world.trace().Text();
    return world.trace().hash();
  }
};

TEST_F(WorldTest, TheSameSeedGivesTheSameTraceHashAndAnotherSeedAnother) {
  std::string first, second;
  const Hash128 hash = RunOnce(5, &first);
  EXPECT_EQ(hash, RunOnce(5, &second));
  EXPECT_EQ(first, second);
  EXPECT_NE(hash, RunOnce(6));
  EXPECT_THAT(first, HasSubstr("seed 5"));
  EXPECT_THAT(first, ContainsRegex("b +crashes"));
  EXPECT_THAT(first, ContainsRegex("b +starts .*life=2"));
}

TEST_F(WorldTest, ACrashedProcessIsGoneItsNeighbourHearsAndASuccessorAnswers) {
  World world(WorldOptions{});
  const Endpoint b_address = SimNetwork::AddressOf(NodeId{1}, 20000);
  const NodeId a = AddGreeter(&world, "a", {b_address});
  const NodeId b = AddGreeter(&world, "b", {});
  world.RunFor(absl::Seconds(1));
  EXPECT_EQ(world.address(b), b_address);
  EXPECT_GT(At(world, b).heard.size(), 100u);
  world.Crash(b);
  EXPECT_FALSE(world.alive(b));
  EXPECT_EQ(world.process(b), nullptr);
  world.RunFor(absl::Seconds(1));
  EXPECT_THAT(At(world, a).lost, ElementsAre(b_address.control));
  world.Restart(b, absl::Seconds(1));
  world.RunFor(absl::Seconds(3));
  ASSERT_TRUE(world.alive(b));
  EXPECT_EQ(world.life(b), 2u);
  EXPECT_GT(At(world, b).heard.size(), 100u);
  EXPECT_THAT(At(world, b).heard, ::testing::Not(::testing::Contains("last words")));
}

TEST_F(WorldTest, ARestartAtANewAddressIsNotReachedAtTheOldOne) {
  World world(WorldOptions{});
  const NodeId b = AddGreeter(&world, "b", {});
  world.RunFor(absl::Milliseconds(1));
  const Endpoint old = world.address(b);
  AddGreeter(&world, "a", {old});
  world.Crash(b);
  world.Restart(b, absl::ZeroDuration(), /*new_address=*/true);
  world.RunFor(absl::Seconds(2));
  EXPECT_NE(world.address(b), old);
  EXPECT_THAT(At(world, b).heard, IsEmpty());
}

TEST_F(WorldTest, AStalledProcessHearsEverythingAfterwards) {
  World world(WorldOptions{});
  const NodeId b = AddGreeter(&world, "b", {});
  world.RunFor(absl::Milliseconds(1));
  AddGreeter(&world, "a", {world.address(b)});
  world.RunFor(absl::Seconds(1));
  world.Stall(b, absl::Seconds(1));
  const size_t before = At(world, b).heard.size();
  world.RunFor(absl::Milliseconds(999));
  EXPECT_EQ(At(world, b).heard.size(), before);
  world.RunFor(absl::Milliseconds(10));
  EXPECT_GT(At(world, b).heard.size(), before + 150);
  EXPECT_THAT(At(world, b).lost, IsEmpty());
}

// Ends itself, or is killed, from inside its own callback.
class Suicide : public Process {
 public:
  Suicide(NodeContext& node, bool crash) {
    node.env.Schedule(absl::Milliseconds(1), [this, &node, crash] {
      if (crash) {
        node.world.Crash(node.id);
      } else {
        node.Exit(3);
      }
      node.env.Schedule(absl::ZeroDuration(), [] { FAIL() << "a timer of the dead"; });
      alive_after_ = true;  // still a live object
    });
  }

 private:
  bool alive_after_ = false;
};

TEST_F(WorldTest, AProcessMayEndItselfAndItsExitCodeIsSeen) {
  World world(WorldOptions{});
  int code = 0;
  NodeOptions options;
  options.name = "n";
  options.on_exit = [&](int exit_code) {
    code = exit_code;
    world.Restart(NodeId{0}, absl::Seconds(10));
  };
  const NodeId node = world.AddNode(
      options, [](NodeContext& context) { return std::make_unique<Suicide>(context, false); });
  world.RunFor(absl::Seconds(1));
  EXPECT_EQ(code, 3);
  EXPECT_FALSE(world.alive(node));
  world.RunFor(absl::Seconds(10));
  EXPECT_EQ(world.life(node), 2u);
}

TEST_F(WorldTest, AProcessMayBeKilledInItsOwnCallback) {
  World world(WorldOptions{});
  const NodeId node = world.AddNode(
      {"n"}, [](NodeContext& context) { return std::make_unique<Suicide>(context, true); });
  EXPECT_EQ(world.RunFor(absl::Seconds(1)), RunEnd::kIdle);
  EXPECT_FALSE(world.alive(node));
}

// Loads a state into its device when it starts, and counts the lines in its file.
class Worker : public Process {
 public:
  explicit Worker(NodeContext& node) {
    SimStage stage;
    stage.last = true;
    stage.layout = SimLayout(stage.stage, 1, 16);
    compute_ = node.MakeCompute(stage);
    compute_->Load(SimInitialState(stage.layout, 1),
                   [this](absl::StatusOr<Hash128> hash) { loaded = hash.ok(); });
    node.files.Run(
        [this](Disk& disk) {
          found = disk.Exists("/synced") ? *disk.Read("/synced") : "nothing";
          auto file = *disk.Create("/synced");
          file->Append("x", 1).IgnoreError();
          file->Sync().IgnoreError();
          disk.SyncDirectory("/").IgnoreError();
          return disk.Create("/not synced").status();
        },
        [this](absl::Status status) { written = status.ok(); });
  }

  bool loaded = false;
  bool written = false;
  std::string found;

 private:
  std::unique_ptr<Compute> compute_;
};

TEST_F(WorldTest, TheDiskOutlivesTheProcessAndForgetsWhatWasNotSynced) {
  World world(WorldOptions{});
  const NodeId node =
      world.AddNode({"n"}, [](NodeContext& context) { return std::make_unique<Worker>(context); });
  const auto worker = [&] { return static_cast<Worker*>(world.process(node)); };
  RunLimits limits;
  limits.until = [&] { return worker() != nullptr && worker()->loaded && worker()->written; };
  limits.deadline = world.start() + absl::Seconds(10);
  ASSERT_EQ(world.Run(limits), RunEnd::kConditionHolds);
  EXPECT_EQ(worker()->found, "nothing");
  EXPECT_TRUE(world.disk(node).Exists("/not synced"));
  world.Crash(node);
  EXPECT_FALSE(world.disk(node).Exists("/not synced"));
  world.Restart(node, absl::ZeroDuration());
  ASSERT_EQ(world.Run(limits), RunEnd::kConditionHolds);
  EXPECT_EQ(worker()->found, "x");
  EXPECT_EQ(world.journal().states().size(), 2u);
  EXPECT_EQ(world.journal().states()[0].hash, world.journal().states()[1].hash);
}

TEST_F(WorldTest, ACheckerRunsAfterEveryEvent) {
  World world(WorldOptions{});
  AddGreeter(&world, "a", {});
  uint64_t checks = 0;
  world.AfterEveryEvent([&](NodeId) { ++checks; });
  world.RunFor(absl::Seconds(1));
  EXPECT_EQ(checks, world.scheduler().events_run());
  EXPECT_GT(checks, 100u);
}

}  // namespace
}  // namespace starling::sim
