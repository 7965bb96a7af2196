// The whole protocol in the virtual world: named scenarios, a search over seeds, planted mistakes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>

#include "tests/sim/search.h"
#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;

TEST(SwarmTest, NothingFailsAndEveryStepIsDecidedOnce) {
  for (uint32_t stages : {1u, 2u, 3u, 5u}) {
    for (uint32_t replicas : {1u, 2u, 3u}) {
      SwarmWorld swarm(Calm(stages, replicas));
      ExpectGoodEnd(swarm);
      ASSERT_EQ(swarm.steps().size(), 6u);
      for (const StepReport& step : swarm.steps()) {
        EXPECT_EQ(step.retries, 0u);
        EXPECT_EQ(step.replicas, std::vector<uint32_t>(stages, replicas));
      }
      EXPECT_EQ(swarm.checkers().count("peer_joined"), stages * replicas);
      EXPECT_EQ(swarm.checkers().count("checkpoint_saved"), 3u);
    }
  }
}

TEST(SwarmTest, LossyCodecsCountEverythingOnceAndLeaveOneHashPerState) {
  for (uint32_t replicas : {1u, 2u, 3u}) {
    SwarmOptions options = Calm(3, replicas);
    options.lossy = true;
    SwarmWorld swarm(options);
    ExpectGoodEnd(swarm);
    ASSERT_EQ(swarm.steps().size(), 6u);
    for (const StepReport& step : swarm.steps()) {
      // Two boundaries of 128 elements for each of 8 microbatches, in int8.
      EXPECT_EQ(step.bytes_forward, 8u * 2 * 132);
      EXPECT_EQ(step.bytes_backward, 8u * 2 * 132);
    }
  }
}

TEST(SwarmTest, SameSeedGivesTheSameTrace) {
  const auto run = [](uint64_t seed) {
    SwarmOptions options = SwarmOptions::Drawn(seed);
    options.faults = 3;
    SwarmWorld swarm(options);
    swarm.RunToEnd();
    return swarm.world().trace().hash();
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST(SwarmTest, ReplicaOfEachStageDiesInMidStepAndItsWorkIsReplayed) {
  for (uint32_t stage : {0u, 1u, 2u}) {
    SwarmWorld swarm(Calm());
    ASSERT_TRUE(swarm.RunUntil(
        [&] { return swarm.trainer() != nullptr && Value(swarm.trainer()->version()) == 2; }));
    swarm.world().At(absl::Milliseconds(30),
                     [&] { swarm.world().Crash(swarm.peer_node(stage, 0)); });
    swarm.world().Restart(swarm.peer_node(stage, 0), absl::Seconds(1), true);
    ExpectGoodEnd(swarm);
    EXPECT_EQ(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("replayed"), 1u) << swarm.Report();
    EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
  }
}

TEST(SwarmTest, ReplicaDiesAtEveryMomentOfAStepAndTheStepIsStillOneMachines) {
  // A step takes about 100 ms here; a crash at each millisecond meets every phase.
  for (int at_ms = 0; at_ms < 160; at_ms += 1) {
    for (uint32_t stage : {0u, 1u, 2u}) {
      SwarmOptions options = Calm();
      options.steps = 4;
      options.eval_every = 2;
      SwarmWorld swarm(options);
      ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 1; }));
      swarm.world().At(absl::Milliseconds(at_ms), [&] {
        swarm.world().Crash(swarm.peer_node(stage, 1));
        swarm.world().Restart(swarm.peer_node(stage, 1), absl::Milliseconds(100), true);
      });
      const bool ended = swarm.RunToEnd();
      ASSERT_TRUE(ended) << at_ms << " ms, stage " << stage << "\n" << swarm.Report();
      ASSERT_THAT(swarm.violations(), IsEmpty()) << swarm.Report();
    }
  }
}

