#include "runtime/membership/outbox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "runtime/wire/wire.h"
#include "tests/testing/fake_env.h"
#include "tests/testing/fake_transport.h"

namespace starling {
namespace {

constexpr Incarnation kFirst{static_cast<Epoch>(1), 1};
constexpr Incarnation kSecond{static_cast<Epoch>(1), 2};

Message SealOf(uint64_t step) {
  Message message;
  message.body = Seal{static_cast<Step>(step), 1};
  return message;
}

Message ReplyTo(uint64_t request) {
  Message message;
  message.reply_to = request;
  message.body = Ack{};
  return message;
}

class OutboxTest : public ::testing::Test {
 protected:
  // Sends a seal whose answer adds `step` to answered_.
  uint64_t Send(uint64_t step, const Endpoint& to, Incarnation incarnation = kFirst) {
    return outbox_.Send(to, incarnation, SealOf(step),
                        [this, step](const Message&) { answered_.push_back(step); });
  }
  uint64_t Send(uint64_t step) { return Send(step, peer_); }

  // The steps of the seals sent since the last call.
  std::vector<uint64_t> TakeSteps() {
    std::vector<uint64_t> steps;
    for (const SentMessage& sent : transport_.TakeMessages()) {
      steps.push_back(Value(std::get<Seal>(sent.message.body).step));
    }
    return steps;
  }

  using Steps = std::vector<uint64_t>;
  FakeEnv env_;
  FakeTransport transport_{TestEndpoint("self")};
  Endpoint peer_ = TestEndpoint("peer");
  Endpoint other_ = TestEndpoint("other");
  Outbox outbox_{&env_, &transport_, Outbox::Options{}};
  Steps answered_;
};

TEST_F(OutboxTest, ARequestIsSentAtOnceWithItsNumber) {
  const uint64_t request = Send(1);
  const std::vector<SentMessage> sent = transport_.TakeMessages();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].to, peer_);
  EXPECT_EQ(sent[0].channel, Channel::kControl);
  EXPECT_EQ(sent[0].message.request, request);
  EXPECT_NE(request, 0u);
  EXPECT_EQ(outbox_.pending(), 1u);
}

TEST_F(OutboxTest, RequestNumbersGrow) {
  const uint64_t first = Send(1);
  EXPECT_EQ(Send(2), first + 1);
}

TEST_F(OutboxTest, RequestNumbersOfAnotherLifeAreOthers) {
  FakeEnv env(2);
  Outbox restarted(&env, &transport_, Outbox::Options{});
  const uint64_t request = Send(1);
  const uint64_t later = restarted.Send(peer_, kFirst, SealOf(1), [](const Message&) {});
  EXPECT_GT(std::max(request, later) - std::min(request, later), uint64_t{1} << 32);
}

TEST_F(OutboxTest, AnAnsweredRequestIsNotRepeated) {
  const uint64_t request = Send(1);
  EXPECT_TRUE(answered_.empty());
  EXPECT_TRUE(outbox_.OnReply(ReplyTo(request)));
  EXPECT_EQ(answered_, Steps({1}));
  TakeSteps();
  env_.Advance(absl::Minutes(10));
  EXPECT_TRUE(TakeSteps().empty());
  EXPECT_EQ(outbox_.retries(), 0u);
}

TEST_F(OutboxTest, ALateSecondAnswerIsDropped) {
  const uint64_t request = Send(1);
  EXPECT_TRUE(outbox_.OnReply(ReplyTo(request)));
  EXPECT_FALSE(outbox_.OnReply(ReplyTo(request)));
  EXPECT_FALSE(outbox_.OnReply(ReplyTo(request + 1)));
  EXPECT_FALSE(outbox_.OnReply(ReplyTo(0)));
  EXPECT_EQ(answered_, Steps({1}));
}

