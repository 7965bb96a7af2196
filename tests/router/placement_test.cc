#include "router/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "runtime/base/rng.h"

namespace starling {
namespace {

using ::testing::AnyOf;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kDownload = absl::Seconds(30);

// A picture made step by step; incarnations count from 1.
class Picture {
 public:
  explicit Picture(const std::vector<double>& costs) {
    for (double cost : costs) picture_.stages.push_back({cost, kDownload});
  }
  explicit Picture(size_t stages) : Picture(std::vector<double>(stages, 1)) {}

  // A picture with so many replicas per stage that do 1 microbatch/s each.
  static Picture Of(const std::vector<int>& counts) {
    Picture picture(counts.size());
    for (size_t s = 0; s < counts.size(); ++s) {
      for (int i = 0; i < counts[s]; ++i) picture.Add(s, 1);
    }
    return picture;
  }

  PlacementReplica& Add(size_t stage, double speed) {
    PlacementReplica replica;
    replica.id = {Epoch{1}, ++last_};
    replica.stage = static_cast<StageId>(stage);
    replica.speed = speed;
    picture_.replicas.push_back(replica);
    return picture_.replicas.back();
  }
  void AddUnderWay(size_t stage, double speed) { Add(stage, speed).ready_in = absl::Seconds(10); }

  // As the next picture has to show it; `arrived`: the downloads are over.
  void Apply(const std::vector<Move>& moves, bool arrived) {
    for (const Move& move : moves) {
      for (PlacementReplica& replica : picture_.replicas) {
        if (replica.id != move.replica) continue;
        EXPECT_EQ(replica.stage, move.from);
        const double device = replica.speed * picture_.stages[Value(move.from)].cost;
        replica.stage = move.to;
        replica.speed = device / picture_.stages[Value(move.to)].cost;
        replica.ready_in = arrived ? absl::ZeroDuration() : kDownload;
      }
    }
  }

  double Level(size_t stage) const {
    double level = 0;
    for (const PlacementReplica& replica : picture_.replicas) {
      if (Value(replica.stage) == stage) level += replica.speed;
    }
    return level;
  }

  PlacementPicture& operator*() { return picture_; }
  PlacementPicture* operator->() { return &picture_; }

