// Transports of several processes: what the others see of one that is killed or stopped.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/reactor/zmq_transport.h"
#include "tests/testing/transport_contract.h"

extern char** environ;

namespace starling {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kLongWait = absl::Seconds(30);

// The echo process, killed with the object.
class EchoPeer {
 public:
  EchoPeer() {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    std::string program = STARLING_ECHO_PEER;
    char* const arguments[] = {program.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    std::string line;
    char byte = 0;
    while (read(ends[0], &byte, 1) == 1 && byte != '\n') line.push_back(byte);
    close(ends[0]);
    std::istringstream(line) >> address_.control >> address_.bulk;
  }
  ~EchoPeer() { Kill(); }
  void Kill() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void Stop() {
    kill(pid_, SIGSTOP);
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
    EXPECT_TRUE(WIFSTOPPED(status));
  }
  void Continue() { kill(pid_, SIGCONT); }
  const Endpoint& address() const { return address_; }

 private:
  pid_t pid_ = 0;
  Endpoint address_;
};

class ZmqProcessTest : public ::testing::Test {
 protected:
  ZmqProcessTest() {
    transport_ = *ZmqTransport::Create(&loop_, {});
    transport_->SetHandler(&handler_);
  }
  // Sends a packet that comes back.
  void Ping(const Endpoint& to, Channel channel) {
    const Endpoint& own = transport_->address();
    ASSERT_TRUE(transport_->Send(to, channel, TextPacket(own.control + " " + own.bulk)).ok());
  }
  bool RunUntilPackets(size_t count) {
    return loop_.RunUntil([this, count] { return handler_.packets.size() >= count; }, kLongWait);
  }

  EventLoop loop_;
  RecordingHandler handler_;
  std::unique_ptr<ZmqTransport> transport_;
};

TEST_F(ZmqProcessTest, KilledProcessIsReportedOnceAndTheOthersGoOn) {
  EchoPeer victim;
  EchoPeer other;
  Ping(victim.address(), Channel::kControl);
  Ping(victim.address(), Channel::kBulk);
  Ping(other.address(), Channel::kControl);
  ASSERT_TRUE(RunUntilPackets(3));
  victim.Kill();
  ASSERT_TRUE(loop_.RunUntil([this] { return !handler_.lost.empty(); }, kLongWait));
  Ping(other.address(), Channel::kControl);
  ASSERT_TRUE(RunUntilPackets(4));
  loop_.RunUntil([] { return false; }, absl::Milliseconds(100));
  EXPECT_THAT(handler_.lost, ElementsAre(victim.address()));
}

TEST_F(ZmqProcessTest, StoppedProcessIsNotLostAndAnswersWhenItGoesOn) {
  EchoPeer peer;
  Ping(peer.address(), Channel::kControl);
  ASSERT_TRUE(RunUntilPackets(1));
  peer.Stop();
  Ping(peer.address(), Channel::kControl);
  Ping(peer.address(), Channel::kBulk);
  loop_.RunUntil([] { return false; }, absl::Milliseconds(300));
  EXPECT_EQ(handler_.packets.size(), 1u);
  EXPECT_THAT(handler_.lost, testing::IsEmpty());
  peer.Continue();
  EXPECT_TRUE(RunUntilPackets(3));
}

}  // namespace
}  // namespace starling