TEST_F(OutboxTest, AnUnansweredRequestIsRepeatedWithDoublingPausesUpToTheLongest) {
  Send(1);
  transport_.TakePackets();
  const absl::Time start = env_.Now();
  std::vector<double> seconds;
  while (seconds.size() < 7 && env_.RunNext()) {
    for (size_t sent = transport_.TakePackets().size(); sent > 0; --sent) {
      seconds.push_back(absl::ToDoubleSeconds(env_.Now() - start));
    }
  }
  EXPECT_EQ(seconds, std::vector<double>({2, 6, 14, 30, 60, 90, 120}));
  EXPECT_EQ(outbox_.retries(), 7u);
}

TEST_F(OutboxTest, ARepeatIsTheSamePacketAndSharesItsTensor) {
  Message message;
  Piece piece;
  piece.data = Blob::OfFloats({1, 2, 3});
  message.body = piece;
  outbox_.Send(peer_, kFirst, message, [](const Message&) {});
  env_.Advance(absl::Seconds(3));
  const std::vector<SentPacket> sent = transport_.TakePackets();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].channel, Channel::kBulk);
  EXPECT_EQ(sent[1].channel, Channel::kBulk);
  EXPECT_EQ(sent[1].packet.envelope.data(), sent[0].packet.envelope.data());
  EXPECT_EQ(sent[1].packet.frames[0].data(), piece.data.data());
}

TEST_F(OutboxTest, OneTimerServesManyRequests) {
  for (uint64_t step = 1; step <= 100; ++step) {
    Send(step);
    env_.Advance(absl::Milliseconds(1));
  }
  EXPECT_EQ(env_.timers(), 1u);
  outbox_.CancelAll();
  EXPECT_EQ(env_.timers(), 0u);
}

TEST_F(OutboxTest, RepeatsComeInTheOrderTheyFellDue) {
  Send(1, peer_);
  env_.Advance(absl::Seconds(1));
  Send(2, other_);
  Send(3, peer_);
  TakeSteps();
  env_.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(TakeSteps(), Steps({1}));
  env_.Advance(absl::Seconds(1));
  EXPECT_EQ(TakeSteps(), Steps({2, 3}));
}

TEST_F(OutboxTest, AfterASleepEachOverdueRequestIsRepeatedOnce) {
  Send(1);
  Send(2);
  TakeSteps();
  env_.Sleep(absl::Minutes(5));
  env_.Advance(absl::ZeroDuration());
  EXPECT_EQ(TakeSteps(), Steps({1, 2}));
}

TEST_F(OutboxTest, AFullQueueCountsAsLostAndIsTriedSooner) {
  transport_.FailSends(absl::ResourceExhaustedError("full"));
  const uint64_t request = Send(1);
  EXPECT_EQ(outbox_.refused_sends(), 1u);
  env_.Advance(absl::Milliseconds(500));
  EXPECT_EQ(outbox_.refused_sends(), 3u);
  EXPECT_EQ(outbox_.retries(), 0u);
  transport_.FailSends(absl::OkStatus());
  env_.Advance(absl::Milliseconds(200));
  EXPECT_EQ(TakeSteps(), Steps({1}));
  EXPECT_TRUE(outbox_.OnReply(ReplyTo(request)));
  EXPECT_EQ(answered_, Steps({1}));
}

TEST_F(OutboxTest, SlowAnswersMakeTheFirstRepeatLaterForThatKindAndPlaceOnly) {
  for (uint64_t step = 1; step <= 30; ++step) {
    const uint64_t request = Send(step);
    env_.Advance(absl::Seconds(6));
    ASSERT_TRUE(outbox_.OnReply(ReplyTo(request)));
  }
  const uint64_t retries_while_learning = outbox_.retries();
  EXPECT_LE(retries_while_learning, 4u);
  Send(31);
  env_.Advance(absl::Seconds(5.5));
  EXPECT_EQ(outbox_.retries(), retries_while_learning);
  outbox_.CancelAll();

  Send(32, other_);
  env_.Advance(absl::Seconds(3));
  EXPECT_EQ(outbox_.retries(), retries_while_learning + 1);
  outbox_.CancelAll();
  Message cancel;
  cancel.body = Cancel{};
  outbox_.Send(peer_, kFirst, cancel, [](const Message&) {});
  env_.Advance(absl::Seconds(3));
  EXPECT_EQ(outbox_.retries(), retries_while_learning + 2);
}