 private:
  PlacementPicture picture_;
  uint32_t last_ = 0;
};

PlacementOptions Options() { return PlacementOptions(); }

std::vector<std::pair<uint32_t, uint32_t>> FromTo(const std::vector<Move>& moves) {
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  pairs.reserve(moves.size());
  for (const Move& move : moves) pairs.emplace_back(Value(move.from), Value(move.to));
  return pairs;
}

// --- newcomers ---

TEST(ChooseStageTest, NewcomerGoesToTheSlowestStageAndTheReasonSaysWhatItBrings) {
  const StageChoice choice = ChooseStage(*Picture::Of({3, 1, 2}), 1);
  EXPECT_EQ(choice.stage, StageId{1});
  EXPECT_DOUBLE_EQ(choice.throughput_before, 1);
  EXPECT_DOUBLE_EQ(choice.throughput_after, 2);
  EXPECT_THAT(choice.reason, HasSubstr("stage 1 is the slowest (1/s): throughput rises to 2/s"));
}

TEST(ChooseStageTest, SpeedsCountNotNumbers) {
  Picture picture(2);
  picture.Add(0, 1);
  picture.Add(0, 1);
  picture.Add(0, 1);
  picture.Add(1, 10);
  EXPECT_EQ(ChooseStage(*picture, 1).stage, StageId{0});
}

TEST(ChooseStageTest, CostlyStageGetsMoreReplicas) {
  Picture picture({1, 3});
  for (int i = 0; i < 8; ++i) {
    const StageId stage = ChooseStage(*picture, 6).stage;
    picture.Add(Value(stage), 6 / picture->stages[Value(stage)].cost);
  }
  EXPECT_DOUBLE_EQ(picture.Level(0), 12);
  EXPECT_DOUBLE_EQ(picture.Level(1), 12);
}

TEST(ChooseStageTest, JoinersUnderWayCountAsThere) {
  Picture picture = Picture::Of({2, 1, 2});
  picture.AddUnderWay(1, 1);
  picture.AddUnderWay(0, 1);
  EXPECT_THAT(Value(ChooseStage(*picture, 1).stage), AnyOf(1u, 2u));
  picture.AddUnderWay(1, 1);
  EXPECT_EQ(ChooseStage(*picture, 1).stage, StageId{2});
}

TEST(ChooseStageTest, StageThatNobodyServesComesFirst) {
  const StageChoice choice = ChooseStage(*Picture::Of({1, 5, 0}), 1);
  EXPECT_EQ(choice.stage, StageId{2});
  EXPECT_THAT(choice.reason, HasSubstr("nobody serves stage 2"));
}

TEST(ChooseStageTest, EmptySwarmFillsItsStagesOneByOne) {
  Picture picture(4);
  for (int i = 0; i < 8; ++i) {
    const StageChoice choice = ChooseStage(*picture, std::nan(""));
    picture.Add(Value(choice.stage), 0);
  }
  std::map<StageId, int> counts;
  for (const PlacementReplica& replica : picture->replicas) ++counts[replica.stage];
  for (const auto& [stage, count] : counts) EXPECT_EQ(count, 2) << Value(stage);
}

TEST(ChooseStageTest, OneOfSeveralSlowestIsNamedAsSuch) {
  const StageChoice choice = ChooseStage(*Picture::Of({2, 1, 1}), 1);
  EXPECT_EQ(choice.stage, StageId{1});
  EXPECT_DOUBLE_EQ(choice.throughput_after, 1);
  EXPECT_THAT(choice.reason, HasSubstr("one of the slowest"));
}

TEST(ChooseStageTest, UnknownSpeedIsTheMedianOfTheDevices) {
  Picture picture({1, 2});
  picture.Add(0, 8);
  picture.Add(0, 8);
  picture.Add(0, 8);
  for (double unknown : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    picture.Add(1, unknown);  // a device of 8, so 4/s here
    const double before = ChooseStage(*picture, 8).throughput_before;
    EXPECT_DOUBLE_EQ(ChooseStage(*picture, unknown).throughput_after, std::min(24.0, before + 4));
  }
}

TEST(ChooseStageTest, AbsurdSpeedDoesNotHideThatAStageIsSlow) {
  Picture picture(2);
  for (int i = 0; i < 5; ++i) picture.Add(0, 1);
  picture.Add(1, 1e300);
  picture.Add(1, 1);
  EXPECT_LT(ChooseStage(*picture, 1e300).throughput_after, 1e4);
  EXPECT_EQ(ChooseStage(*picture, 1).stage, StageId{0});
}

// --- moves ---

TEST(ProposeMovesTest, BalancedSwarmMovesNobodyAndSaysWhy) {
  for (const auto& counts : {std::vector<int>{2, 2, 2}, {3, 3, 2}, {1, 1, 1}, {5}}) {
    const Rebalancing result = ProposeMoves(*Picture::Of(counts), Options());
    EXPECT_THAT(result.moves, IsEmpty());
    EXPECT_THAT(result.reason, HasSubstr("no move pays"));
    EXPECT_DOUBLE_EQ(result.throughput_after, result.throughput_before);
  }
}

TEST(ProposeMovesTest, ReplicaMovesFromTheFastestStageToTheSlowestAndTheReasonSaysWhy) {
  const Rebalancing result = ProposeMoves(*Picture::Of({3, 1, 2}), Options());
  EXPECT_THAT(FromTo(result.moves), ::testing::ElementsAre(std::pair(0u, 1u)));
  EXPECT_DOUBLE_EQ(result.throughput_before, 1);
  EXPECT_DOUBLE_EQ(result.throughput_after, 2);
  EXPECT_EQ(result.moves[0].reason,
            "stage 1 is the slowest (1/s); 1.1 can spare 1/s of stage 0's 3/s, after a download of "
            "30 s");
  EXPECT_EQ(result.reason,
            "1 of 1 moves: throughput from 1/s to 2/s for 570 s, at a cost of 0 microbatches");
}

TEST(ProposeMovesTest, LastServingReplicaOfAStageNeverMoves) {
  Picture picture(2);
  picture.Add(0, 100);
  picture.Add(1, 1);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());
  // Siblings that are still loading might never arrive.
  picture.AddUnderWay(0, 100);
  picture.AddUnderWay(0, 100);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());
  picture.Add(0, 100);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, SizeIs(1));
}

TEST(ProposeMovesTest, ReplicaUnderWayIsNotMovedAgain) {
  Picture picture = Picture::Of({1, 1});
  picture.Add(0, 0.001);
  picture.AddUnderWay(0, 1);
  picture.AddUnderWay(0, 1);
  for (const Move& move : ProposeMoves(*picture, Options()).moves) {
    EXPECT_LE(move.replica.counter, 3u);
  }
}

