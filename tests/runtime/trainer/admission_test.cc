#include "runtime/trainer/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr Epoch kEpoch{2};
constexpr Incarnation kNone{};

// A trainer of two stages whose newest state is (1, 5), held by the donor.
class AdmissionTest : public testing::Test {
 protected:
  AdmissionTest()
      : admission_(
            &env_, &swarm_, "the = \"run\"", [this](const Event& e) { events_.push_back(e.name); },
            [this](StageId, const std::optional<StateName>& held) { return Target(held); },
            [this] { ++changes_; }) {}

  std::optional<Admission::LoadTarget> Target(const std::optional<StateName>& held) const {
    if (held && held->version == current_.version && held->hash == current_.hash) {
      return Admission::LoadTarget{current_, {}};
    }
    if (!has_donor_) return std::nullopt;
    return Admission::LoadTarget{current_, {TestEndpoint("donor")}};
  }
  static Hello From(const std::string& name, uint64_t peer, std::optional<uint32_t> stage = 0) {
    Hello hello;
    hello.peer = PeerId{peer};
    hello.address = TestEndpoint(name);
    if (stage) hello.stage = StageId{*stage};
    return hello;
  }
  template <typename Body>
  std::vector<Message> Take() {
    std::vector<Message> messages;
    for (const SentMessage& sent : transport_.TakeMessages()) {
      if (std::holds_alternative<Body>(sent.message.body)) messages.push_back(sent.message);
    }
    return messages;
  }
  // Admits a peer and gives its incarnation.
  Incarnation Admit(const Hello& hello) {
    admission_.OnHello(hello, kNone, 1);
    const std::vector<Message> welcomes = Take<Welcome>();
    EXPECT_THAT(welcomes, SizeIs(1));
    return welcomes.empty() ? kNone : std::get<Welcome>(welcomes[0].body).incarnation;
  }
  void AnswerLoad(const Message& request, Loaded loaded) {
    Message reply;
    reply.reply_to = request.request;
    reply.body = std::move(loaded);
    swarm_.outbox().OnReply(reply);
  }
  Loaded Success() const {
    Loaded loaded;
    loaded.state = current_;
    return loaded;
  }
  static Loaded Failure() {
    Loaded failed;
    failed.code = absl::StatusCode::kAborted;
    failed.error = "the donor has gone on";
    return failed;
  }
  std::vector<Replica> TakeCurrent() {
    return admission_.TakeLoaded(
        [this](const Replica& replica) { return replica.state.hash == current_.hash; });
  }

  FakeEnv env_;
  FakeTransport transport_{TestEndpoint("trainer")};
  Swarm swarm_{&env_, &transport_, RunId{9}, kEpoch, 2};
  std::vector<std::string> events_;
  int changes_ = 0;
  bool has_donor_ = true;
  StateName current_{Era{1}, Version{5}, Hash128{7, 8}};
  Admission admission_;
};

TEST_F(AdmissionTest, NewcomerIsWelcomedLoadsAndIsTaken) {
  admission_.OnHello(From("a", 1, 1), kNone, 33);
  const std::vector<Message> welcomes = Take<Welcome>();
  ASSERT_THAT(welcomes, SizeIs(1));
  EXPECT_EQ(welcomes[0].reply_to, 33u);
  const Welcome& welcome = std::get<Welcome>(welcomes[0].body);
  EXPECT_EQ(welcome.incarnation.epoch, kEpoch);
  EXPECT_EQ(welcome.stage, StageId{1});
  EXPECT_EQ(welcome.config_toml, "the = \"run\"");
  admission_.OfferLoads();
  const std::vector<Message> loads = Take<LoadState>();
  ASSERT_THAT(loads, SizeIs(1));
  EXPECT_THAT(std::get<LoadState>(loads[0].body).donors, ElementsAre(TestEndpoint("donor")));
  EXPECT_TRUE(admission_.loading());
  EXPECT_THAT(TakeCurrent(), IsEmpty());
  AnswerLoad(loads[0], Success());
  EXPECT_FALSE(admission_.loading());
  EXPECT_EQ(changes_, 1);
  EXPECT_THAT(admission_.LoadedPerStage(), ElementsAre(0, 1));
  const std::vector<Replica> taken = TakeCurrent();
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].member.incarnation, welcome.incarnation);
  EXPECT_TRUE(admission_.empty());
}

