#include "runtime/trainer/departures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Epoch kEpoch{2};

// Two stages: 1 (stage 0), 2 and 3 (stage 1).
class DeparturesTest : public testing::Test {
 protected:
  DeparturesTest() {
    Add(1, 0);
    Add(2, 1);
    Add(3, 1);
    ShowView();
    AcknowledgeViews();
  }
  static Incarnation Of(uint32_t counter) { return {kEpoch, counter}; }
  void Add(uint32_t counter, uint32_t stage) {
    Replica replica;
    replica.member.incarnation = Of(counter);
    replica.member.peer = PeerId{counter};
    replica.member.stage = StageId{stage};
    replica.member.address = TestEndpoint("replica" + std::to_string(counter));
    swarm_.Add(replica);
  }
  void ShowView() {
    departures_.Review();
    swarm_.SendViews();
    departures_.ViewIsOut();
  }
  void AcknowledgeViews() {
    for (const SentMessage& sent : transport_.TakeMessages()) {
      if (!std::holds_alternative<View>(sent.message.body)) continue;
      Message reply;
      reply.reply_to = sent.message.request;
      reply.body = Ack{};
      swarm_.outbox().OnReply(reply);
    }
  }
  template <typename Body>
  std::vector<Body> Take() {
    std::vector<Body> bodies;
    for (const SentMessage& sent : transport_.TakeMessages()) {
      if (const auto* body = std::get_if<Body>(&sent.message.body)) bodies.push_back(*body);
    }
    return bodies;
  }

  FakeEnv env_;
  FakeTransport transport_{TestEndpoint("trainer")};
  Swarm swarm_{&env_, &transport_, RunId{9}, kEpoch, 2};
  std::vector<std::string> events_;
  Departures departures_{&swarm_, [this](const Event& event) { events_.push_back(event.name); }};
};

TEST_F(DeparturesTest, ReplicaIsDueOnceItsUpstreamNeighboursKnow) {
  EXPECT_THAT(departures_.Ask(Of(3), "tired", std::nullopt), HasSubstr("at the next decision"));
  EXPECT_THAT(departures_.Due(), IsEmpty());
  ShowView();
  EXPECT_TRUE(swarm_.Find(Of(3))->member.draining);
  EXPECT_THAT(swarm_.TakersOf(StageId{1}), testing::ElementsAre(Of(2)));
  EXPECT_THAT(departures_.Due(), IsEmpty()) << "stage 0 may still send it new work";
  AcknowledgeViews();
  const std::vector<Departure> due = departures_.Due();
  ASSERT_THAT(due, SizeIs(1));
  EXPECT_EQ(due[0].incarnation, Of(3));
  EXPECT_FALSE(due[0].moves_to);
}

TEST_F(DeparturesTest, LastReplicaOfAStageWaitsForAnother) {
  EXPECT_THAT(departures_.Ask(Of(1), "tired", std::nullopt), HasSubstr("last replica of stage 0"));
  ShowView();
  AcknowledgeViews();
  EXPECT_FALSE(swarm_.Find(Of(1))->member.draining);
  EXPECT_THAT(departures_.Due(), IsEmpty());
  EXPECT_THAT(events_, Contains("drain_waits"));
  Add(4, 0);
  ShowView();
  EXPECT_THAT(departures_.Due(), SizeIs(1)) << "nobody is upstream of stage 0";
}

// Delayed commit: a step that began before everyone knew may have work of it.
TEST_F(DeparturesTest, WhoWasNotAvoidedWhenAStepBeganIsNotDueBeforeThatStepIsOver) {
  departures_.Ask(Of(3), "tired", std::nullopt);
  ShowView();
  const Departures::Avoided before = departures_.AvoidedNow();
  AcknowledgeViews();
  const Departures::Avoided after = departures_.AvoidedNow();
  EXPECT_THAT(departures_.Due(&before), IsEmpty());
  swarm_.Remove(Of(2));  // it is the last one, and works again
  ShowView();
  Add(5, 1);
  ShowView();
  AcknowledgeViews();
  EXPECT_THAT(departures_.Due(&after), IsEmpty()) << "it was given work meanwhile";
  const Departures::Avoided again = departures_.AvoidedNow();
  EXPECT_THAT(departures_.Due(&again), SizeIs(1));
}

