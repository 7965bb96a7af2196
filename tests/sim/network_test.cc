#include "tests/sim/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace starling::sim {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr NodeId kA{0};
constexpr NodeId kB{1};

Packet Text(const std::string& text) { return Packet{Blob::OfString(text), {}}; }

class Recorder : public TransportHandler {
 public:
  void OnPacket(Packet packet) override { got.push_back(packet.envelope.ToStringBytes()); }
  void OnLinkLost(const Endpoint& peer) override { lost.push_back(peer.control); }

  std::vector<std::string> got;
  std::vector<std::string> lost;
};

class NetworkTest : public ::testing::Test {
 protected:
  void Make(NetworkOptions options = {}, uint64_t seed = 1) {
    a_.reset();
    b_.reset();
    network_ = std::make_unique<SimNetwork>(&scheduler_, nullptr, options, seed);
    a_ = network_->Attach(kA, SimNetwork::AddressOf(kA, 1));
    a_->SetHandler(&at_a_);
    StartB();
  }
  void StartB() {
    b_ = network_->Attach(kB, b_address_);
    b_->SetHandler(&at_b_);
  }
  void KillB(bool silent = false) {
    b_->Close(silent);
    scheduler_.DropNode(kB);
    b_.reset();
  }
  absl::Status Send(const std::string& text, Channel channel = Channel::kControl) {
    return a_->Send(b_address_, channel, Text(text));
  }
  void RunFor(absl::Duration duration) {
    RunLimits limits;
    limits.deadline = scheduler_.Now() + duration;
    scheduler_.Run(limits);
  }

  Scheduler scheduler_;
  Recorder at_a_, at_b_;
  const Endpoint b_address_ = SimNetwork::AddressOf(kB, 1);
  std::unique_ptr<SimNetwork> network_;
  std::unique_ptr<SimTransport> a_, b_;
};

TEST_F(NetworkTest, APacketArrivesLaterWithItsFramesShared) {
  Make();
  struct Frames : TransportHandler {
    void OnPacket(Packet packet) override { frame = packet.frames.at(0); }
    void OnLinkLost(const Endpoint&) override {}
    Blob frame;
  } frames;
  b_->SetHandler(&frames);
  Packet packet = Text("x");
  const Blob frame = Blob::OfString("tensor");
  packet.frames.push_back(frame);
  ASSERT_TRUE(a_->Send(b_address_, Channel::kBulk, packet).ok());
  EXPECT_TRUE(frames.frame.empty());  // never inline
  const absl::Time sent = scheduler_.Now();
  RunFor(absl::Seconds(1));
  EXPECT_EQ(frames.frame.data(), frame.data());
  EXPECT_GT(scheduler_.Now(), sent);
  EXPECT_EQ(network_->counters().delivered, 1u);
}

TEST_F(NetworkTest, JitterDoesNotChangeTheOrderOfAChannel) {
  NetworkOptions options;
  options.jitter = absl::Milliseconds(50);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    at_b_.got.clear();
    Make(options, seed);
    std::vector<std::string> sent;
    for (int i = 0; i < 30; ++i) {
      sent.push_back(std::to_string(i));
      ASSERT_TRUE(Send(sent.back()).ok());
      RunFor(absl::Microseconds(300));
    }
    RunFor(absl::Seconds(1));
    EXPECT_EQ(at_b_.got, sent) << "seed " << seed;
  }
}

TEST_F(NetworkTest, AControlPacketDoesNotQueueBehindBulk) {
  NetworkOptions options;
  options.bandwidth = 1000;
  Make(options);
  ASSERT_TRUE(Send(std::string(1000, 'b'), Channel::kBulk).ok());
  ASSERT_TRUE(Send(std::string(500, 'c'), Channel::kBulk).ok());
  ASSERT_TRUE(Send("x").ok());
  RunFor(absl::Milliseconds(100));
  EXPECT_THAT(at_b_.got, ElementsAre("x"));
  RunFor(absl::Milliseconds(1000));
  EXPECT_EQ(at_b_.got.size(), 2u);
  RunFor(absl::Milliseconds(500));  // 1.5 s of bytes in all
  EXPECT_EQ(at_b_.got.size(), 3u);
}

