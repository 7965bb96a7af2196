#include "router/wiring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <tuple>
#include <vector>

namespace starling {
namespace {

using ::testing::HasSubstr;

const absl::Time kStart = absl::UnixEpoch();

Incarnation Inc(uint32_t counter) { return {Epoch{1}, counter}; }

Wiring::Options Seeded(uint64_t seed) {
  Wiring::Options options;
  options.seed = seed;
  return options;
}

// Replicas that work first come, first served, each microbatch in its own time, and choosers that
// each keep a window of microbatches in flight. Time is virtual.
class World {
 public:
  explicit World(std::vector<double> service_s) : service_s_(std::move(service_s)) {
    for (uint32_t i = 0; i < service_s_.size(); ++i) replicas_.push_back(Inc(i + 1));
    free_at_.assign(service_s_.size(), 0);
    queued_.assign(service_s_.size(), 0);
    done_.assign(service_s_.size(), 0);
    sent_.assign(service_s_.size(), 0);
  }

  void AddChooser(int window, uint64_t seed = 0) {
    choosers_.push_back(std::make_unique<Wiring>(Seeded(seed)));
    choosers_.back()->SetCandidates(replicas_);
    windows_.push_back(window);
  }

  Wiring& chooser(size_t i) { return *choosers_[i]; }
  Incarnation replica(size_t i) const { return replicas_[i]; }
  int done(size_t i) const { return done_[i]; }
  int sent(size_t i) const { return sent_[i]; }
  const std::vector<uint32_t>& order() const { return order_; }

  void Stall(size_t i) { stalled_.insert(i); }

  void Run(int completions) {
    for (size_t c = 0; c < choosers_.size(); ++c) {
      for (; windows_[c] > 0; --windows_[c]) Send(c);
    }
    for (int n = 0; n < completions; ++n) {
      ASSERT_FALSE(events_.empty());
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      --queued_[event.replica];
      ++done_[event.replica];
      Wiring& wiring = *choosers_[event.chooser];
      wiring.OnFinished(replicas_[event.replica]);
      wiring.OnReport(replicas_[event.replica], service_s_[event.replica], queued_[event.replica]);
      Send(event.chooser);
    }
  }

  // What the replica did, relative to what it could have done were it never idle.
  double Utilisation(size_t i) const { return done_[i] * service_s_[i] / now_; }

 private:
  struct Event {
    double at;
    uint64_t number;
    size_t replica;
    size_t chooser;
    bool operator<(const Event& other) const {
      return std::tie(at, number) > std::tie(other.at, other.number);  // earliest on top
    }
  };

  void Send(size_t chooser) {
    const std::optional<Incarnation> to = choosers_[chooser]->Choose(kStart + absl::Seconds(now_));
    ASSERT_TRUE(to.has_value());
    const size_t i = to->counter - 1;
    order_.push_back(to->counter);
    ++sent_[i];
    if (stalled_.count(i) != 0) return;
    ++queued_[i];
    free_at_[i] = std::max(free_at_[i], now_) + service_s_[i];
    events_.push({free_at_[i], number_++, i, chooser});
  }