TEST_F(OutboxTest, ASlowStartIsForgottenWhenAnswersComeFast) {
  uint64_t request = Send(1);
  env_.Advance(absl::Seconds(6));
  ASSERT_TRUE(outbox_.OnReply(ReplyTo(request)));
  for (uint64_t step = 2; step <= 60; ++step) {
    request = Send(step);
    env_.Advance(absl::Milliseconds(10));
    ASSERT_TRUE(outbox_.OnReply(ReplyTo(request)));
  }
  const uint64_t retries_before = outbox_.retries();
  Send(61);
  env_.Advance(absl::Milliseconds(249));
  EXPECT_EQ(outbox_.retries(), retries_before);
  env_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(outbox_.retries(), retries_before + 1);
}

TEST_F(OutboxTest, WhereAnswersAreFastALostRequestIsSoonRepeatedAndThenLessAndLess) {
  for (uint64_t step = 1; step <= 30; ++step) {
    const uint64_t request = Send(step);
    env_.Advance(absl::Milliseconds(100));
    ASSERT_TRUE(outbox_.OnReply(ReplyTo(request)));
  }
  Send(31);
  TakeSteps();
  const absl::Time start = env_.Now();
  std::vector<double> seconds;
  while (seconds.size() < 3 && env_.RunNext()) {
    for (size_t sent = TakeSteps().size(); sent > 0; --sent) {
      seconds.push_back(absl::ToDoubleSeconds(env_.Now() - start));
    }
  }
  EXPECT_EQ(seconds, std::vector<double>({0.25, 0.75, 1.75}));
}

TEST_F(OutboxTest, ABulkRequestIsNotRepeatedAsSoonAsASmallOne) {
  Message message;
  message.body = Piece{};
  for (int i = 0; i < 30; ++i) {
    const uint64_t request = outbox_.Send(peer_, kFirst, message, [](const Message&) {});
    ASSERT_TRUE(outbox_.OnReply(ReplyTo(request)));
  }
  outbox_.Send(peer_, kFirst, message, [](const Message&) {});
  env_.Advance(absl::Milliseconds(999));
  EXPECT_EQ(outbox_.retries(), 0u);
  env_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(outbox_.retries(), 1u);
}

TEST_F(OutboxTest, MoreOpenRequestsThanStatedAreCountedAndStillSent) {
  Outbox::Options options;
  options.pending_bound = 2;
  Outbox outbox(&env_, &transport_, options);
  uint64_t last = 0;
  for (uint64_t step = 1; step <= 4; ++step) {
    last = outbox.Send(peer_, kFirst, SealOf(step), [](const Message&) {});
  }
  outbox.OnReply(ReplyTo(last));
  EXPECT_EQ(TakeSteps(), Steps({1, 2, 3, 4}));
  EXPECT_EQ(outbox.most_pending(), 4u);
  EXPECT_EQ(outbox.over_bound(), 2u);
  EXPECT_EQ(outbox_.over_bound(), 0u);
}

TEST_F(OutboxTest, AVerySlowAnswererIsStillAskedAgainAfterTheLongestPause) {
  const uint64_t request = Send(1);
  env_.Advance(absl::Hours(1));
  ASSERT_TRUE(outbox_.OnReply(ReplyTo(request)));
  TakeSteps();
  Send(2);
  env_.Advance(absl::Seconds(29));
  EXPECT_EQ(TakeSteps(), Steps({2}));
  env_.Advance(absl::Seconds(2));
  EXPECT_EQ(TakeSteps(), Steps({2}));
}

