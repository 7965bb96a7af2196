// Joining, leaving and moving in the virtual world: one scenario each, named by what happens and
// what comes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

SwarmOptions Lasting(uint32_t replicas = 2, int64_t steps = 8) {
  SwarmOptions options = Calm(3, replicas);
  options.steps = steps;
  return options;
}

bool RunToStep(SwarmWorld& swarm, size_t steps) {
  return swarm.RunUntil([&] { return swarm.steps().size() >= steps; });
}

uint32_t ReplayedIn(const SwarmWorld& swarm) {
  uint32_t replayed = 0;
  for (const StepReport& step : swarm.steps()) replayed += step.replayed + step.retries;
  return replayed;
}

// --- leaving ---------------------------------------------------------------------------

TEST(DrainTest, ReplicaOfEachStageLeavesAtEveryMomentAndNothingIsReplayed) {
  for (int at_ms = 0; at_ms < 120; at_ms += 5) {
    for (uint32_t stage : {0u, 1u, 2u}) {
      SwarmWorld swarm(Lasting());
      ASSERT_TRUE(RunToStep(swarm, 1));
      swarm.world().At(absl::Milliseconds(at_ms),
                       [&] { swarm.DrainPeer(swarm.peer_node(stage, 1)); });
      ExpectGoodEnd(swarm);
      EXPECT_EQ(swarm.checkers().count("peer_left"), 1u) << swarm.Report();
      EXPECT_EQ(swarm.checkers().count("peer_lost"), 0u) << swarm.Report();
      EXPECT_EQ(ReplayedIn(swarm), 0u) << swarm.Report();
      EXPECT_EQ(swarm.steps().back().replicas[stage], 1u);
      EXPECT_FALSE(swarm.world().alive(swarm.peer_node(stage, 1)));
      ASSERT_FALSE(HasFailure()) << at_ms << " ms, stage " << stage << "\n" << swarm.Report();
    }
  }
}

TEST(DrainTest, LastReplicaOfAStageServesUntilAnotherOneJoins) {
  SwarmOptions options = Lasting(1, 30);
  SwarmWorld swarm(options);
  ASSERT_TRUE(RunToStep(swarm, 2));
  swarm.DrainPeer(swarm.peer_node(1, 0));
  ASSERT_TRUE(RunToStep(swarm, 6));
  EXPECT_EQ(swarm.checkers().count("drain_waits"), 1u) << swarm.Report();
  EXPECT_TRUE(swarm.world().alive(swarm.peer_node(1, 0)));
  swarm.AddPeer(1);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_left") == 1; }))
      << swarm.Report();
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("state_lost"), 0u) << swarm.Report();
  EXPECT_EQ(ReplayedIn(swarm), 0u) << swarm.Report();
}

TEST(DrainTest, BothReplicasOfAStageAreToLeaveAndOneOfThemStays) {
  SwarmWorld swarm(Lasting(2, 10));
  ASSERT_TRUE(RunToStep(swarm, 2));
  swarm.DrainPeer(swarm.peer_node(1, 0));
  swarm.DrainPeer(swarm.peer_node(1, 1));
  ASSERT_TRUE(RunToStep(swarm, 6));
  EXPECT_EQ(swarm.checkers().count("peer_left"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 1, 2}));
  ExpectGoodEnd(swarm);
  EXPECT_EQ(ReplayedIn(swarm), 0u) << swarm.Report();
}

TEST(DrainTest, ReplicaThatDiesWhileItDrainsIsFencedAndItsWorkReplayed) {
  for (int at_ms = 0; at_ms < 100; at_ms += 5) {
    SwarmWorld swarm(Lasting());
    ASSERT_TRUE(RunToStep(swarm, 1));
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      swarm.DrainPeer(swarm.peer_node(1, 1));
      swarm.world().At(absl::Milliseconds(7), [&] { swarm.world().Crash(swarm.peer_node(1, 1)); });
    });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.checkers().count("peer_lost") + swarm.checkers().count("peer_left"), 1u)
        << swarm.Report();
  }
}

