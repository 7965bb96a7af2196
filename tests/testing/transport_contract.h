// What every Transport must do, as a suite that any implementation can be run through:
//
//   class MyHarness {                            // default-constructible; no faults but those
//   asked for
//    public:
//     Endpoint AddressOf(int peer);              // known before the peer is started, and kept
//     Transport& Start(int peer, TransportHandler* handler);  // listens at AddressOf(peer)
//     void Kill(int peer);                       // as if its process died: the transport is
//     destroyed void Act(std::function<void()> act);       // runs `act` where transports may be
//     called bool RunUntil(const std::function<bool()>& done);  // false after a long wait void
//     Settle();                             // lets what is on its way arrive size_t
//     queue_packets();                    // of a Start()ed transport, per peer and channel
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Mine, TransportContract, MyHarness);
#ifndef STARLING_TESTS_TESTING_TRANSPORT_CONTRACT_H_
#define STARLING_TESTS_TESTING_TRANSPORT_CONTRACT_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/env/transport.h"

namespace starling {

inline Packet TextPacket(const std::string& text) { return {Blob::OfString(text), {}}; }

// Bytes that show where they are from.
inline Blob PatternBlob(size_t bytes, uint8_t start) {
  MutableBlob blob = MutableBlob::Uninitialized(DType::kU8, {static_cast<int64_t>(bytes)});
  for (size_t i = 0; i < bytes; ++i) {
    blob.data()[i] = static_cast<std::byte>(start + i + (i >> 8) + (i >> 16));
  }
  return std::move(blob).Freeze();
}

inline bool SameBytes(const Blob& a, const Blob& b) {
  return a.size_bytes() == b.size_bytes() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

// Keeps all it is told.
class RecordingHandler : public TransportHandler {
 public:
  void OnPacket(Packet packet) override {
    inline_call |= sending;
    packets.push_back(std::move(packet));
  }
  void OnLinkLost(const Endpoint& peer) override {
    inline_call |= sending;
    lost.push_back(peer);
  }

  std::vector<std::string> Texts() const {
    std::vector<std::string> texts;
    for (const Packet& packet : packets) texts.push_back(packet.envelope.ToStringBytes());
    return texts;
  }

  bool sending = false;  // set around calls, to catch callbacks made inline
  bool inline_call = false;
  std::vector<Packet> packets;
  std::vector<Endpoint> lost;
};

template <typename Harness>
class TransportContract : public ::testing::Test {
 protected:
  static constexpr int kPeers = 3;

  Transport& Start(int peer) {
    Transport& transport = harness_.Start(peer, &handlers_[peer]);
    EXPECT_EQ(transport.address(), harness_.AddressOf(peer));
    transports_[peer] = &transport;
    return transport;
  }
  absl::Status Send(int from, int to, Channel channel, Packet packet) {
    absl::Status status;
    harness_.Act([&] {
      handlers_[from].sending = true;
      status = transports_[from]->Send(harness_.AddressOf(to), channel, std::move(packet));
      handlers_[from].sending = false;
    });
    return status;
  }
  absl::Status SendText(int from, int to, Channel channel, const std::string& text) {
    return Send(from, to, channel, TextPacket(text));
  }
  bool RunUntil(const std::function<bool()>& done) { return harness_.RunUntil(done); }
  bool RunUntilPackets(int peer, size_t count) {
    return RunUntil([this, peer, count] { return handlers_[peer].packets.size() >= count; });
  }
  // A link from 0 to 1 on which a packet has arrived.
  void Connect01() {
    ASSERT_TRUE(SendText(0, 1, Channel::kControl, "hello").ok());
    ASSERT_TRUE(RunUntilPackets(1, 1));
  }

  RecordingHandler handlers_[kPeers];
  Transport* transports_[kPeers] = {};
  Harness harness_;  // after the handlers: its transports go first
};

TYPED_TEST_SUITE_P(TransportContract);

TYPED_TEST_P(TransportContract, PacketsOfAChannelKeepTheirOrder) {
  this->Start(0);
  this->Start(1);
  std::vector<std::string> control;
  std::vector<std::string> bulk;
  for (int i = 0; i < 300; ++i) {
    control.push_back("c" + std::to_string(i));
    bulk.push_back("b" + std::to_string(i));
    // Few enough on their way for any queue.
    ASSERT_TRUE(this->RunUntilPackets(1, i < 8 ? 0 : 2 * (static_cast<size_t>(i) - 8)));
    ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, control.back()).ok());
    ASSERT_TRUE(this->SendText(0, 1, Channel::kBulk, bulk.back()).ok());
  }
  ASSERT_TRUE(this->RunUntilPackets(1, 600));
  std::vector<std::string> got_control;
  std::vector<std::string> got_bulk;
  for (const std::string& text : this->handlers_[1].Texts()) {
    (text[0] == 'c' ? got_control : got_bulk).push_back(text);
  }
  EXPECT_EQ(got_control, control);
  EXPECT_EQ(got_bulk, bulk);
}