TEST_F(DeparturesTest, OfAllThatAreToLeaveOneStays) {
  departures_.Ask(Of(2), "tired", std::nullopt);
  departures_.Ask(Of(3), "tired", std::nullopt);
  ShowView();
  AcknowledgeViews();
  EXPECT_THAT(departures_.Due(), SizeIs(1));
  EXPECT_THAT(swarm_.TakersOf(StageId{1}), SizeIs(1));
}

TEST_F(DeparturesTest, WhoBecomesTheLastOneIsNotDueAnyMore) {
  departures_.Ask(Of(3), "tired", std::nullopt);
  ShowView();
  AcknowledgeViews();
  swarm_.Remove(Of(2));
  ShowView();
  AcknowledgeViews();
  EXPECT_THAT(departures_.Due(), IsEmpty());
  // Its successor must be known upstream, too.
  Add(5, 1);
  ShowView();
  EXPECT_THAT(departures_.Due(), IsEmpty());
  AcknowledgeViews();
  EXPECT_THAT(departures_.Due(), SizeIs(1));
}

TEST_F(DeparturesTest, MoveThatWouldTakeTheLastReplicaIsCalledOff) {
  departures_.Ask(Of(3), "slow stage 0", StageId{0});
  ShowView();
  EXPECT_TRUE(departures_.MoveUnderWay());
  swarm_.Remove(Of(2));
  ShowView();
  EXPECT_THAT(events_, Contains("move_called_off"));
  EXPECT_FALSE(departures_.MoveUnderWay());
  EXPECT_FALSE(departures_.WasAsked(Of(3)));
}

TEST_F(DeparturesTest, MoveThatARecordNamesIsNotCalledOffAnyMore) {
  departures_.Ask(Of(3), "slow stage 0", StageId{0});
  ShowView();
  AcknowledgeViews();
  const std::vector<Departure> due = departures_.Due();
  ASSERT_THAT(due, SizeIs(1));
  swarm_.Remove(Of(2));  // while the record is being written
  ShowView();
  EXPECT_TRUE(departures_.MoveUnderWay());
  departures_.Left(due, Version{7});
  EXPECT_EQ(swarm_.Find(Of(3)), nullptr);
  EXPECT_THAT(events_, Contains("moved"));
}

TEST_F(DeparturesTest, LeaverIsToldAndToldAgainWhenItIsHeard) {
  departures_.Ask(Of(3), "tired", std::nullopt);
  ShowView();
  AcknowledgeViews();
  departures_.Left(departures_.Due(), Version{7});
  EXPECT_EQ(swarm_.Find(Of(3)), nullptr);
  const std::vector<Stop> stops = Take<Stop>();
  ASSERT_THAT(stops, SizeIs(1));
  EXPECT_EQ(stops[0].reason, "left at version 7");
  EXPECT_TRUE(departures_.TellAgain(Of(3)));
  EXPECT_THAT(Take<Stop>(), SizeIs(1));
  EXPECT_FALSE(departures_.TellAgain(Of(2))) << "it never left";
}

TEST_F(DeparturesTest, MoverIsToldWhereTo) {
  departures_.Ask(Of(3), "stage 0 is slower", StageId{0});
  ShowView();
  AcknowledgeViews();
  departures_.Left(departures_.Due(), Version{7});
  const std::vector<MoveTo> moves = Take<MoveTo>();
  ASSERT_THAT(moves, SizeIs(1));
  EXPECT_EQ(moves[0].stage, StageId{0});
  EXPECT_EQ(moves[0].left_at, Version{7});
  EXPECT_THAT(events_, Contains("moved"));
}

}  // namespace
}  // namespace starling