TEST(DrainTest, SiblingOfADrainingReplicaDiesAndTheLastOneStays) {
  for (int at_ms = 0; at_ms < 100; at_ms += 5) {
    SwarmWorld swarm(Lasting(2, 12));
    ASSERT_TRUE(RunToStep(swarm, 1));
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      swarm.DrainPeer(swarm.peer_node(1, 1));
      swarm.world().Crash(swarm.peer_node(1, 0));
      swarm.world().Restart(swarm.peer_node(1, 0), absl::Milliseconds(300), true);
    });
    ExpectGoodEnd(swarm);
  }
}

TEST(DrainTest, PeerThatStillJoinsLeavesAtOnce) {
  SwarmWorld swarm(Lasting(2, 12));
  ASSERT_TRUE(RunToStep(swarm, 1));
  const NodeId newcomer = swarm.AddPeer(1);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_arrived") == 7; }));
  swarm.DrainPeer(newcomer);
  ExpectGoodEnd(swarm);
  EXPECT_FALSE(swarm.world().alive(newcomer));
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 2, 2}));
}

TEST(DrainTest, DrainUnderLossOfMessagesStillEndsWell) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SwarmOptions options = Lasting(2, 20);
    options.world.seed = seed;
    options.world.network.loss = 0.03;
    SwarmWorld swarm(options);
    ASSERT_TRUE(RunToStep(swarm, 2));
    swarm.DrainPeer(swarm.peer_node(seed % 3, 1));
    ExpectGoodEnd(swarm);
    EXPECT_FALSE(swarm.world().alive(swarm.peer_node(seed % 3, 1))) << swarm.Report();
  }
}

TEST(LeaveOrderTest, OneOfAStageLeavesAndARepeatedOrderIsObeyedOnce) {
  SwarmOptions options = Lasting(3, 10);
  options.world.network.loss = 0.03;
  SwarmWorld swarm(options);
  ASSERT_TRUE(RunToStep(swarm, 2));
  Order order;
  order.stage = StageId{1};
  swarm.GiveOrder(order);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_left") > 0; }))
      << swarm.Report();
  ExpectGoodEnd(swarm);
  ASSERT_THAT(swarm.order_answers(), SizeIs(1)) << swarm.Report();
  EXPECT_THAT(swarm.order_answers()[0].text, HasSubstr("leaves stage 1 at the next decision"));
  EXPECT_EQ(swarm.checkers().count("peer_left"), 1u) << swarm.Report();
}

TEST(LeaveOrderTest, UnknownReplicaIsRefusedInWords) {
  SwarmWorld swarm(Lasting());
  ASSERT_TRUE(RunToStep(swarm, 1));
  Order order;
  order.replica = "7.7";
  swarm.GiveOrder(order);
  ExpectGoodEnd(swarm);
  ASSERT_THAT(swarm.order_answers(), SizeIs(1));
  EXPECT_EQ(swarm.order_answers()[0].code, absl::StatusCode::kNotFound);
  EXPECT_THAT(swarm.order_answers()[0].text, HasSubstr("no replica or peer 7.7"));
}

TEST(PauseTest, NoStepBeginsUntilTheRunIsReleased) {
  SwarmWorld swarm(Lasting());
  ASSERT_TRUE(RunToStep(swarm, 2));
  Order order;
  order.kind = OrderKind::kPause;
  swarm.GiveOrder(order);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("paused") == 1; }));
  const size_t steps = swarm.steps().size();
  swarm.world().RunFor(absl::Minutes(2));
  EXPECT_EQ(swarm.steps().size(), steps) << swarm.Report();
  EXPECT_THAT(swarm.trainer()->StatusJson(), HasSubstr("\"state\":\"paused\""));
  // Members may come and go meanwhile.
  swarm.DrainPeer(swarm.peer_node(2, 1));
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_left") == 1; }))
      << swarm.Report();
  swarm.AddPeer(0);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_joined") == 7; }))
      << swarm.Report();
  order.kind = OrderKind::kUnpause;
  swarm.GiveOrder(order);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{3, 2, 1}));
  EXPECT_EQ(ReplayedIn(swarm), 0u);
}

// --- joining ---------------------------------------------------------------------------

SwarmOptions LongRun(int64_t steps) {
  SwarmOptions options = Lasting(2, steps);
  options.checkpoint_every = 0;
  options.eval_every = 0;
  return options;
}