TEST_F(AdmissionTest, NewcomerThatHoldsTheCurrentStateNeedsNoDonor) {
  has_donor_ = false;
  Hello hello = From("a", 1);
  hello.held = current_;
  Admit(hello);
  Admit(From("b", 2));
  admission_.OfferLoads();
  const std::vector<Message> loads = Take<LoadState>();
  ASSERT_THAT(loads, SizeIs(1)) << "the other one waits for a donor";
  EXPECT_THAT(std::get<LoadState>(loads[0].body).donors, IsEmpty());
  AnswerLoad(loads[0], Success());
  EXPECT_THAT(TakeCurrent(), SizeIs(1));
}

TEST_F(AdmissionTest, PeerOfAnotherProtocolIsRefusedForGood) {
  Hello hello = From("a", 1);
  hello.protocol = kProtocolVersion + 1;
  admission_.OnHello(hello, kNone, 5);
  const std::vector<Message> refusals = Take<Refused>();
  ASSERT_THAT(refusals, SizeIs(1));
  EXPECT_FALSE(std::get<Refused>(refusals[0].body).retry);
  EXPECT_THAT(std::get<Refused>(refusals[0].body).reason, HasSubstr("protocol"));
  EXPECT_TRUE(admission_.empty());
}

TEST_F(AdmissionTest, PeerForAStageThatDoesNotExistIsRefused) {
  admission_.OnHello(From("a", 1, 2), kNone, 5);
  EXPECT_THAT(Take<Refused>(), SizeIs(1));
  EXPECT_TRUE(admission_.empty());
}

TEST_F(AdmissionTest, PeerThatAsksForNoStageGetsTheOneWithFewest) {
  Admit(From("a", 1, 0));
  admission_.OnHello(From("b", 2, std::nullopt), kNone, 5);
  EXPECT_EQ(std::get<Welcome>(Take<Welcome>()[0].body).stage, StageId{1});
  EXPECT_THAT(admission_.CountPerStage(), ElementsAre(1, 1));
}

TEST_F(AdmissionTest, RepeatedHelloGetsTheSameIncarnation) {
  const Incarnation first = Admit(From("a", 1));
  EXPECT_EQ(Admit(From("a", 1)), first);
  EXPECT_THAT(admission_.CountPerStage(), ElementsAre(1, 0));
}

TEST_F(AdmissionTest, JoinerThatComesBackGetsANewIncarnation) {
  const Incarnation first = Admit(From("a", 1));
  EXPECT_EQ(admission_.OnHello(From("a", 1), first, 5), std::nullopt);
  const Incarnation second = std::get<Welcome>(Take<Welcome>()[0].body).incarnation;
  EXPECT_LT(first, second);
  EXPECT_EQ(admission_.Find(first), nullptr);
  EXPECT_NE(admission_.Find(second), nullptr);
}

TEST_F(AdmissionTest, MemberThatComesBackIsHandedToTheTrainerToFence) {
  Replica replica;
  replica.member = {Incarnation{kEpoch, 40}, PeerId{1}, StageId{0}, TestEndpoint("a")};
  swarm_.Add(replica);
  EXPECT_EQ(admission_.OnHello(From("a", 1), kNone, 5), std::nullopt) << "an old Hello, late";
  EXPECT_TRUE(admission_.empty());
  EXPECT_EQ(std::get<Welcome>(Take<Welcome>()[0].body).incarnation, replica.member.incarnation);
  EXPECT_EQ(admission_.OnHello(From("a", 1), replica.member.incarnation, 6),
            replica.member.incarnation);
  EXPECT_FALSE(admission_.empty());
}