TEST_F(OutboxTest, CancellingAnIncarnationForgetsItsRequestsOnly) {
  const uint64_t first = Send(1, peer_, kFirst);
  const uint64_t second = Send(2, other_, kSecond);
  outbox_.CancelTo(kFirst);
  EXPECT_EQ(outbox_.pending(), 1u);
  EXPECT_FALSE(outbox_.OnReply(ReplyTo(first)));
  TakeSteps();
  env_.Advance(absl::Seconds(3));
  EXPECT_EQ(TakeSteps(), Steps({2}));
  EXPECT_TRUE(outbox_.OnReply(ReplyTo(second)));
  EXPECT_EQ(answered_, Steps({2}));
}

TEST_F(OutboxTest, CancellingOneRequestForgetsThatOne) {
  const uint64_t first = Send(1);
  Send(2);
  outbox_.Cancel(first);
  outbox_.Cancel(first);
  EXPECT_EQ(outbox_.pending(), 1u);
  EXPECT_FALSE(outbox_.OnReply(ReplyTo(first)));
  TakeSteps();
  env_.Advance(absl::Seconds(3));
  EXPECT_EQ(TakeSteps(), Steps({2}));
}

TEST_F(OutboxTest, CancelledRequestsAreNeverAnswered) {
  const uint64_t request = Send(1);
  outbox_.CancelAll();
  EXPECT_FALSE(outbox_.OnReply(ReplyTo(request)));
  EXPECT_TRUE(answered_.empty());
}

TEST_F(OutboxTest, AnAnswerMaySendAndCancel) {
  const uint64_t request = outbox_.Send(peer_, kFirst, SealOf(1), [this](const Message&) {
    outbox_.CancelAll();
    Send(9);
  });
  Send(2);
  TakeSteps();
  EXPECT_TRUE(outbox_.OnReply(ReplyTo(request)));
  EXPECT_EQ(TakeSteps(), Steps({9}));
  EXPECT_EQ(outbox_.pending(), 1u);
  env_.Advance(absl::Milliseconds(250));
  EXPECT_EQ(TakeSteps(), Steps({9}));
}

TEST_F(OutboxTest, WhatIsSentOnceHasNoNumberAndIsNotRepeated) {
  Message message;
  message.request = 77;
  message.reply_to = 5;
  message.body = Ack{};
  EXPECT_TRUE(outbox_.SendOnce(peer_, message).ok());
  const std::vector<SentMessage> sent = transport_.TakeMessages();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].message.request, 0u);
  EXPECT_EQ(sent[0].message.reply_to, 5u);
  EXPECT_EQ(env_.timers(), 0u);

  transport_.FailSends(absl::ResourceExhaustedError("full"));
  EXPECT_EQ(outbox_.SendOnce(peer_, message).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(OutboxTest, ADestroyedOutboxLeavesNoTimer) {
  {
    Outbox outbox(&env_, &transport_, Outbox::Options{});
    outbox.Send(peer_, kFirst, SealOf(1), [](const Message&) {});
    EXPECT_EQ(env_.timers(), 1u);
  }
  EXPECT_EQ(env_.timers(), 0u);
}

TEST_F(OutboxTest, OverALossyNetworkEveryRequestIsAnsweredExactlyOnce) {
  Rng rng(11);
  std::set<uint64_t> open;
  for (uint64_t step = 1; step <= 200; ++step) open.insert(Send(step));
  for (int round = 0; round < 10000 && outbox_.pending() > 0; ++round) {
    for (const SentMessage& sent : transport_.TakeMessages()) {
      if (rng.Chance(0.4)) continue;  // the request is lost
      if (rng.Chance(0.4)) continue;  // its answer is lost
      outbox_.OnReply(ReplyTo(sent.message.request));
      if (rng.Chance(0.3)) outbox_.OnReply(ReplyTo(sent.message.request));
    }
    env_.RunNext();
  }
  EXPECT_EQ(outbox_.pending(), 0u);
  EXPECT_EQ(std::set<uint64_t>(answered_.begin(), answered_.end()).size(), 200u);
  EXPECT_EQ(answered_.size(), 200u);
  EXPECT_GT(outbox_.retries(), 0u);
}

}  // namespace
}  // namespace starling