TEST(SwarmTest, TwoReplicasOfNeighbouringStagesDieAtOnce) {
  for (int at_ms = 0; at_ms < 120; at_ms += 7) {
    SwarmWorld swarm(Calm());
    ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 1; }));
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      for (uint32_t stage : {1u, 2u}) {
        swarm.world().Crash(swarm.peer_node(stage, 0));
        swarm.world().Restart(swarm.peer_node(stage, 0), absl::Milliseconds(200), true);
      }
    });
    ExpectGoodEnd(swarm);
  }
}

TEST(SwarmTest, LastReplicaOfAStageDiesAndEveryoneReturnsToTheCheckpoint) {
  SwarmWorld swarm(Calm(3, 1));
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 3; }));
  swarm.world().Crash(swarm.peer_node(1, 0));
  swarm.world().Restart(swarm.peer_node(1, 0), absl::Seconds(1), true);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("state_lost"), 1u);
  EXPECT_EQ(swarm.checkers().count("era_began"), 2u);
  EXPECT_EQ(Value(swarm.steps().back().step), 6u);
}

TEST(SwarmTest, ReplicaStallsBeyondTheDeadlineAndComesBackAsAnother) {
  SwarmWorld swarm(Calm());
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 2; }));
  swarm.world().Stall(swarm.peer_node(1, 0), absl::Seconds(20));
  swarm.world().At(absl::Seconds(21), [] {});
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.checkers().count("peer_lost"), 1u) << swarm.Report();
}

TEST(SwarmTest, NewReplicaJoinsWhileTheSwarmTrains) {
  SwarmOptions options = Calm();
  options.steps = 20;
  SwarmWorld swarm(options);
  ASSERT_TRUE(swarm.RunUntil([&] { return swarm.steps().size() == 2; }));
  swarm.AddPeer(1);
  ExpectGoodEnd(swarm);
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 3, 2}));
}

// It hears from the trainer, but for the state.
TEST(SwarmTest, PeerWhoseLoadsKeepFailingDoesNotHoldUpTheStartOfTheOthers) {
  SwarmWorld swarm(Calm());
  const NodeId unlucky = swarm.peer_node(1, 1);
  swarm.world().network().SetFilter([&swarm, unlucky](const PacketInfo& packet) {
    PacketFate fate;
    fate.drop = packet.channel == Channel::kBulk && packet.from == swarm.trainer_node() &&
                packet.to == unlucky;
    return fate;
  });
  ASSERT_TRUE(swarm.RunUntil([&] { return !swarm.steps().empty(); }, absl::Minutes(2)))
      << swarm.Report();
  EXPECT_GE(swarm.checkers().count("load_failed"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.steps().front().replicas, (std::vector<uint32_t>{2, 1, 2}));
  ExpectGoodEnd(swarm);
}

TEST(SwarmTest, EverythingIsKilledAndTheResumedRunTakesTheSameSteps) {
  for (int at_ms = 300; at_ms < 1500; at_ms += 50) {
    SwarmOptions options = Calm();
    options.world.seed = static_cast<uint64_t>(at_ms);
    SwarmWorld swarm(options);
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      for (uint32_t i = 0; i < 6; ++i) swarm.world().Crash(swarm.peer_node(i / 2, i % 2));
      swarm.world().Crash(swarm.trainer_node());
      swarm.world().Restart(swarm.trainer_node(), absl::Seconds(1));
      for (uint32_t i = 0; i < 6; ++i) {
        swarm.world().Restart(swarm.peer_node(i / 2, i % 2), absl::Seconds(1), true);
      }
    });
    ExpectGoodEnd(swarm);
    EXPECT_EQ(Value(swarm.steps().back().step), 6u);
  }
}

TEST(SwarmTest, RequestsAndRepliesAreLostAndEveryStepIsDecidedOnce) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SwarmOptions options = Calm();
    options.world.seed = seed;
    options.world.network.loss = 0.03;
    SwarmWorld swarm(options);
    ExpectGoodEnd(swarm);
  }
}