TYPED_TEST_P(TransportContract, FramesOfAllSizesArriveIntactAndAligned) {
  this->Start(0);
  this->Start(1);
  Packet packet = TextPacket("many frames");
  for (size_t bytes : {0u, 1u, 3u, 100u, 4097u, 8192u, 65536u, 1048577u, 8388608u}) {
    packet.frames.push_back(PatternBlob(bytes, static_cast<uint8_t>(packet.frames.size())));
  }
  const std::vector<Blob> sent = packet.frames;
  ASSERT_TRUE(this->Send(0, 1, Channel::kBulk, std::move(packet)).ok());
  ASSERT_TRUE(this->RunUntilPackets(1, 1));
  const Packet& got = this->handlers_[1].packets[0];
  EXPECT_EQ(got.envelope.ToStringBytes(), "many frames");
  ASSERT_EQ(got.frames.size(), sent.size());
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_TRUE(SameBytes(got.frames[i], sent[i])) << "frame " << i;
    EXPECT_EQ(got.frames[i].dtype(), DType::kU8);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(got.frames[i].data()) % 4, 0u) << "frame " << i;
  }
}

TYPED_TEST_P(TransportContract, FramesOutliveTheTransportThatReceivedThem) {
  this->Start(0);
  this->Start(1);
  Packet packet = TextPacket("kept");
  packet.frames.push_back(PatternBlob(100000, 7));
  ASSERT_TRUE(this->Send(0, 1, Channel::kBulk, std::move(packet)).ok());
  ASSERT_TRUE(this->RunUntilPackets(1, 1));
  const Packet kept = std::move(this->handlers_[1].packets[0]);
  this->handlers_[1].packets.clear();
  this->harness_.Kill(1);
  EXPECT_TRUE(SameBytes(kept.frames[0], PatternBlob(100000, 7)));
}

TYPED_TEST_P(TransportContract, PacketToOneselfArrives) {
  this->Start(0);
  ASSERT_TRUE(this->SendText(0, 0, Channel::kControl, "note to self").ok());
  ASSERT_TRUE(this->RunUntilPackets(0, 1));
  EXPECT_THAT(this->handlers_[0].Texts(), testing::ElementsAre("note to self"));
  EXPECT_FALSE(this->handlers_[0].inline_call);
}

TYPED_TEST_P(TransportContract, PeerThatAppearsLaterGetsWhatWaited) {
  this->Start(0);
  ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, "first").ok());
  ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, "second").ok());
  this->harness_.Settle();
  EXPECT_TRUE(this->handlers_[0].lost.empty()) << "a link that was never up is not lost";
  this->Start(1);
  ASSERT_TRUE(this->RunUntilPackets(1, 2));
  EXPECT_THAT(this->handlers_[1].Texts(), testing::ElementsAre("first", "second"));
}

TYPED_TEST_P(TransportContract, DeadPeerIsReportedOnce) {
  this->Start(0);
  this->Start(1);
  this->Start(2);
  this->Connect01();
  ASSERT_TRUE(this->SendText(0, 1, Channel::kBulk, "on the other channel too").ok());
  ASSERT_TRUE(this->SendText(0, 2, Channel::kControl, "another peer").ok());
  ASSERT_TRUE(this->RunUntilPackets(1, 2));
  ASSERT_TRUE(this->RunUntilPackets(2, 1));
  this->harness_.Kill(1);
  ASSERT_TRUE(this->RunUntil([this] { return !this->handlers_[0].lost.empty(); }));
  this->harness_.Settle();
  EXPECT_THAT(this->handlers_[0].lost, testing::ElementsAre(this->harness_.AddressOf(1)));
  EXPECT_FALSE(this->handlers_[0].inline_call);
}

