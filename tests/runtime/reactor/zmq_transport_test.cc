#include "runtime/reactor/zmq_transport.h"

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/reactor/zmq_harness.h"
#include "tests/testing/transport_contract.h"

namespace starling {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;

INSTANTIATE_TYPED_TEST_SUITE_P(Tcp, TransportContract, TcpHarness);
INSTANTIATE_TYPED_TEST_SUITE_P(Ipc, TransportContract, IpcHarness);

constexpr absl::Duration kLongWait = absl::Seconds(30);

class ZmqTransportTest : public ::testing::Test {
 protected:
  std::unique_ptr<ZmqTransport> Create(ZmqTransport::Options options = {}) {
    auto transport = ZmqTransport::Create(&loop_, std::move(options));
    EXPECT_TRUE(transport.ok()) << transport.status();
    (*transport)->SetHandler(&handler_);
    return *std::move(transport);
  }
  bool RunUntilPackets(size_t count) {
    return loop_.RunUntil([this, count] { return handler_.packets.size() >= count; }, kLongWait);
  }

  EventLoop loop_;
  RecordingHandler handler_;
};

TEST_F(ZmqTransportTest, FreePortsAreToldAsTheyAre) {
  const auto transport = Create();
  EXPECT_THAT(transport->address().control, MatchesRegex("tcp://127.0.0.1:[0-9]+"));
  EXPECT_THAT(transport->address().bulk, MatchesRegex("tcp://127.0.0.1:[0-9]+"));
  EXPECT_NE(transport->address().control, transport->address().bulk);
}

TEST_F(ZmqTransportTest, AdvertisedHostIsToldWithTheBoundPorts) {
  ZmqTransport::Options options;
  options.listen = "tcp://0.0.0.0:*";
  options.advertise = "tcp://localhost";
  const auto transport = Create(options);
  ASSERT_THAT(transport->address().control, MatchesRegex("tcp://localhost:[0-9]+"));
  ASSERT_TRUE(transport->Send(transport->address(), Channel::kBulk, TextPacket("hello")).ok());
  EXPECT_TRUE(RunUntilPackets(1)) << "the advertised address does not lead here";
}

TEST_F(ZmqTransportTest, BusyPortIsUnavailableAndNamedInOneLine) {
  ZmqTransport::Options options;
  options.listen = "tcp://127.0.0.1:" + std::to_string(FreePortPair());
  const auto first = Create(options);
  const absl::Status second = ZmqTransport::Create(&loop_, options).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.message(), "cannot listen on " + options.listen + ": address already in use");
}

TEST_F(ZmqTransportTest, BusyBulkPortIsNamed) {
  const int port = FreePortPair();
  ZmqTransport::Options options;
  options.listen = "tcp://127.0.0.1:" + std::to_string(port);
  const auto first = Create(options);
  options.listen = "tcp://127.0.0.1:" + std::to_string(port - 1);
  const absl::Status second = ZmqTransport::Create(&loop_, options).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.message()), HasSubstr("127.0.0.1:" + std::to_string(port) + ":"));
}

TEST_F(ZmqTransportTest, AddressOfAnotherMachineIsInvalid) {
  ZmqTransport::Options options;
  options.listen = "tcp://192.0.2.1:*";  // reserved for documentation
  const absl::Status status = ZmqTransport::Create(&loop_, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot listen on tcp://192.0.2.1:*: "));
}

TEST_F(ZmqTransportTest, PacketOverTheLimitsIsRefusedBeforeItIsSent) {
  ZmqTransport::Options options;
  options.max_message_bytes = 1000;
  options.max_frames = 3;
  const auto transport = Create(options);
  Packet large{Blob::OfString("e"), {PatternBlob(600, 0), PatternBlob(400, 0)}};
  EXPECT_EQ(transport->Send(transport->address(), Channel::kBulk, large).code(),
            absl::StatusCode::kInvalidArgument);
  Packet many{Blob::OfString("e"), {Blob(), Blob(), Blob()}};
  EXPECT_EQ(transport->Send(transport->address(), Channel::kBulk, many).code(),
            absl::StatusCode::kInvalidArgument);
  Packet fits{Blob::OfString("e"), {PatternBlob(600, 0), PatternBlob(399, 0)}};
  EXPECT_TRUE(transport->Send(transport->address(), Channel::kBulk, fits).ok());
  EXPECT_TRUE(RunUntilPackets(1));
}

TEST_F(ZmqTransportTest, SentBytesAreLetGoOnceTheyAreOut) {
  const auto transport = Create();
  Packet packet = TextPacket("large");
  packet.frames.push_back(PatternBlob(1 << 20, 3));
  const std::weak_ptr<const void> sent = packet.frames[0].owner();
  ASSERT_TRUE(transport->Send(transport->address(), Channel::kBulk, std::move(packet)).ok());
  ASSERT_TRUE(RunUntilPackets(1));
  EXPECT_TRUE(loop_.RunUntil([&] { return sent.expired(); }, kLongWait));
}

TEST_F(ZmqTransportTest, LastPacketsStillLeaveWhenTheTransportIsDestroyed) {
  const auto receiver = Create();
  auto sender = Create();
  Packet last = TextPacket("last words");
  last.frames.push_back(PatternBlob(4 << 20, 5));
  ASSERT_TRUE(sender->Send(receiver->address(), Channel::kControl, std::move(last)).ok());
  sender.reset();
  ASSERT_TRUE(RunUntilPackets(1));
  EXPECT_THAT(handler_.Texts(), ElementsAre("last words"));
  EXPECT_TRUE(SameBytes(handler_.packets[0].frames[0], PatternBlob(4 << 20, 5)));
}

TEST_F(ZmqTransportTest, ControlDoesNotWaitForBulk) {
  const auto receiver = Create();
  const auto sender = Create();
  Packet large = TextPacket("bulk");
  for (int i = 0; i < 8; ++i) large.frames.push_back(PatternBlob(8 << 20, 1));
  ASSERT_TRUE(sender->Send(receiver->address(), Channel::kControl, TextPacket("up")).ok());
  ASSERT_TRUE(RunUntilPackets(1));
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(sender->Send(receiver->address(), Channel::kBulk, large).ok());
  }
  ASSERT_TRUE(sender->Send(receiver->address(), Channel::kControl, TextPacket("heartbeat")).ok());
  ASSERT_TRUE(RunUntilPackets(5));
  EXPECT_NE(handler_.Texts().back(), "heartbeat") << "it came after 192 MiB of bulk";
}

TEST_F(ZmqTransportTest, CountersSayWhatHappened) {
  const auto transport = Create();
  Packet packet = TextPacket("12345");
  packet.frames.push_back(PatternBlob(10, 0));
  ASSERT_TRUE(transport->Send(transport->address(), Channel::kControl, std::move(packet)).ok());
  ASSERT_TRUE(RunUntilPackets(1));
  const ZmqTransport::Stats& stats = transport->stats();
  EXPECT_EQ(stats.packets_sent, 1u);
  EXPECT_EQ(stats.bytes_sent, 15u);
  EXPECT_EQ(stats.packets_received, 1u);
  EXPECT_EQ(stats.bytes_received, 15u);
  EXPECT_EQ(stats.links_opened, 1u);
  EXPECT_EQ(stats.links_lost + stats.refused_full + stats.dropped_malformed, 0u);
}

}  // namespace
}  // namespace starling