// One planted mistake of one replica, once. The checkers must see it.
void ExpectMistakeIsFound(Mistake mistake) {
  SwarmWorld swarm(Calm());
  bool planted = false;
  swarm.world().faults(swarm.peer_node(1, 0)).mistake = [&](StageId, const WorkId& work) {
    if (planted || work.id.step != Step{3}) return Mistake::kNone;
    planted = true;
    return mistake;
  };
  swarm.RunToEnd();
  EXPECT_TRUE(planted);
  EXPECT_THAT(swarm.violations(), Not(IsEmpty())) << swarm.Report();
}

TEST(PlantedMistakeTest, MicrobatchCountedTwiceIsFound) {
  ExpectMistakeIsFound(Mistake::kCountTwice);
}
TEST(PlantedMistakeTest, MicrobatchNeverCountedIsFound) {
  ExpectMistakeIsFound(Mistake::kCountNever);
}
TEST(PlantedMistakeTest, MicrobatchCountedAgainAfterTheSealIsFound) {
  ExpectMistakeIsFound(Mistake::kCountAgainAfterSeal);
}

// Worlds in which the search has found something: each a bug that was mended.
TEST(SwarmSearchTest, WorldsThatOnceWentWrongEndWell) {
  for (uint64_t seed : {45, 197, 339, 832, 2297, 6735, 7592, 9472, 20633, 20909, 402460}) {
    SwarmWorld swarm(SwarmOptions::DrawnSimple(seed));
    EXPECT_TRUE(swarm.RunToEnd(absl::Minutes(30))) << "seed " << seed << "\n" << swarm.Report();
    EXPECT_THAT(swarm.violations(), IsEmpty()) << "seed " << seed << "\n" << swarm.Report();
  }
}

TEST(SwarmSearchTest, WorldsWithMoreFaultsThatOnceWentWrongEndWell) {
  for (uint64_t seed : {5567, 403913, 700086}) {
    SwarmWorld swarm(SwarmOptions::Drawn(seed));
    EXPECT_TRUE(swarm.RunToEnd(absl::Minutes(30))) << "seed " << seed << "\n" << swarm.Report();
    EXPECT_THAT(swarm.violations(), IsEmpty()) << "seed " << seed << "\n" << swarm.Report();
  }
}

// STARLING_SIM_SEEDS=FIRST:COUNT searches elsewhere and longer (docs/testing.md).
std::pair<uint64_t, uint64_t> SeedsToSearch(uint64_t count) {
  uint64_t first = 1;
  if (const char* range = std::getenv("STARLING_SIM_SEEDS")) {
    char* rest = nullptr;
    first = std::strtoull(range, &rest, 10);
    if (rest != nullptr && *rest == ':') count = std::strtoull(rest + 1, nullptr, 10);
  }
  return {first, count};
}

void ExpectGoodSeeds(WorldChoice choice, uint64_t default_count) {
  const auto [first, count] = SeedsToSearch(default_count);
  for (choice.seed = first; choice.seed < first + count; ++choice.seed) {
    const SeedResult result = RunSeed(choice);
    if (result.ok()) continue;
    std::string trace;
    RunSeed(choice, TraceDetail::kShort, [&](const std::string& line) { trace += line + "\n"; });
    FAIL() << "seed " << choice.seed << (choice.liveness ? ", liveness" : "") << "\n"
           << trace << testing::PrintToString(result.violations);
  }
}

TEST(SwarmSearchTest, DrawnWorldsEndWellAndWithoutViolation) { ExpectGoodSeeds({}, 400); }

TEST(SwarmSearchTest, DrawnWorldsWithLossyCodecsEndWellAndWithoutViolation) {
  WorldChoice choice;
  choice.lossy = true;
  ExpectGoodSeeds(choice, 100);
}

TEST(SwarmSearchTest, DrawnCoresGoOnWhenAllOthersAreGoneForGood) {
  WorldChoice choice;
  choice.liveness = true;
  ExpectGoodSeeds(choice, 100);
}

}  // namespace
}  // namespace starling::sim