// A newcomer for a stage to which no state gets through before `until` from now.
NodeId AddSlowPeer(SwarmWorld& swarm, uint32_t stage, absl::Duration until) {
  const NodeId newcomer = swarm.AddPeer(stage);
  const absl::Time through = swarm.world().Now() + until;
  swarm.world().network().SetFilter([&swarm, newcomer, through](const PacketInfo& packet) {
    PacketFate fate;
    const absl::Time now = swarm.world().Now();
    if (packet.to == newcomer && packet.channel == Channel::kBulk && now < through) {
      fate.extra_delay = through - now;
    }
    return fate;
  });
  return newcomer;
}

double MeanStepSeconds(const SwarmWorld& swarm, size_t begin, size_t end) {
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += swarm.steps()[i].step_s;
  return sum / static_cast<double>(end - begin);
}

TEST(JoinTest, StepsGoOnAtTheirPaceWhileANewcomerIsSlowToLoad) {
  SwarmWorld swarm(LongRun(80));
  ASSERT_TRUE(RunToStep(swarm, 20)) << swarm.Report();
  const size_t began = swarm.steps().size();
  AddSlowPeer(swarm, 1, absl::Seconds(3));
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_joined") == 7; }))
      << swarm.Report();
  const size_t joined = swarm.steps().size();
  EXPECT_GE(joined - began, 20u) << "it should have taken many steps";
  EXPECT_LT(MeanStepSeconds(swarm, began, joined), MeanStepSeconds(swarm, 5, began) / 0.9);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 3, 2}));
  EXPECT_EQ(ReplayedIn(swarm), 0u);
}

TEST(JoinTest, DonorDiesWhileItGivesAndAnotherOneGoesOn) {
  for (int at_ms = 0; at_ms < 1200; at_ms += 60) {
    SwarmWorld swarm(LongRun(80));
    ASSERT_TRUE(RunToStep(swarm, 5));
    AddSlowPeer(swarm, 1, absl::Seconds(1));
    swarm.world().At(absl::Milliseconds(at_ms),
                     [&] { swarm.world().Crash(swarm.peer_node(1, 0)); });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 2, 2})) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
  }
}

TEST(JoinTest, AllDonorsDieAndTheRunReturnsToTheCheckpointWithTheNewcomer) {
  for (int at_ms = 0; at_ms < 900; at_ms += 90) {
    SwarmOptions options = LongRun(30);
    options.checkpoint_every = 2;
    SwarmWorld swarm(options);
    ASSERT_TRUE(RunToStep(swarm, 5));
    AddSlowPeer(swarm, 1, absl::Seconds(1));
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      swarm.world().Crash(swarm.peer_node(1, 0));
      swarm.world().Crash(swarm.peer_node(1, 1));
    });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.steps().back().replicas[1], 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("state_lost"), 1u) << swarm.Report();
  }
}

TEST(JoinTest, NewcomerDiesAtEveryMomentAndNoStepNotices) {
  for (int at_ms = 0; at_ms < 1500; at_ms += 60) {
    SwarmWorld swarm(LongRun(40));
    ASSERT_TRUE(RunToStep(swarm, 5));
    const NodeId newcomer = AddSlowPeer(swarm, 1, absl::Seconds(1));
    swarm.world().At(absl::Milliseconds(at_ms), [&] { swarm.world().Crash(newcomer); });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
  }
}

TEST(JoinTest, NewcomerThatCannotKeepUpIsToldSoAndHoldsNobodyUp) {
  SwarmWorld swarm(LongRun(120));
  ASSERT_TRUE(RunToStep(swarm, 20)) << swarm.Report();
  const NodeId newcomer = swarm.AddPeer(1);
  swarm.world().network().SetFilter([&, newcomer](const PacketInfo& packet) {
    PacketFate fate;
    const bool donor = packet.from == swarm.peer_node(1, 0) || packet.from == swarm.peer_node(1, 1);
    if (donor && packet.to == newcomer) fate.extra_delay = absl::Milliseconds(200);
    return fate;
  });
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.finished(); })) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("joiner_falls_behind"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("peer_joined"), 6u) << swarm.Report();
  EXPECT_LT(MeanStepSeconds(swarm, 20, 120), MeanStepSeconds(swarm, 5, 20) / 0.9);
  EXPECT_THAT(swarm.violations(), IsEmpty()) << swarm.Report();
}

