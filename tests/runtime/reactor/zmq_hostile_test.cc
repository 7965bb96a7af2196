// What others may send to a transport's ports: nothing of it disturbs the packets of real peers.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/rng.h"
#include "runtime/reactor/zmq_transport.h"
#include "tests/testing/transport_contract.h"

namespace starling {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kLongWait = absl::Seconds(30);
constexpr int kLimitBytes = 100000;

int PortOf(const std::string& endpoint) {
  return std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
}

// A plain TCP connection.
class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~RawClient() { close(fd_); }
  void Write(const std::string& bytes) { send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

 private:
  const int fd_;
};

// A ZeroMQ socket of any type, used with no regard for the packet format.
class ForeignSocket {
 public:
  ForeignSocket(int type, const std::string& endpoint)
      : context_(zmq_ctx_new()), socket_(zmq_socket(context_, type)) {
    const int no_linger = 0;
    zmq_setsockopt(socket_, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    EXPECT_EQ(zmq_connect(socket_, endpoint.c_str()), 0);
  }
  ~ForeignSocket() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
  }
  void Send(const std::vector<std::string>& frames) {
    for (size_t i = 0; i < frames.size(); ++i) {
      const int flags = i + 1 < frames.size() ? ZMQ_SNDMORE : 0;
      EXPECT_GE(zmq_send(socket_, frames[i].data(), frames[i].size(), flags), 0);
    }
  }

 private:
  void* const context_;
  void* const socket_;
};

class ZmqHostileTest : public ::testing::Test {
 protected:
  ZmqHostileTest() {
    ZmqTransport::Options options;
    options.max_message_bytes = kLimitBytes;
    options.max_frames = 4;
    victim_ = *ZmqTransport::Create(&loop_, options);
    victim_->SetHandler(&handler_);
    friend_ = *ZmqTransport::Create(&loop_, {});
    friend_->SetHandler(&friend_handler_);
  }

  // A packet of a real peer, before and after what is tried.
  void ExpectFriendIsHeard(const std::string& text) {
    ASSERT_TRUE(friend_->Send(victim_->address(), Channel::kControl, TextPacket(text)).ok());
    ASSERT_TRUE(loop_.RunUntil(
        [&] { return !handler_.packets.empty() && handler_.Texts().back() == text; }, kLongWait));
  }
  bool RunUntilDropped(uint64_t count) {
    return loop_.RunUntil([&] { return victim_->stats().dropped_malformed >= count; }, kLongWait);
  }
  const std::string& target() const { return victim_->address().control; }

  EventLoop loop_;
  RecordingHandler handler_;
  RecordingHandler friend_handler_;
  std::unique_ptr<ZmqTransport> victim_;
  std::unique_ptr<ZmqTransport> friend_;
};

TEST_F(ZmqHostileTest, GarbageBytesAreCountedAndDisturbNobody) {
  ExpectFriendIsHeard("before");
  Rng rng(1);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 20; ++i) {
    std::string bytes = i % 2 == 0 ? "" : "\xff";  // some begin as ZeroMQ's greeting does
    for (int n = 0; n < 500; ++n) bytes.push_back(static_cast<char>(rng.Next()));
    clients.push_back(std::make_unique<RawClient>(PortOf(target())));
    clients.back()->Write(bytes);
  }
  clients.clear();
  EXPECT_TRUE(loop_.RunUntil(
      [&] { return victim_->stats().failed_handshakes + victim_->stats().dropped_malformed > 0; },
      kLongWait));
  ExpectFriendIsHeard("after");
  EXPECT_THAT(handler_.Texts(), ElementsAre("before", "after"));
  EXPECT_THAT(friend_handler_.lost, testing::IsEmpty());
}

TEST_F(ZmqHostileTest, MessageInAnOlderProtocolIsDropped) {
  RawClient client(PortOf(target()));
  // Version 1.0 of ZeroMQ's protocol: an empty identity, then a message of five bytes.
  client.Write(std::string("\x01\x00\x06\x00hello", 9));
  ASSERT_TRUE(RunUntilDropped(1));
  ExpectFriendIsHeard("after");
  EXPECT_THAT(handler_.Texts(), ElementsAre("after"));
}

TEST_F(ZmqHostileTest, SocketOfAnotherTypeIsNotHeard) {
  ForeignSocket foreign(ZMQ_REQ, target());
  foreign.Send({"request"});
  ASSERT_TRUE(RunUntilDropped(1));
  ExpectFriendIsHeard("after");
  EXPECT_THAT(handler_.Texts(), ElementsAre("after"));
}

TEST_F(ZmqHostileTest, FrameOverTheLimitIsNeverReadAndItsConnectionIsClosed) {
  ForeignSocket foreign(ZMQ_DEALER, target());
  foreign.Send({"small"});
  ASSERT_TRUE(loop_.RunUntil([&] { return handler_.packets.size() == 1; }, kLongWait));
  foreign.Send({std::string(kLimitBytes + 1, 'x')});
  // What follows on the connection is lost with it, until there is a new one.
  TimerId timer = kNoTimer;
  std::function<void()> again = [&] {
    foreign.Send({"again"});
    timer = loop_.Schedule(absl::Milliseconds(2), again);
  };
  again();
  ASSERT_TRUE(loop_.RunUntil([&] { return handler_.packets.size() >= 2; }, kLongWait));
  loop_.Cancel(timer);
  EXPECT_EQ(handler_.Texts()[0], "small");
  for (size_t i = 1; i < handler_.packets.size(); ++i) EXPECT_EQ(handler_.Texts()[i], "again");
}

TEST_F(ZmqHostileTest, MessageOverTheSumOfBytesOrFramesIsDroppedWhole) {
  ForeignSocket foreign(ZMQ_DEALER, target());
  foreign.Send({"e", std::string(60000, 'x'), std::string(60000, 'x')});
  foreign.Send({"e", "1", "2", "3", "4"});
  foreign.Send({"e", "1", "2", "3"});
  ASSERT_TRUE(RunUntilDropped(2));
  ASSERT_TRUE(loop_.RunUntil([&] { return handler_.packets.size() == 1; }, kLongWait));
  EXPECT_EQ(handler_.packets[0].frames.size(), 3u);
}

TEST_F(ZmqHostileTest, PortThatSpeaksAnotherProtocolIsNotAPeerAndNoLoss) {
  // A listener that answers every connection with bytes that are not ZeroMQ's.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 4), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  int answered = 0;
  const auto watch = loop_.AddReadable(listener, [&] {
    const int fd = accept(listener, nullptr, nullptr);
    const std::string words = "HTTP/1.1 400 Bad Request\r\n\r\n" + std::string(100, 'x');
    EXPECT_GT(send(fd, words.data(), words.size(), MSG_NOSIGNAL), 0);
    close(fd);
    ++answered;
  });
  const std::string there = "tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  ASSERT_TRUE(victim_->Send({there, there}, Channel::kControl, TextPacket("hello")).ok());
  ASSERT_TRUE(loop_.RunUntil([&] { return answered > 0; }, kLongWait));
  ExpectFriendIsHeard("after");
  EXPECT_THAT(handler_.lost, testing::IsEmpty());
  loop_.Remove(watch);
  close(listener);
}

}  // namespace
}  // namespace starling
