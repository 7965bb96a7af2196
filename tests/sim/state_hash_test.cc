// Bits that flip in a replica's state: found by the hashes that replicas report, repaired, and
// never counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/sim/swarm_testing.h"

namespace starling::sim {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

SwarmOptions Options(uint32_t replicas, int64_t verify_every) {
  SwarmOptions options;
  options.replicas = replicas;
  options.verify_every = verify_every;
  return options;
}

// A bit flips once at a replica of stage 1: in a backward of step 3, or in the update after it.
void FlipOnce(SwarmWorld& swarm, bool in_update, bool* flipped) {
  swarm.world().faults(swarm.peer_node(1, 0)).mistake = [&swarm, in_update, flipped](
                                                            StageId, const WorkId& work) {
    const bool now =
        in_update ? work.id.step == Step{0} && swarm.steps().size() == 3 : work.id.step == Step{3};
    if (*flipped || !now) return Mistake::kNone;
    *flipped = true;
    return Mistake::kFlipState;
  };
}

TEST(StateHashTest, FlippedBitIsFoundAtTheSealAndTheStepIsTakenAgainWithoutIt) {
  SwarmWorld swarm(Options(2, 1));
  bool flipped = false;
  FlipOnce(swarm, /*in_update=*/false, &flipped);
  ExpectSixSteps(swarm);
  EXPECT_TRUE(flipped);
  EXPECT_EQ(swarm.checkers().count("state_differs"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("resumed"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.steps().back().replicas, (std::vector<uint32_t>{2, 2, 2}));
}

TEST(StateHashTest, FlippedBitOfTheOnlyReplicaSendsEveryoneToTheCheckpoint) {
  SwarmWorld swarm(Options(1, 1));
  bool flipped = false;
  FlipOnce(swarm, /*in_update=*/false, &flipped);
  ExpectSixSteps(swarm);
  EXPECT_TRUE(flipped);
  EXPECT_EQ(swarm.checkers().count("state_lost"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 2u) << swarm.Report();
}

TEST(StateHashTest, UpdateThatWentWrongIsOutvotedByTheSiblings) {
  SwarmWorld swarm(Options(3, 0));
  bool flipped = false;
  FlipOnce(swarm, /*in_update=*/true, &flipped);
  ExpectSixSteps(swarm);
  EXPECT_TRUE(flipped);
  EXPECT_EQ(swarm.checkers().count("state_differs"), 1u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 1u) << swarm.Report();
}

TEST(StateHashTest, OfTwoThatDifferAfterAnUpdateNeitherIsBelieved) {
  SwarmWorld swarm(Options(2, 0));
  bool flipped = false;
  FlipOnce(swarm, /*in_update=*/true, &flipped);
  ExpectSixSteps(swarm);
  EXPECT_TRUE(flipped);
  EXPECT_EQ(swarm.checkers().count("state_differs"), 2u) << swarm.Report();
  EXPECT_EQ(swarm.checkers().count("era_began"), 2u) << swarm.Report();
}

TEST(PlantedStateMistakeTest, FlippedBitThatNobodyLooksForIsFoundByTheCheckers) {
  SwarmWorld swarm(Options(2, 0));
  bool flipped = false;
  FlipOnce(swarm, /*in_update=*/false, &flipped);
  swarm.RunToEnd();
  EXPECT_TRUE(flipped);
  EXPECT_THAT(swarm.violations(), Not(IsEmpty())) << swarm.Report();
}

TEST(RoundReuseTest, AfterADeathInARoundPiecesThatArrivedDoNotTravelAgain) {
  int reused = 0;
  for (int at_ms = 0; at_ms < 30; ++at_ms) {
    SwarmWorld swarm(Options(3, 0));
    ASSERT_TRUE(swarm.RunUntil([&] {
      return swarm.steps().size() == 2 && swarm.trainer() != nullptr &&
             swarm.trainer()->StatusJson().find("\"phase\":\"reducing\"") != std::string::npos;
    }));
    swarm.world().At(absl::Milliseconds(at_ms), [&] {
      swarm.world().Crash(swarm.peer_node(1, 2));
      swarm.world().Restart(swarm.peer_node(1, 2), absl::Seconds(1), true);
    });
    ExpectSixSteps(swarm);
    if (swarm.Report().find("pieces_reused") != std::string::npos) ++reused;
  }
  EXPECT_GT(reused, 0);
}

}  // namespace
}  // namespace starling::sim