TEST(JoinTest, CheckpointOverASlowLinkHoldsNoStepUp) {
  SwarmOptions options = LongRun(60);
  options.checkpoint_every = 20;
  SwarmWorld swarm(options);
  ASSERT_TRUE(RunToStep(swarm, 19));
  swarm.world().network().SetFilter([&](const PacketInfo& packet) {
    PacketFate fate;
    if (packet.to == swarm.trainer_node() && packet.channel == Channel::kBulk) {
      fate.extra_delay = absl::Seconds(1);
    }
    return fate;
  });
  ExpectGoodEnd(swarm);
  EXPECT_LT(MeanStepSeconds(swarm, 20, 39), MeanStepSeconds(swarm, 5, 19) / 0.9) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u) << swarm.Report();
}

// --- moving ----------------------------------------------------------------------------

TEST(MoveTest, ReplicasOfThreeOneTwoAreBalancedByOneMoveAndThenStay) {
  SwarmOptions options = Lasting(1, 260);
  options.microbatches = 12;
  options.checkpoint_every = 0;
  options.eval_every = 0;
  options.rebalance = absl::Seconds(2);
  SwarmWorld swarm(options);
  swarm.AddPeer(0);
  swarm.AddPeer(0);
  swarm.AddPeer(2);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("peer_joined") == 6; }))
      << swarm.Report();
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("moved") == 1; }))
      << swarm.Report();
  const size_t before = swarm.steps().size();
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 2, 2})) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("moved"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 0u) << swarm.Report();
  EXPECT_EQ(ReplayedIn(swarm), 0u);
  EXPECT_LT(MeanStepSeconds(swarm, swarm.steps().size() - 20, swarm.steps().size()),
            0.8 * MeanStepSeconds(swarm, before - 5, before))
      << swarm.Report();
}

TEST(MoveTest, MoverDiesAtEveryMomentAndNothingIsLost) {
  for (int at_ms = 0; at_ms < 400; at_ms += 20) {
    SwarmOptions options = Lasting(1, 60);
    options.rebalance = absl::Seconds(1);
    SwarmWorld swarm(options);
    const std::vector<NodeId> extra = {swarm.AddPeer(0), swarm.AddPeer(0)};
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.checkers().count("draining") > 0; }))
        << swarm.Report();
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      swarm.world().Crash(extra[0]);
      swarm.world().Restart(extra[0], absl::Milliseconds(200), true);
    });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.checkers().count("state_lost"), 0u) << swarm.Report();
  }
}

TEST(LostStageTest, NobodyComesForItAndAReplicaOfAnotherStageTakesItOver) {
  SwarmOptions options = Lasting(2, 20);
  options.rebalance = absl::Seconds(2);
  SwarmWorld swarm(options);
  ASSERT_TRUE(RunToStep(swarm, 5));
  swarm.world().Crash(swarm.peer_node(1, 0));
  swarm.world().Crash(swarm.peer_node(1, 1));
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("moved"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("state_lost"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.steps().back().replicas[1], 1u);
}

TEST(LostStageTest, NobodyComesForItFromTheStartAndAJoinerOfAnotherStageGoesThere) {
  SwarmOptions options = Lasting(2, 6);
  options.rebalance = absl::Seconds(2);
  SwarmWorld swarm(options);
  swarm.world().At(absl::Milliseconds(5), [&] {
    swarm.world().Crash(swarm.peer_node(1, 0));
    swarm.world().Crash(swarm.peer_node(1, 1));
  });
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("joiner_moved"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.steps().back().replicas[1], 1u);
}

TEST(LostStageTest, ItsLastReplicaIsSilentForGoodAndTheOneThatWaitsForItsStateTakesOver) {
  SwarmWorld swarm(Lasting(1, 20));
  ASSERT_TRUE(RunToStep(swarm, 5));
  swarm.world().Stall(swarm.peer_node(1, 0), absl::Hours(100));
  swarm.AddPeer(1);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("state_lost"), 1u) << swarm.Report();
}

}  // namespace
}  // namespace starling::sim
