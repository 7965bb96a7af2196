#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "tests/sim/planning/comparison.h"
#include "tests/sim/planning/peer_trace.h"
#include "tests/sim/planning/planning_swarm.h"
#include "tests/sim/planning/policies.h"

namespace starling {
namespace {

using ::testing::DoubleNear;

constexpr double kNever = 1e9;

PeerTrace TraceOf(std::vector<PeerLife> peers, double end_s) {
  PeerTrace trace;
  trace.peers = std::move(peers);
  trace.end_s = end_s;
  return trace;
}

PlanningOptions OptionsOf(std::vector<double> stage_costs, double download_s) {
  PlanningOptions options;
  options.stage_costs = std::move(stage_costs);
  options.download_s = download_s;
  return options;
}

// --- traces ---

TEST(PeerTraceTest, SameSeedGivesTheSameLivesAndAnotherSeedOthers) {
  const auto first_departure = [](uint64_t seed) {
    return DrawPeerTrace({}, seed).peers[0].departs_s;
  };
  EXPECT_EQ(first_departure(1), first_departure(1));
  EXPECT_NE(first_departure(1), first_departure(2));
}

TEST(PeerTraceTest, PopulationLifeAndBurstsAreAsAsked) {
  const PeerTraceOptions options;
  const PeerTrace trace = DrawPeerTrace(options, 1);
  double lived_s = 0;
  size_t departed = 0;
  std::map<double, size_t> together;
  for (const PeerLife& life : trace.peers) {
    ASSERT_LT(life.arrives_s, life.departs_s);
    lived_s += std::min(life.departs_s, trace.end_s) - life.arrives_s;
    if (life.departs_s >= trace.end_s) continue;
    ++departed;
    ++together[life.departs_s];
  }
  EXPECT_THAT(lived_s / trace.end_s, DoubleNear(400, 60));
  EXPECT_THAT(lived_s / static_cast<double>(departed), DoubleNear(options.mean_life_s, 3000));
  size_t in_bursts = 0;
  size_t largest = 0;
  for (const auto& [at_s, count] : together) {
    largest = std::max(largest, count);
    if (count > 1) in_bursts += count;
  }
  EXPECT_EQ(largest, options.max_burst);
  EXPECT_THAT(static_cast<double>(in_bursts) / static_cast<double>(departed),
              DoubleNear(options.burst_share, 0.06));
}

TEST(PeerTraceTest, InstantOptimumCountsWholePeersAndNewcomersDownloads) {
  // 5 peers, from 50 s on 4, a newcomer at 60 s: on 2 stages 2, and once more 2.
  const PeerTrace trace =
      TraceOf({{0, 50, 1}, {0, kNever, 1}, {0, kNever, 1}, {0, 20, 1}, {60, kNever, 1}}, 100);
  // 4 peers until 20 s, 3 until 50 s, 2 until 60 s, then 3: 2, 1, 1, 1.
  EXPECT_DOUBLE_EQ(InstantOptimum(trace, {1, 1}, 0), (20 * 2 + 80 * 1) / 100.0);
  const PeerTrace pair = TraceOf({{0, kNever, 1}, {50, kNever, 1}}, 100);
  EXPECT_DOUBLE_EQ(InstantOptimum(pair, {1, 1}, 0), 0.5);
  EXPECT_DOUBLE_EQ(InstantOptimum(pair, {1, 1}, 30), 0.2);
  // Unequal costs: as if peers could be divided.
  EXPECT_DOUBLE_EQ(InstantOptimum(pair, {1, 3}, 0), (50 * 0.25 + 50 * 0.5) / 100);
}

// --- one trace by hand ---

// 2 stages of 3 and 2, dealt as 0 2 4 and 1 3; one of the second stage departs at 1000 s.
PeerTrace OneDeparture() {
  return TraceOf({{0, kNever, 1}, {0, 1000, 1}, {0, kNever, 1}, {0, kNever, 1}, {0, kNever, 1}},
                 3600);
}

double Lost(PlanningPolicy&& policy) {
  const PlanningResult result = Simulate(OneDeparture(), OptionsOf({1, 1}, 30), &policy);
  return 2 * 3600 - result.throughput * 3600;
}

TEST(PlanningSwarmTest, StageThatLostOneStaysShortWithoutMoves) {
  EXPECT_NEAR(Lost(NoMovesPolicy()), 2600, 1e-6);
}

TEST(PlanningSwarmTest, StageThatLostOneIsShortForTheReactionAndTheDownload) {
  EXPECT_NEAR(Lost(StarlingPolicy(300, false)), 200 + 30, 1e-6);
  EXPECT_NEAR(Lost(StarlingPolicy(60, false)), 20 + 30, 1e-6);
  EXPECT_NEAR(Lost(StarlingPolicy(60, true)), 30, 1e-6);
  EXPECT_NEAR(Lost(SwarmPolicy(60, 1)), 20 + 30, 1e-6);
}

TEST(PlanningSwarmTest, ClairvoyantIsThereWhenTheOtherDeparts) {
  const PeerTrace trace = OneDeparture();
  EXPECT_NEAR(Lost(ClairvoyantPolicy(trace, 30)), 0, 1e-3);
}

TEST(PlanningSwarmTest, LimitWithoutForesightIsOneDownloadAfterADepartureThatMattered) {
  // Of 5 peers 2 stand in the stage that has none to spare.
  EXPECT_NEAR(2 * 3600 - 3600 * LimitWithoutForesight(OneDeparture(), 2, 30), 0.4 * 30, 1e-6);
}

TEST(PlanningSwarmTest, SwarmsRuleMovesTwoForOneCauseWhereDownloadsAreLong) {
  const PeerTrace trace = OneDeparture();
  SwarmPolicy swarm(60, 1);
  StarlingPolicy starling(60, false);
  const PlanningOptions options = OptionsOf({1, 1}, 150);
  EXPECT_GE(Simulate(trace, options, &swarm).moves, 2u);
  EXPECT_EQ(Simulate(trace, options, &starling).moves, 1u);
}

// --- the goals, on a part of the table of docs/benchmarks.md ---

void ExpectOrder(const Comparison& comparison) {
  const auto throughput = [&](Contender c) { return comparison.of(c).throughput; };
  const double best = throughput(Contender::kClairvoyant);
  EXPECT_LE(best, comparison.bound * (1 + 1e-9));
  EXPECT_LE(comparison.bound, comparison.instant * (1 + 1e-9));
  for (Contender contender : kContenders) EXPECT_LE(throughput(contender), best * (1 + 1e-9));
  EXPECT_GT(throughput(Contender::kStarling60), throughput(Contender::kSwarm60));
  EXPECT_GT(throughput(Contender::kStarling300), throughput(Contender::kSwarm300));
  EXPECT_GE(throughput(Contender::kStarling60), throughput(Contender::kNoMoves));
  EXPECT_GE(throughput(Contender::kStarling300), throughput(Contender::kNoMoves));
  EXPECT_GT(throughput(Contender::kStarlingAtDepartures), throughput(Contender::kStarling60));
  for (Contender contender :
       {Contender::kStarling300, Contender::kStarling60, Contender::kStarlingAtDepartures}) {
    EXPECT_EQ(comparison.of(contender).emptied, 0u);
  }
}

TEST(RebalancingGoalTest, EightStagesReachNinetyNinePercentOfTheClairvoyant) {
  for (uint64_t seed : {1, 2}) {
    SCOPED_TRACE(seed);
    const Comparison comparison = Compare(ManyPeers(8), seed);
    ExpectOrder(comparison);
    const double clairvoyant = comparison.of(Contender::kClairvoyant).throughput;
    EXPECT_GT(clairvoyant, 0.999 * comparison.bound);
    EXPECT_GT(comparison.of(Contender::kStarling60).throughput, 0.99 * clairvoyant);
  }
}

// Three peers per stage and long downloads: nobody without foresight comes near the clairvoyant,
// but the policy comes near that limit.
TEST(RebalancingGoalTest, ThirtyTwoThinStagesComeNearTheLimitWithoutForesight) {
  for (uint64_t seed : {1, 2}) {
    SCOPED_TRACE(seed);
    const Comparison comparison = Compare(FewPeers(32), seed);
    ExpectOrder(comparison);
    const double clairvoyant = comparison.of(Contender::kClairvoyant).throughput;
    EXPECT_GT(clairvoyant, 0.99 * comparison.bound);
    EXPECT_LT(comparison.without_foresight, 0.95 * clairvoyant);
    EXPECT_GT(comparison.of(Contender::kStarlingAtDepartures).throughput,
              0.98 * comparison.without_foresight);
  }
}

TEST(RebalancingGoalTest, UnequalSpeedsKeepTheOrder) {
  Cell cell = FewPeers(8);
  cell.trace.speed_range = 4;
  for (uint64_t seed : {1, 2}) {
    SCOPED_TRACE(seed);
    ExpectOrder(Compare(cell, seed));
  }
}

TEST(RebalancingGoalTest, LikeSwarmsExperimentMovesWinBackWhatRandomNewcomersLose) {
  const SwarmLike shares = CompareLikeSwarm(6 * 3600.0, 1);
  EXPECT_LT(shares.no_moves, 0.92);
  EXPECT_GT(shares.swarm_300, 0.95);
  EXPECT_GT(shares.starling_300, shares.swarm_300);
  EXPECT_GE(shares.starling_60, shares.swarm_60);
}

}  // namespace
}  // namespace starling