TEST_F(NetworkTest, DrawnLossLosesAboutItsShare) {
  NetworkOptions options;
  options.loss = 0.2;
  options.queue_packets = 10000;
  Make(options);
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(Send("x").ok());
  RunFor(absl::Seconds(5));
  EXPECT_EQ(network_->counters().lost + network_->counters().delivered, 5000u);
  EXPECT_NEAR(static_cast<double>(network_->counters().lost), 1000, 150);
}

TEST_F(NetworkTest, AFullQueueRefusesAndRecovers) {
  NetworkOptions options;
  options.queue_packets = 2;
  Make(options);
  EXPECT_TRUE(Send("1").ok());
  EXPECT_TRUE(Send("2").ok());
  EXPECT_EQ(Send("3").code(), absl::StatusCode::kResourceExhausted);
  RunFor(absl::Seconds(1));
  EXPECT_TRUE(Send("4").ok());
  RunFor(absl::Seconds(1));
  EXPECT_THAT(at_b_.got, ElementsAre("1", "2", "4"));
}

TEST_F(NetworkTest, WhatIsNoEndpointIsAnInvalidArgument) {
  Make();
  EXPECT_EQ(a_->Send(Endpoint{"nonsense", ""}, Channel::kControl, Text("x")).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(NetworkTest, PacketsWaitForAListener) {
  Make();
  KillB();
  ASSERT_TRUE(Send("early").ok());
  RunFor(absl::Seconds(3));
  EXPECT_THAT(at_a_.lost, IsEmpty());  // it had never been up
  StartB();
  RunFor(absl::Seconds(3));
  EXPECT_THAT(at_b_.got, ElementsAre("early"));
}

TEST_F(NetworkTest, AProcessThatDiesIsReportedOnceToThoseConnected) {
  Make();
  ASSERT_TRUE(Send("1").ok());
  RunFor(absl::Seconds(1));
  ASSERT_TRUE(Send("on its way").ok());
  KillB();
  EXPECT_THAT(at_a_.lost, IsEmpty());
  RunFor(absl::Seconds(1));
  EXPECT_THAT(at_a_.lost, ElementsAre(b_address_.control));
  StartB();
  ASSERT_TRUE(Send("2").ok());
  RunFor(absl::Seconds(3));
  EXPECT_THAT(at_b_.got, ElementsAre("1", "2"));
  EXPECT_EQ(at_a_.lost.size(), 1u);
}

TEST_F(NetworkTest, APacketToASuccessorThatCameTooSoonIsLostWithTheLink) {
  Make();
  ASSERT_TRUE(Send("1").ok());
  RunFor(absl::Seconds(1));
  KillB();
  StartB();
  ASSERT_TRUE(Send("to the dead one").ok());
  RunFor(absl::Seconds(1));
  EXPECT_THAT(at_a_.lost, ElementsAre(b_address_.control));
  EXPECT_THAT(at_b_.got, ElementsAre("1"));
}

TEST_F(NetworkTest, AMachineThatVanishesIsNoticedLateOrByItsSuccessor) {
  Make();
  ASSERT_TRUE(Send("1").ok());
  RunFor(absl::Seconds(1));
  KillB(/*silent=*/true);
  RunFor(absl::Seconds(20));
  EXPECT_THAT(at_a_.lost, IsEmpty());
  StartB();
  ASSERT_TRUE(Send("reset by the successor").ok());
  RunFor(absl::Seconds(1));
  EXPECT_EQ(at_a_.lost.size(), 1u);
  ASSERT_TRUE(Send("2").ok());
  RunFor(absl::Seconds(1));
  KillB(/*silent=*/true);
  RunFor(absl::Seconds(31));
  EXPECT_EQ(at_a_.lost.size(), 2u);
  EXPECT_THAT(at_b_.got, ElementsAre("1", "2"));
}

TEST_F(NetworkTest, WhatASenderHadNotSentDiesWithIt) {
  NetworkOptions options;
  options.bandwidth = 1000;
  Make(options);
  ASSERT_TRUE(Send(std::string(100, '1'), Channel::kBulk).ok());
  ASSERT_TRUE(Send(std::string(1000, '2'), Channel::kBulk).ok());
  RunFor(absl::Milliseconds(500));
  a_.reset();
  RunFor(absl::Seconds(5));
  EXPECT_THAT(at_b_.got, ElementsAre(std::string(100, '1')));
}

TEST_F(NetworkTest, DisconnectDropsWhatWaitsAndIsSilent) {
  Make();
  KillB();
  ASSERT_TRUE(Send("dropped").ok());
  a_->Disconnect(b_address_);
  StartB();
  RunFor(absl::Seconds(3));
  ASSERT_TRUE(Send("kept").ok());
  RunFor(absl::Seconds(1));
  a_->Disconnect(b_address_);
  KillB();
  RunFor(absl::Seconds(60));
  EXPECT_THAT(at_b_.got, ElementsAre("kept"));
  EXPECT_THAT(at_a_.lost, IsEmpty());
}

TEST_F(NetworkTest, APartitionIsDirectedLosesPacketsAndHeals) {
  Make();
  ASSERT_TRUE(Send("1").ok());
  ASSERT_TRUE(b_->Send(a_->address(), Channel::kControl, Text("back 1")).ok());
  RunFor(absl::Seconds(1));
  network_->Partition(kA, kB);
  ASSERT_TRUE(Send("lost").ok());
  ASSERT_TRUE(b_->Send(a_->address(), Channel::kControl, Text("back 2")).ok());
  RunFor(absl::Seconds(1));
  EXPECT_THAT(at_a_.got, ElementsAre("back 1", "back 2"));
  EXPECT_THAT(at_a_.lost, ElementsAre(b_address_.control));
  ASSERT_TRUE(Send("waits").ok());
  RunFor(absl::Seconds(5));
  EXPECT_THAT(at_b_.got, ElementsAre("1"));
  network_->Heal(kA, kB);
  RunFor(absl::Seconds(3));
  EXPECT_THAT(at_b_.got, ElementsAre("1", "waits"));
}

TEST_F(NetworkTest, AClogHoldsPacketsAndDeliversThemInOrder) {
  Make();
  network_->Clog(kA, kB, absl::Seconds(5));
  ASSERT_TRUE(Send("1").ok());
  ASSERT_TRUE(Send("2").ok());
  RunFor(absl::Milliseconds(4900));
  EXPECT_THAT(at_b_.got, IsEmpty());
  RunFor(absl::Seconds(1));
  EXPECT_THAT(at_b_.got, ElementsAre("1", "2"));
}

TEST_F(NetworkTest, TheFilterDropsAndDelaysWhatItChooses) {
  Make();
  network_->SetFilter([](const PacketInfo& info) {
    PacketFate fate;
    fate.drop = info.packet.envelope.ToStringBytes() == "reply";
    if (info.channel == Channel::kBulk) fate.extra_delay = absl::Seconds(9);
    return fate;
  });
  ASSERT_TRUE(Send("reply").ok());
  ASSERT_TRUE(Send("bulk", Channel::kBulk).ok());
  ASSERT_TRUE(Send("request").ok());
  RunFor(absl::Seconds(5));
  EXPECT_THAT(at_b_.got, ElementsAre("request"));
  RunFor(absl::Seconds(5));
  EXPECT_THAT(at_b_.got, ElementsAre("request", "bulk"));
}

}  // namespace
}  // namespace starling::sim