TEST(ProposeMovesTest, MoverAndJoinerUnderWayAreNotFollowedByAnotherForTheSameCause) {
  Picture moved = Picture::Of({3, 1, 2});
  moved.Apply(ProposeMoves(*moved, Options()).moves, /*arrived=*/false);
  EXPECT_THAT(ProposeMoves(*moved, Options()).moves, IsEmpty());

  Picture joined = Picture::Of({3, 1, 2});
  joined.AddUnderWay(1, 1);
  EXPECT_THAT(ProposeMoves(*joined, Options()).moves, IsEmpty());
}

TEST(ProposeMovesTest, PinnedReplicaStaysAndAnotherGoes) {
  Picture picture(2);
  picture.Add(0, 1).pinned = true;
  picture.Add(0, 1).pinned = true;
  picture.Add(0, 1).pinned = true;
  picture.Add(1, 1);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());
  const Incarnation free = picture.Add(0, 1).id;
  const Rebalancing result = ProposeMoves(*picture, Options());
  ASSERT_THAT(result.moves, SizeIs(1));
  EXPECT_EQ(result.moves[0].replica, free);
}

TEST(ProposeMovesTest, BurstThatHurtSeveralStagesIsMendedAtOnce) {
  const Rebalancing result = ProposeMoves(*Picture::Of({8, 3, 8, 5, 5, 4}), Options());
  EXPECT_DOUBLE_EQ(result.throughput_after, 5);
  EXPECT_THAT(result.moves, SizeIs(3));
  EXPECT_DOUBLE_EQ(result.throughput_before, 3);
}

TEST(ProposeMovesTest, MovesOverTheBoundFollowInTheNextCalls) {
  PlacementOptions options;
  options.max_moves = 2;
  Picture picture = Picture::Of({3, 3, 3, 3, 3, 1, 1, 1, 1, 1});
  for (size_t expected : {2, 2, 1, 0}) {
    const Rebalancing result = ProposeMoves(*picture, options);
    EXPECT_THAT(result.moves, SizeIs(expected));
    picture.Apply(result.moves, /*arrived=*/false);
  }
  for (size_t s = 0; s < 10; ++s) EXPECT_DOUBLE_EQ(picture.Level(s), 2);
}

TEST(ProposeMovesTest, NoMoveThatOnlySwapsWhichStageIsSlow) {
  Picture picture({1, 3});  // 4/s and 2/s; one more there would be 2/s and 8/3
  picture.Add(0, 2);
  picture.Add(0, 2);
  for (int i = 0; i < 3; ++i) picture.Add(1, 2.0 / 3);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());
}

TEST(ProposeMovesTest, NoiseOfTheMeasuredSpeedsMovesNobody) {
  Rng rng(1);
  for (int call = 0; call < 200; ++call) {
    Picture picture(4);
    for (size_t s = 0; s < 4; ++s) {
      for (size_t i = 0; i < (s == 2 ? 3 : 4); ++i) picture.Add(s, 0.95 + 0.1 * rng.Unit());
    }
    picture->departure_rate = 1e-4;
    EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());
  }
}

TEST(ProposeMovesTest, GainMustOutlastTheDownload) {
  Picture picture = Picture::Of({3, 1, 2});
  PlacementOptions options;
  options.horizon = kDownload;
  EXPECT_THAT(ProposeMoves(*picture, options).moves, IsEmpty());
  options.horizon = kDownload + absl::Seconds(1);
  EXPECT_THAT(ProposeMoves(*picture, options).moves, SizeIs(1));
  // Where replicas live shorter than a download takes, nobody is moved.
  picture->departure_rate = 1 / absl::ToDoubleSeconds(kDownload);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());
}

TEST(ProposeMovesTest, GainMustOutweighTheWorkThatIsLost) {
  PlacementOptions options;
  options.lost_work = options.horizon - kDownload + absl::Seconds(1);
  EXPECT_THAT(ProposeMoves(*Picture::Of({3, 1, 2}), options).moves, IsEmpty());
  options.lost_work = options.horizon - kDownload - absl::Seconds(1);
  EXPECT_THAT(ProposeMoves(*Picture::Of({3, 1, 2}), options).moves, SizeIs(1));
}

TEST(ProposeMovesTest, SmallGainIsLeftUndone) {
  Picture picture(2);
  for (int i = 0; i < 1003; ++i) picture.Add(0, 1);
  for (int i = 0; i < 1001; ++i) picture.Add(1, 1);
  EXPECT_THAT(ProposeMoves(*picture, Options()).moves, IsEmpty());  // 0.1 %
  PlacementOptions options;
  options.min_gain = 0;
  EXPECT_THAT(ProposeMoves(*picture, options).moves, SizeIs(1));
}