  std::vector<double> service_s_;
  std::vector<Incarnation> replicas_;
  std::vector<std::unique_ptr<Wiring>> choosers_;
  std::vector<int> windows_;
  std::vector<double> free_at_;
  std::vector<uint32_t> queued_;
  std::vector<int> done_, sent_;
  std::vector<uint32_t> order_;
  std::set<size_t> stalled_;
  std::priority_queue<Event> events_;
  double now_ = 0;
  uint64_t number_ = 0;
};

void ExpectSharesFollowSpeed(const std::vector<double>& service_s, int window) {
  World world(service_s);
  world.AddChooser(window);
  world.Run(1000);
  double speed = 0;
  for (double s : service_s) speed += 1 / s;
  for (size_t i = 0; i < service_s.size(); ++i) {
    const double fair = 1000 / service_s[i] / speed;
    EXPECT_NEAR(world.done(i), fair, 0.06 * fair + 3) << "replica " << i << " window " << window;
  }
}

TEST(WiringTest, TwiceTheSpeedGetsTwiceTheShareWhateverTheWindow) {
  for (int window : {1, 2, 3, 4, 8, 16}) ExpectSharesFollowSpeed({0.1, 0.2}, window);
}

TEST(WiringTest, FourTimesTheSpeedGetsFourTimesTheShareWhateverTheWindow) {
  for (int window : {1, 2, 3, 5, 10, 20}) ExpectSharesFollowSpeed({0.4, 0.1}, window);
}

TEST(WiringTest, FiveDifferentSpeedsGetSharesInProportion) {
  for (int window : {1, 5, 10, 20, 40}) {
    ExpectSharesFollowSpeed({0.05, 0.08, 0.1, 0.17, 0.4}, window);
  }
}

TEST(WiringTest, EqualReplicasAreInterleavedNotServedInBursts) {
  World world({0.1, 0.1, 0.1});
  world.AddChooser(1);
  world.Run(299);
  for (size_t i = 3; i + 3 <= world.order().size(); i += 3) {
    const std::set<uint32_t> turn(world.order().begin() + i, world.order().begin() + i + 3);
    EXPECT_EQ(turn.size(), 3u) << "at " << i;
  }
}

TEST(WiringTest, ManyChoosersKeepAllReplicasBusyInProportionToTheirSpeed) {
  World world({0.1, 0.2, 0.4});
  for (uint64_t seed = 0; seed < 4; ++seed) world.AddChooser(3, seed);
  world.Run(2000);
  for (size_t i = 0; i < 3; ++i) EXPECT_GT(world.Utilisation(i), 0.9) << i;
}

TEST(WiringTest, ReplicaThatStallsIsSentNoMoreThanItsPartOfTheWindow) {
  World world({0.1, 0.1, 0.1});
  world.AddChooser(9);
  world.Run(100);
  const int before = world.sent(1);
  world.Stall(1);
  world.Run(1000);
  // What it held is still finished in this world; beyond that it gets a third of the window, and
  // one more for each step in which the others' queues were shorter.
  EXPECT_LE(world.sent(1) - before, 3 + 3);
  EXPECT_LE(world.chooser(0).outstanding(world.replica(1)), 3u + 2u);
  EXPECT_GT(world.done(0), 400);
  EXPECT_GT(world.done(2), 400);
}

TEST(WiringTest, ReplicaThatNeverAnsweredHoldsOnlyItsPartOfTheWindow) {
  World world({0.1, 0.1, 0.3, 0.1});
  world.AddChooser(8);
  world.Stall(3);
  world.Run(1000);
  EXPECT_GE(world.sent(3), 1);
  EXPECT_LE(world.sent(3), 4);
}

TEST(WiringTest, LongReportedQueueIsAvoidedAndTriedAgainLater) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  wiring.OnReport(Inc(1), 0.1, 10);  // others sent it ten
  wiring.OnReport(Inc(2), 0.1, 0);
  int first_try = 0;
  for (int i = 1; i <= 40 && first_try == 0; ++i) {
    const Incarnation to = *wiring.Choose(kStart);
    if (to == Inc(1)) first_try = i;
    wiring.OnFinished(to);
  }
  // Ten service times' worth of work goes elsewhere first, but one old report is not for ever.
  EXPECT_GE(first_try, 10);
  EXPECT_LE(first_try, 13);
}

TEST(WiringTest, ReplicaPassedOverForItsQueueSavesUpNoCredit) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  wiring.OnReport(Inc(1), 0.1, 50);
  wiring.OnReport(Inc(2), 0.1, 0);
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(*wiring.Choose(kStart), Inc(2));
    wiring.OnFinished(Inc(2));
  }
  wiring.OnReport(Inc(1), 0.1, 0);
  int to_first = 0;
  for (int i = 0; i < 10; ++i) {
    const Incarnation to = *wiring.Choose(kStart);
    if (to == Inc(1)) ++to_first;
    wiring.OnFinished(to);
  }
  EXPECT_GE(to_first, 5);
  EXPECT_LE(to_first, 6);
}

TEST(WiringTest, DeadReplicaIsLeftOutAtOnce) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  for (int i = 0; i < 4; ++i) wiring.Choose(kStart);
  EXPECT_EQ(wiring.outstanding(Inc(1)), 2u);
  wiring.SetCandidates({Inc(2)});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(wiring.Choose(kStart), Inc(2));
  EXPECT_EQ(wiring.outstanding(Inc(1)), 0u);
  EXPECT_EQ(wiring.service_s(Inc(1)), 0);
  EXPECT_THAT(wiring.Explain(Inc(1)), HasSubstr("no candidate"));
}

TEST(WiringTest, EventsOfUnknownReplicasAreIgnored) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1)});
  wiring.OnReport(Inc(9), 1.0, 3);
  wiring.OnFinished(Inc(9));
  wiring.OnBusy(Inc(9), kStart);
  wiring.OnFinished(Inc(1));  // nothing outstanding
  EXPECT_EQ(wiring.outstanding(Inc(1)), 0u);
  EXPECT_EQ(wiring.Choose(kStart), Inc(1));
  EXPECT_EQ(wiring.outstanding(Inc(1)), 1u);
}

