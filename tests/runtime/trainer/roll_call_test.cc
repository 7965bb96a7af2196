#include "runtime/trainer/roll_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

Member MemberNumber(uint32_t counter) {
  Member member;
  member.incarnation = {Epoch{1}, counter};
  member.peer = PeerId{100 + counter};
  member.stage = StageId{0};
  member.address = TestEndpoint("peer" + std::to_string(counter));
  return member;
}

// A trainer of epoch 2 that asks two members.
class RollCallTest : public ::testing::Test {
 protected:
  RollCallTest() {
    for (uint32_t counter : {1u, 2u}) {
      const Member member = MemberNumber(counter);
      options_.members[member.incarnation] = member;
    }
    options_.trainer = transport_.address();
    options_.patience = absl::Seconds(10);
  }
  void Start() {
    roll_call_ = std::make_unique<RollCall>(
        options_, &env_, &swarm_, [this](const Event& e) { events_.push_back(ToString(e)); },
        [this](const std::string& reason) { refused_ = reason; });
    roll_call_->Start();
  }
  std::vector<SentMessage> Asked() {
    std::vector<SentMessage> asked;
    for (SentMessage& sent : transport_.TakeMessages()) {
      if (std::holds_alternative<Muster>(sent.message.body)) asked.push_back(std::move(sent));
    }
    return asked;
  }
  void Answer(const SentMessage& asked, bool hears, double heard_ago_s) {
    Message reply;
    reply.epoch = Epoch{1};
    reply.reply_to = asked.message.request;
    reply.body = MusterReply{hears, heard_ago_s};
    swarm_.outbox().OnReply(reply);
  }
  void Report(uint32_t counter) {
    Hello hello;
    hello.peer = MemberNumber(counter).peer;
    hello.address = MemberNumber(counter).address;
    roll_call_->OnHello(hello);
  }

  FakeEnv env_;
  FakeTransport transport_{TestEndpoint("trainer")};
  Swarm swarm_{&env_, &transport_, RunId{1}, Epoch{2}, 1};
  RollCall::Options options_;
  std::vector<std::string> events_;
  std::string refused_;
  std::unique_ptr<RollCall> roll_call_;
};

TEST_F(RollCallTest, IsCompleteWhenEveryMemberHasReported) {
  Start();
  const std::vector<SentMessage> asked = Asked();
  ASSERT_THAT(asked, SizeIs(2));
  EXPECT_EQ(asked[0].to, MemberNumber(1).address);
  EXPECT_EQ(std::get<Muster>(asked[0].message.body).trainer.control, transport_.address().control);
  Report(1);
  EXPECT_FALSE(roll_call_->complete());
  Report(2);
  EXPECT_TRUE(roll_call_->complete());
  EXPECT_THAT(events_, SizeIs(0));
}

TEST_F(RollCallTest, SilentMemberIsGivenUpAfterTheDeadlineAndNotBefore) {
  Start();
  Report(1);
  env_.Advance(absl::Seconds(9));
  roll_call_->Watch(absl::ZeroDuration());
  EXPECT_FALSE(roll_call_->complete());
  env_.Advance(absl::Seconds(2));
  roll_call_->Watch(absl::ZeroDuration());
  EXPECT_TRUE(roll_call_->complete());
  ASSERT_THAT(events_, SizeIs(1));
  EXPECT_THAT(events_[0], HasSubstr("peer_lost"));
}

TEST_F(RollCallTest, DeadAndLostAndReplacedMembersAreNotWaitedFor) {
  options_.members[MemberNumber(3).incarnation] = MemberNumber(3);
  options_.dead = {MemberNumber(1).incarnation};
  Start();
  EXPECT_THAT(Asked(), SizeIs(2));
  roll_call_->OnLinkLost(MemberNumber(2).address.control);
  EXPECT_FALSE(roll_call_->complete());
  Hello other;  // another process was given the port
  other.peer = PeerId{5};
  other.address = MemberNumber(3).address;
  roll_call_->OnHello(other);
  EXPECT_TRUE(roll_call_->complete());
  EXPECT_THAT(events_, SizeIs(3));
}

TEST_F(RollCallTest, MemberThatBelievesInItsDeadTrainerIsAskedAgainUntilItDoesNot) {
  Start();
  Report(2);
  std::vector<SentMessage> asked = Asked();
  // Its trainer died just before this one came: it has not noticed yet.
  for (double ago = 0.1; ago < 12; ago += 0.5) {
    ASSERT_FALSE(asked.empty()) << ago;
    Answer(asked[0], true, ago);
    env_.Advance(absl::Milliseconds(500));
    roll_call_->Watch(absl::ZeroDuration());
    asked = Asked();
  }
  EXPECT_EQ(refused_, "");
  EXPECT_FALSE(roll_call_->complete());  // it answers, so it lives
  Answer(asked[0], false, 12);
  Report(1);
  EXPECT_TRUE(roll_call_->complete());
}

TEST_F(RollCallTest, AnotherTrainerThatIsAliveIsNamedAndThisOneRefuses) {
  Start();
  std::vector<SentMessage> asked = Asked();
  for (int i = 0; i < 30 && refused_.empty(); ++i) {
    for (const SentMessage& one : asked) Answer(one, true, 0.1);  // hears it all the time
    env_.Advance(absl::Milliseconds(500));
    asked = Asked();
  }
  EXPECT_THAT(refused_, HasSubstr("hears another trainer, of epoch 1"));
}

}  // namespace
}  // namespace starling