TEST(ProposeMovesTest, ReserveIsSpreadWhereReplicasDepartAndOnlyThere) {
  Picture picture = Picture::Of({6, 4, 4});
  PlacementOptions options;
  options.reaction = absl::Seconds(30);
  EXPECT_THAT(ProposeMoves(*picture, options).moves, IsEmpty());
  picture->departure_rate = 1.0 / 3600;
  const Rebalancing result = ProposeMoves(*picture, options);
  ASSERT_THAT(result.moves, SizeIs(1));
  EXPECT_DOUBLE_EQ(result.throughput_after, result.throughput_before);
  EXPECT_THAT(result.reason, HasSubstr("to be expected when replicas depart"));
}

TEST(ProposeMovesTest, DeviceThatMakesTheTwoStagesEquallyFastIsTaken) {
  Picture picture(2);
  for (double speed : {8.0, 5.0, 3.0, 1.0}) picture.Add(0, speed);
  picture.Add(1, 7);
  // 17 and 7: 5 makes both 12.
  const Rebalancing result = ProposeMoves(*picture, Options());
  ASSERT_THAT(result.moves, SizeIs(1));
  EXPECT_EQ(result.moves[0].replica.counter, 2u);
  EXPECT_DOUBLE_EQ(result.throughput_after, 12);
}

TEST(ProposeMovesTest, DeviceIsChosenByItsSpeedAtTheOtherStage) {
  Picture picture({1, 4});
  for (double speed : {4.0, 6.4, 2.5}) picture.Add(0, speed);
  picture.Add(1, 2.5);
  picture.Add(1, 2.5);
  // 12.9 and 5: the first makes them 8.9 and 6, the second 6.5 and 6.6.
  const Rebalancing result = ProposeMoves(*picture, Options());
  ASSERT_THAT(result.moves, SizeIs(1));
  EXPECT_EQ(result.moves[0].replica.counter, 2u);
  EXPECT_DOUBLE_EQ(result.throughput_after, 6.5);
}

TEST(ProposeMovesTest, SpeedAtAnotherStageFollowsFromTheCosts) {
  Picture picture({1, 4});
  for (int i = 0; i < 6; ++i) picture.Add(0, 4);
  picture.Add(1, 1);
  picture.Add(1, 1);
  const Rebalancing result = ProposeMoves(*picture, Options());
  EXPECT_DOUBLE_EQ(result.throughput_before, 2);
  // 24 and 2; with four moved 8 and 6, with five 4 and 7.
  EXPECT_DOUBLE_EQ(result.throughput_after, 6);
  picture.Apply(result.moves, /*arrived=*/true);
  EXPECT_DOUBLE_EQ(std::min(picture.Level(0), picture.Level(1)), result.throughput_after);
}

TEST(ProposeMovesTest, SwarmOfThreeOneTwoIsBalancedInOneCallAndStaysSo) {
  Rng rng(3);
  Picture picture = Picture::Of({3, 1, 2});
  size_t moves = 0;
  for (int period = 0; period < 12; ++period) {
    for (PlacementReplica& replica : picture->replicas) replica.speed = 0.97 + 0.06 * rng.Unit();
    const Rebalancing result = ProposeMoves(*picture, Options());
    moves += result.moves.size();
    picture.Apply(result.moves, /*arrived=*/true);
    for (size_t s = 0; s < 3; ++s) EXPECT_THAT(picture.Level(s), DoubleNear(2, 0.1));
  }
  EXPECT_EQ(moves, 1u);
}

TEST(ProposeMovesTest, OrderOfThePictureDoesNotMatter) {
  Picture picture = Picture::Of({9, 4, 7, 4});
  const Rebalancing result = ProposeMoves(*picture, Options());
  std::reverse(picture->replicas.begin(), picture->replicas.end());
  const Rebalancing again = ProposeMoves(*picture, Options());
  ASSERT_EQ(result.moves.size(), again.moves.size());
  for (size_t i = 0; i < result.moves.size(); ++i) {
    EXPECT_EQ(result.moves[i].replica, again.moves[i].replica);
  }
  EXPECT_EQ(result.reason, again.reason);
}

// --- any picture ---