TEST_F(AdmissionTest, FailedLoadIsReportedAndTriedAgain) {
  Admit(From("a", 1));
  admission_.OfferLoads();
  AnswerLoad(Take<LoadState>()[0], Failure());
  EXPECT_THAT(events_, testing::Contains("load_failed"));
  EXPECT_THAT(admission_.LoadedPerStage(), ElementsAre(0, 0));
  EXPECT_THAT(Take<LoadState>(), IsEmpty());
  env_.Advance(absl::Milliseconds(300));  // before the request is repeated
  EXPECT_THAT(Take<LoadState>(), SizeIs(1));
}

TEST_F(AdmissionTest, AnswerToARestartedLoadIsIgnored) {
  Admit(From("a", 1));
  admission_.OfferLoads();
  const Message old = Take<LoadState>()[0];
  admission_.RestartLoads();
  AnswerLoad(old, Success());
  EXPECT_THAT(TakeCurrent(), IsEmpty());
  admission_.OfferLoads();
  AnswerLoad(Take<LoadState>()[0], Success());
  EXPECT_THAT(TakeCurrent(), SizeIs(1));
}

TEST_F(AdmissionTest, LoadThatTakesTooLongNoLongerHoldsUpTheStart) {
  Admit(From("a", 1));
  admission_.OfferLoads();
  EXPECT_TRUE(admission_.loading());
  env_.Advance(absl::Minutes(2));
  EXPECT_FALSE(admission_.loading());
}

TEST_F(AdmissionTest, LoadThatFailedBeforeNoLongerHoldsUpTheStartWhileItIsTriedAgain) {
  Admit(From("a", 1));
  Admit(From("b", 2));
  admission_.OfferLoads();
  const std::vector<Message> loads = Take<LoadState>();
  ASSERT_THAT(loads, SizeIs(2));
  AnswerLoad(loads[0], Failure());
  EXPECT_TRUE(admission_.loading()) << "the other one's first load is under way";
  AnswerLoad(loads[1], Success());
  admission_.OfferLoads();
  EXPECT_THAT(Take<LoadState>(), IsEmpty()) << "not at once";
  env_.Advance(absl::Milliseconds(300));
  ASSERT_THAT(Take<LoadState>(), SizeIs(1)) << "it is tried again";
  EXPECT_FALSE(admission_.loading());
  admission_.RestartLoads();
  admission_.OfferLoads();
  EXPECT_TRUE(admission_.loading()) << "of another state";
}

TEST_F(AdmissionTest, LoadedStateThatIsNoLongerCurrentIsNotTaken) {
  Admit(From("a", 1));
  admission_.OfferLoads();
  AnswerLoad(Take<LoadState>()[0], Success());
  current_.hash.low ^= 1;
  EXPECT_THAT(TakeCurrent(), IsEmpty());
  EXPECT_FALSE(admission_.empty());
}

TEST_F(AdmissionTest, DroppedJoinerIsForgottenAndItsRequestsWithIt) {
  const Incarnation joiner = Admit(From("a", 1));
  EXPECT_EQ(admission_.FindByAddress(TestEndpoint("a").control), joiner);
  admission_.OfferLoads();
  admission_.Drop(joiner, "connection lost");
  EXPECT_TRUE(admission_.empty());
  EXPECT_EQ(swarm_.outbox().pending(), 0u);
  EXPECT_THAT(events_, testing::Contains("joiner_lost"));
}

TEST_F(AdmissionTest, MemberOfAnEndedEraLoadsAgainAsTheSameIncarnation) {
  Replica replica;
  replica.member = {Incarnation{kEpoch, 40}, PeerId{1}, StageId{1}, TestEndpoint("a")};
  admission_.Readmit(replica);
  admission_.OfferLoads();
  AnswerLoad(Take<LoadState>()[0], Success());
  const std::vector<Replica> taken = TakeCurrent();
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].member.incarnation, replica.member.incarnation);
}

}  // namespace
}  // namespace starling