TEST(WiringTest, NoCandidatesMeansNoChoiceAndNoTimeToTryAgain) {
  Wiring wiring({});
  EXPECT_EQ(wiring.Choose(kStart), std::nullopt);
  EXPECT_EQ(wiring.NextTry(kStart), absl::InfiniteFuture());
  wiring.SetCandidates({Inc(1)});
  EXPECT_EQ(wiring.NextTry(kStart), kStart);
  wiring.SetCandidates({});
  EXPECT_EQ(wiring.Choose(kStart), std::nullopt);
}

TEST(WiringTest, NewcomerIsTriedAtOnceButNotFlooded) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  for (int i = 0; i < 200; ++i) {
    const Incarnation to = *wiring.Choose(kStart);
    wiring.OnFinished(to);
    wiring.OnReport(to, 0.2, 0);
  }
  wiring.SetCandidates({Inc(1), Inc(2), Inc(3)});
  EXPECT_NEAR(wiring.service_s(Inc(3)), 0.2, 1e-9);  // assumed, until it reports
  EXPECT_THAT(wiring.Explain(Inc(3)), HasSubstr("assumed"));
  int to_newcomer = 0;
  int first = 0;
  for (int i = 1; i <= 30; ++i) {
    const Incarnation to = *wiring.Choose(kStart);
    if (to == Inc(3)) {
      ++to_newcomer;
      if (first == 0) first = i;
    } else {
      wiring.OnFinished(to);
    }
  }
  EXPECT_LE(first, 2);
  EXPECT_LE(to_newcomer, 3);  // it has not answered yet
}

TEST(WiringTest, NewcomerThatAnswersGetsItsShareAndNotWhatItMissed) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1)});
  const auto send = [&wiring] {
    const Incarnation to = *wiring.Choose(kStart);
    wiring.OnFinished(to);
    wiring.OnReport(to, 0.1, 0);
    return to;
  };
  for (int i = 0; i < 500; ++i) send();
  wiring.SetCandidates({Inc(1), Inc(2)});
  int to_newcomer = 0;
  for (int i = 0; i < 20; ++i) to_newcomer += send() == Inc(2) ? 1 : 0;
  EXPECT_GE(to_newcomer, 9);
  EXPECT_LE(to_newcomer, 11);
}

TEST(WiringTest, BusyReplicaIsLeftOutForItsPauseAndItsChargeTakenBack) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  const Incarnation busy = *wiring.Choose(kStart);
  const Incarnation other = busy == Inc(1) ? Inc(2) : Inc(1);
  wiring.OnBusy(busy, kStart);
  EXPECT_EQ(wiring.outstanding(busy), 0u);
  EXPECT_THAT(wiring.Explain(busy), HasSubstr("refused"));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(wiring.Choose(kStart + absl::Milliseconds(49)), other);
  EXPECT_EQ(wiring.Choose(kStart + absl::Milliseconds(50)), busy);
}

TEST(WiringTest, RefusedReplicaIsNextOnceItsPauseIsOver) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Wiring wiring(Seeded(seed));
    wiring.SetCandidates({Inc(1), Inc(2)});
    const Incarnation accepts = *wiring.Choose(kStart);
    const Incarnation refuses = *wiring.Choose(kStart);
    ASSERT_NE(accepts, refuses);
    wiring.OnBusy(refuses, kStart);
    wiring.OnFinished(accepts);
    // Its sibling did a microbatch and it did none: no tie for the seed to break.
    EXPECT_EQ(wiring.Choose(kStart + absl::Milliseconds(50)), refuses) << seed;
  }
}

TEST(WiringTest, WhenAllAreBusyNextTryIsTheEndOfTheFirstPause) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  const Incarnation first = *wiring.Choose(kStart);
  const Incarnation second = *wiring.Choose(kStart);
  ASSERT_NE(first, second);
  wiring.OnBusy(first, kStart);
  EXPECT_EQ(wiring.NextTry(kStart), kStart);
  const absl::Time later = kStart + absl::Milliseconds(10);
  wiring.OnBusy(second, later);
  EXPECT_EQ(wiring.Choose(later), std::nullopt);
  const absl::Time next = wiring.NextTry(later);
  EXPECT_EQ(next, kStart + absl::Milliseconds(50));
  EXPECT_EQ(wiring.Choose(next - absl::Nanoseconds(1)), std::nullopt);
  EXPECT_EQ(wiring.Choose(next), first);
}