Picture Drawn(uint64_t seed) {
  Rng rng(seed);
  std::vector<double> costs(1 + rng.Below(6));
  for (double& cost : costs) cost = 0.5 + 2 * rng.Unit();
  Picture picture(costs);
  const uint64_t replicas = rng.Below(40);
  for (uint64_t i = 0; i < replicas; ++i) {
    PlacementReplica& replica = picture.Add(rng.Below(costs.size()), 0.2 + 3 * rng.Unit());
    if (rng.Chance(0.1)) replica.ready_in = absl::Seconds(20);
    if (rng.Chance(0.05)) replica.speed = 0;
    if (rng.Chance(0.05)) replica.pinned = true;
  }
  picture->departure_rate = rng.Chance(0.5) ? 1e-4 * rng.Unit() : 0;
  return picture;
}

TEST(ProposeMovesTest, DrawnPicturesKeepTheRules) {
  size_t moved = 0;
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE(seed);
    Picture picture = Drawn(seed);
    const Rebalancing result = ProposeMoves(*picture, Options());
    moved += result.moves.size();
    EXPECT_LE(result.moves.size(), Options().max_moves);
    EXPECT_GE(result.throughput_after, result.throughput_before * (1 - 1e-9));

    std::map<StageId, int> serving;
    std::map<Incarnation, PlacementReplica> known;
    for (const PlacementReplica& replica : picture->replicas) {
      known[replica.id] = replica;
      if (replica.ready_in == absl::ZeroDuration()) ++serving[replica.stage];
    }
    std::set<Incarnation> once;
    for (const Move& move : result.moves) {
      EXPECT_TRUE(once.insert(move.replica).second);
      EXPECT_NE(move.from, move.to);
      EXPECT_EQ(known.at(move.replica).stage, move.from);
      EXPECT_EQ(known.at(move.replica).ready_in, absl::ZeroDuration());
      EXPECT_FALSE(known.at(move.replica).pinned);
      EXPECT_GE(--serving[move.from], 1);
      EXPECT_FALSE(move.reason.empty());
    }
  }
  EXPECT_GT(moved, 500u);
}

TEST(ProposeMovesTest, DrawnPicturesComeToRest) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SCOPED_TRACE(seed);
    Picture picture = Drawn(seed);
    int calls = 0;
    for (; calls < 10; ++calls) {
      const Rebalancing result = ProposeMoves(*picture, Options());
      if (result.moves.empty()) break;
      picture.Apply(result.moves, /*arrived=*/true);
    }
    EXPECT_LT(calls, 10);
  }
}

TEST(ProposeMovesTest, TenThousandReplicasInAHundredStages) {
  Rng rng(1);
  Picture picture(100);
  for (int i = 0; i < 10000; ++i) picture.Add(rng.Below(100), 0.5 + rng.Unit());
  picture->departure_rate = 1.0 / 28800;
  const double before = ProposeMoves(*picture, Options()).throughput_before;
  for (int call = 0; call < 50; ++call) {
    picture.Apply(ProposeMoves(*picture, Options()).moves, /*arrived=*/true);
  }
  const Rebalancing result = ProposeMoves(*picture, Options());
  EXPECT_GT(result.throughput_before, 1.2 * before);
  EXPECT_GT(result.throughput_before, 0.97 * 100);
}

// --- the departure rate ---

TEST(DepartureMeterTest, RateIsDeparturesPerReplicaAndSecond) {
  const absl::Time start = absl::UnixEpoch();
  DepartureMeter meter;
  EXPECT_EQ(meter.RateAt(start), 0);
  meter.OnReplicas(start, 10);
  EXPECT_EQ(meter.RateAt(start), 0);
  meter.OnDeparture(start + absl::Seconds(100));
  meter.OnReplicas(start + absl::Seconds(100), 9);
  EXPECT_THAT(meter.RateAt(start + absl::Seconds(200)), DoubleNear(1.0 / 1900, 1e-5));
}

TEST(DepartureMeterTest, WhatIsLongAgoCountsLess) {
  const absl::Time start = absl::UnixEpoch();
  DepartureMeter meter(absl::Hours(1));
  meter.OnReplicas(start, 100);
  for (int i = 1; i <= 100; ++i) meter.OnDeparture(start + absl::Seconds(36 * i));
  const double busy = meter.RateAt(start + absl::Hours(1));
  EXPECT_THAT(busy, DoubleNear(1.0 / 3600, 1e-4));
  EXPECT_LT(meter.RateAt(start + absl::Hours(9)), 0.02 * busy);
}

}  // namespace
}  // namespace starling
