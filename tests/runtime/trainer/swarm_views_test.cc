#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "runtime/trainer/swarm.h"
#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr Epoch kEpoch{2};

// Five stages of two replicas each: 1 and 2 serve stage 0, 3 and 4 stage 1, and so on.
class SwarmViewsTest : public testing::Test {
 protected:
  SwarmViewsTest() { AddAll(); }

  static Incarnation Of(uint32_t counter) { return {kEpoch, counter}; }
  void Add(uint32_t counter, uint32_t stage) {
    Replica replica;
    replica.member.incarnation = Of(counter);
    replica.member.peer = PeerId{counter};
    replica.member.stage = StageId{stage};
    replica.member.address = TestEndpoint("replica" + std::to_string(counter));
    swarm_.Add(replica);
  }
  void AddAll() {
    for (uint32_t counter = 1; counter <= 10; ++counter) Add(counter, (counter - 1) / 2);
  }
  // Who is told, and of whom.
  std::map<std::string, std::vector<uint32_t>> Sent() {
    swarm_.SendViews();
    std::map<std::string, std::vector<uint32_t>> told;
    for (const SentMessage& sent : transport_.TakeMessages()) {
      const auto* view = std::get_if<View>(&sent.message.body);
      if (view == nullptr) continue;
      EXPECT_EQ(view->number, swarm_.view_number());
      for (const Member& member : view->members) {
        told[sent.to.control].push_back(member.incarnation.counter);
      }
    }
    return told;
  }
  static std::string Name(uint32_t counter) {
    return TestEndpoint("replica" + std::to_string(counter)).control;
  }
  static std::vector<std::string> Names(const std::vector<uint32_t>& counters) {
    std::vector<std::string> names;
    for (uint32_t counter : counters) names.push_back(Name(counter));
    return names;
  }
  static std::vector<std::string> Keys(const std::map<std::string, std::vector<uint32_t>>& told) {
    std::vector<std::string> keys;
    for (const auto& [name, members] : told) keys.push_back(name);
    return keys;
  }

  FakeEnv env_;
  FakeTransport transport_{TestEndpoint("trainer")};
  Swarm swarm_{&env_, &transport_, RunId{9}, kEpoch, 5};
};

TEST_F(SwarmViewsTest, FirstViewGoesToEverybodyAndNamesTheirOwnAndTheNextStages) {
  auto told = Sent();
  EXPECT_EQ(told.size(), 10u);
  EXPECT_THAT(told[Name(1)], ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(told[Name(5)], ElementsAre(3, 4, 5, 6, 7, 8));
  EXPECT_THAT(told[Name(10)], ElementsAre(7, 8, 9, 10));
}

TEST_F(SwarmViewsTest, StagesThatShareParametersKnowEachOther) {
  swarm_.AddNeighbours({StageId{0}, StageId{4}});
  auto told = Sent();
  EXPECT_THAT(told[Name(1)], ElementsAre(1, 2, 3, 4, 9, 10));
  EXPECT_THAT(told[Name(9)], ElementsAre(1, 2, 7, 8, 9, 10));
  EXPECT_THAT(told[Name(3)], ElementsAre(1, 2, 3, 4, 5, 6));
  swarm_.Remove(Of(2));
  EXPECT_THAT(Keys(Sent()), testing::UnorderedElementsAreArray(Names({1, 3, 4, 9, 10})));
}

TEST_F(SwarmViewsTest, NothingChangedTellsNobody) {
  Sent();
  const uint64_t number = swarm_.view_number();
  EXPECT_THAT(Sent(), IsEmpty());
  EXPECT_EQ(swarm_.view_number(), number);
}

TEST_F(SwarmViewsTest, LossIsToldToItsStageAndTheNextOnesOnly) {
  Sent();
  swarm_.Remove(Of(2));
  auto told = Sent();
  EXPECT_THAT(Keys(told), testing::UnorderedElementsAreArray(Names({1, 3, 4})));
  EXPECT_THAT(told[Name(1)], ElementsAre(1, 3, 4));
  EXPECT_THAT(told[Name(4)], ElementsAre(1, 3, 4, 5, 6));
}

TEST_F(SwarmViewsTest, NewcomerIsToldAndSoAreItsNeighbours) {
  Sent();
  Add(11, 4);
  auto told = Sent();
  EXPECT_THAT(Keys(told), testing::UnorderedElementsAreArray(Names({7, 8, 9, 10, 11})));
  EXPECT_THAT(told[Name(11)], ElementsAre(7, 8, 9, 10, 11));
}

TEST_F(SwarmViewsTest, WhoIsAboutToLeaveIsShownOnceAndAgainWhenItStays) {
  Sent();
  swarm_.SetDraining(Of(1), true);
  EXPECT_THAT(Keys(Sent()), testing::UnorderedElementsAreArray(Names({1, 2, 3, 4})));
  swarm_.SetDraining(Of(1), true);
  EXPECT_THAT(Sent(), IsEmpty());
  swarm_.SetDraining(Of(1), false);
  EXPECT_THAT(Keys(Sent()), testing::UnorderedElementsAreArray(Names({1, 2, 3, 4})));
}

TEST_F(SwarmViewsTest, TwoFarChangesAreToldTogether) {
  Sent();
  swarm_.Remove(Of(1));
  swarm_.Remove(Of(10));
  auto told = Sent();
  EXPECT_THAT(Keys(told), testing::UnorderedElementsAreArray(Names({2, 3, 4, 7, 8, 9})));
}

// A trainer that reigns anew lets the same replicas in again: they have forgotten their View.
TEST_F(SwarmViewsTest, SwarmMadeAnewIsToldInFull) {
  Sent();
  swarm_.Clear();
  AddAll();
  EXPECT_EQ(Sent().size(), 10u);
}

}  // namespace
}  // namespace starling