// The pause after one more refusal at `now`, which a try must precede.
absl::Duration RefuseOnce(Wiring* wiring, absl::Time* now) {
  EXPECT_EQ(wiring->Choose(*now), Inc(1));
  wiring->OnBusy(Inc(1), *now);
  const absl::Duration pause = wiring->NextTry(*now) - *now;
  *now += pause;
  return pause;
}

TEST(WiringTest, PauseDoublesUpToOneSecondWhileItKeepsRefusingAndEndsWithItsFirstResult) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1)});
  absl::Time now = kStart;
  for (int ms : {50, 100, 200, 400, 800, 1000, 1000}) {
    EXPECT_EQ(RefuseOnce(&wiring, &now), absl::Milliseconds(ms));
  }
  ASSERT_EQ(wiring.Choose(now), Inc(1));
  wiring.OnFinished(Inc(1));
  EXPECT_EQ(RefuseOnce(&wiring, &now), absl::Milliseconds(50));
}

TEST(WiringTest, SeveralRefusalsOfOneBurstCountAsOne) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1)});
  for (int i = 0; i < 3; ++i) wiring.Choose(kStart);
  for (int i = 0; i < 3; ++i) wiring.OnBusy(Inc(1), kStart + absl::Milliseconds(i));
  EXPECT_EQ(wiring.outstanding(Inc(1)), 0u);
  EXPECT_EQ(wiring.NextTry(kStart), kStart + absl::Milliseconds(50));
}

TEST(WiringTest, ServiceTimeIsSmoothedAndAbsurdReportsAreIgnoredOrBounded) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(2)});
  EXPECT_DOUBLE_EQ(wiring.service_s(Inc(1)), 0.01);
  wiring.OnReport(Inc(1), 1.0, 0);
  EXPECT_DOUBLE_EQ(wiring.service_s(Inc(1)), 1.0);
  wiring.OnReport(Inc(1), 2.0, 0);
  EXPECT_DOUBLE_EQ(wiring.service_s(Inc(1)), 1.1);
  wiring.OnReport(Inc(1), 0.0, 0);
  wiring.OnReport(Inc(1), -1.0, 0);
  wiring.OnReport(Inc(1), std::numeric_limits<double>::quiet_NaN(), 0);
  wiring.OnReport(Inc(1), std::numeric_limits<double>::infinity(), 0);
  EXPECT_DOUBLE_EQ(wiring.service_s(Inc(1)), 1.1);
  wiring.OnReport(Inc(2), 1e300, std::numeric_limits<uint32_t>::max());
  EXPECT_LE(wiring.service_s(Inc(2)), 3600);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(wiring.Choose(kStart), Inc(1));
}

TEST(WiringTest, SameSeedGivesTheSameChoicesAndAnotherSeedOtherTies) {
  const auto run = [](uint64_t seed) {
    World world({0.1, 0.1, 0.1, 0.1, 0.1, 0.1});
    world.AddChooser(6, seed);
    world.Run(100);
    return world.order();
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(WiringTest, CandidateListedTwiceCountsOnce) {
  Wiring wiring({});
  wiring.SetCandidates({Inc(1), Inc(1), Inc(2)});
  std::map<uint32_t, int> chosen;
  for (int i = 0; i < 10; ++i) ++chosen[wiring.Choose(kStart)->counter];
  EXPECT_EQ(chosen[1], 5);
  EXPECT_EQ(chosen[2], 5);
}

TEST(WiringTest, TenThousandReplicasEachGetTheirTurn) {
  constexpr uint32_t kReplicas = 10000;
  std::vector<Incarnation> replicas;
  for (uint32_t i = 1; i <= kReplicas; ++i) replicas.push_back(Inc(i));
  Wiring wiring(Seeded(3));
  wiring.SetCandidates(replicas);
  std::vector<int> chosen(kReplicas + 1, 0);
  std::deque<Incarnation> flying;
  for (uint32_t i = 0; i < 4 * kReplicas; ++i) {
    const std::optional<Incarnation> to = wiring.Choose(kStart);
    ASSERT_TRUE(to.has_value());
    ++chosen[to->counter];
    flying.push_back(*to);
    if (flying.size() < kReplicas / 2) continue;
    wiring.OnFinished(flying.front());
    wiring.OnReport(flying.front(), 0.1, 0);
    flying.pop_front();
  }
  for (uint32_t i = 1; i <= kReplicas; ++i) {
    EXPECT_GE(chosen[i], 3) << i;
    EXPECT_LE(chosen[i], 5) << i;
  }
  wiring.SetCandidates({Inc(17)});
  EXPECT_EQ(wiring.Choose(kStart), Inc(17));
}

}  // namespace
}  // namespace starling