TYPED_TEST_P(TransportContract, SendingAfterALossReachesTheSuccessor) {
  this->Start(0);
  this->Start(1);
  this->Connect01();
  this->harness_.Kill(1);
  ASSERT_TRUE(this->RunUntil([this] { return this->handlers_[0].lost.size() == 1; }));
  this->handlers_[1].packets.clear();
  ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, "to the successor").ok());
  this->Start(1);
  ASSERT_TRUE(this->RunUntilPackets(1, 1));
  EXPECT_THAT(this->handlers_[1].Texts(), testing::ElementsAre("to the successor"));
  this->harness_.Kill(1);
  EXPECT_TRUE(this->RunUntil([this] { return this->handlers_[0].lost.size() == 2; }))
      << "a second loss is reported as well";
}

TYPED_TEST_P(TransportContract, FullQueueRefusesAndQueuesNothing) {
  this->Start(0);
  const size_t bound = this->harness_.queue_packets();
  std::vector<std::string> accepted;
  absl::Status refusal;
  for (size_t i = 0; i <= bound && refusal.ok(); ++i) {
    const std::string text = std::to_string(i);
    refusal = this->SendText(0, 1, Channel::kControl, text);
    if (refusal.ok()) accepted.push_back(text);
  }
  EXPECT_EQ(refusal.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(accepted.size(), bound);
  Packet several = TextPacket("refused too");
  several.frames.push_back(PatternBlob(10000, 1));
  EXPECT_EQ(this->Send(0, 1, Channel::kControl, std::move(several)).code(),
            absl::StatusCode::kResourceExhausted);
  this->Start(1);
  ASSERT_TRUE(this->RunUntilPackets(1, accepted.size()));
  ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, "room again").ok());
  ASSERT_TRUE(this->RunUntilPackets(1, accepted.size() + 1));
  accepted.push_back("room again");
  EXPECT_EQ(this->handlers_[1].Texts(), accepted);
}

TYPED_TEST_P(TransportContract, DisconnectDropsWhatWaitedAndReportsNoLoss) {
  this->Start(0);
  ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, "dropped").ok());
  this->harness_.Act([this] { this->transports_[0]->Disconnect(this->harness_.AddressOf(1)); });
  this->Start(1);
  ASSERT_TRUE(this->SendText(0, 1, Channel::kControl, "sent anew").ok());
  ASSERT_TRUE(this->RunUntilPackets(1, 1));
  this->harness_.Act([this] { this->transports_[0]->Disconnect(this->harness_.AddressOf(1)); });
  this->harness_.Kill(1);
  this->harness_.Settle();
  EXPECT_THAT(this->handlers_[1].Texts(), testing::ElementsAre("sent anew"));
  EXPECT_TRUE(this->handlers_[0].lost.empty());
}

TYPED_TEST_P(TransportContract, DisconnectFromAStrangerIsHarmless) {
  this->Start(0);
  this->harness_.Act([this] { this->transports_[0]->Disconnect(this->harness_.AddressOf(1)); });
  EXPECT_TRUE(this->handlers_[0].lost.empty());
}

TYPED_TEST_P(TransportContract, EndpointThatIsNoneIsInvalid) {
  this->Start(0);
  absl::Status status;
  this->harness_.Act([&] {
    status = this->transports_[0]->Send(Endpoint{"not an address", "nor this"}, Channel::kControl,
                                        TextPacket("lost"));
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

REGISTER_TYPED_TEST_SUITE_P(TransportContract, PacketsOfAChannelKeepTheirOrder,
                            FramesOfAllSizesArriveIntactAndAligned,
                            FramesOutliveTheTransportThatReceivedThem, PacketToOneselfArrives,
                            PeerThatAppearsLaterGetsWhatWaited, DeadPeerIsReportedOnce,
                            SendingAfterALossReachesTheSuccessor, FullQueueRefusesAndQueuesNothing,
                            DisconnectDropsWhatWaitedAndReportsNoLoss,
                            DisconnectFromAStrangerIsHarmless, EndpointThatIsNoneIsInvalid);

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_TRANSPORT_CONTRACT_H_
