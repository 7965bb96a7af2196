// Bad input: each case gives one clear line on stderr that says what is wrong, where, and what to
// do, and a non-zero exit; nothing is left behind. Table-driven, since each case starts a process.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_transport.h"
#include "runtime/wire/wire.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Matcher;
using testing::StartsWith;

class BadInputTest : public ::testing::Test {
 protected:
  BadInputTest() : run_(folder_.path() + "/run"), file_(folder_.path() + "/tiny.toml") {
    std::string text;
    while (text.size() < 8000) text += "The quick brown fox. ";
    WriteFileText(folder_.path() + "/text", text);
    WriteRunFile("");
  }

  void WriteRunFile(const std::string& more) {
    WriteFileText(file_, "[data]\ntext = [\"" + folder_.path() +
                             "/text\"]\n[model]\nlayers = 2\nwidth = 16\nheads = 2\ncontext = 8\n"
                             "[train]\nsteps = 2\nglobal_batch = 4\nmicrobatch = 2\n" +
                             more);
  }

  Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STARLING_PROGRAM);
    return RunToEnd(std::move(arguments));
  }
  std::vector<std::string> Train(std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {"train", file_, "--run-dir", run_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  void ExpectOneLine(const Finished& end, const Matcher<std::string>& line) {
    EXPECT_NE(end.exit_code, 0);
    EXPECT_GE(end.exit_code, 0) << "ran into the limit";
    EXPECT_LT(end.exit_code, 128) << "killed";
    EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), line));
    EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  }

  TemporaryFolder folder_;
  const std::string run_;
  const std::string file_;
};

TEST_F(BadInputTest, CommandLine) {
  const struct {
    std::vector<std::string> arguments;
    const char* says;
  } cases[] = {
      {{}, "name a command"},
      {{"fly"}, "fly"},
      {{"config"}, "config needs"},
      {{"config", "fly"}, "fly"},
      {{"train"}, "run_file"},
      {{"train", file_, "--steps=5"}, "--steps=5"},
      {{"train", file_, "--train.steps", "5"}, "--section.key=value"},
      {{"train", file_, "second.toml"}, "second.toml"},
      {{"stage"}, "--join"},
      {{"status", folder_.path() + "/none"}, "does not exist"},
      {{"checkpoint", "verify", folder_.path()}, "neither"},
      {{"config", "validate", folder_.path() + "/none.toml"}, "no such file"},
      {{"resume", folder_.path()}, "run.toml"},
  };
  for (const auto& one : cases) ExpectOneLine(Run(one.arguments), HasSubstr(one.says));
}

TEST_F(BadInputTest, RunFileNamesFileLineAndKey) {
  const struct {
    const char* more;
    const char* where;
    const char* says;
  } cases[] = {
      {"stepz = 3\n", "tiny.toml:12: ", "stepz"},
      {"eval_every = -1\n", "tiny.toml:12: train.eval_every", "-1"},
      {"[swarm]\nstages = 3\n", "tiny.toml:13: swarm.stages", "layers"},
      {"[swarm]\nstages = 2\ncuts = [1]\n", "tiny.toml:1", "cuts"},
      {"[optimizer]\nlr = \"fast\"\n", "tiny.toml:13: optimizer.lr", "fast"},
      {"[swarm\n", "tiny.toml:12", ""},
  };
  for (const auto& one : cases) {
    WriteRunFile(one.more);
    ExpectOneLine(Run(Train()), AllOf(HasSubstr(one.where), HasSubstr(one.says)));
    EXPECT_FALSE(std::filesystem::exists(run_)) << one.more;
  }
  WriteRunFile("");
  ExpectOneLine(Run(Train({"--model.heads=3"})), AllOf(HasSubstr("heads"), HasSubstr("3")));
  ExpectOneLine(Run(Train({"--train.steps=many"})), HasSubstr("--train.steps"));
}

TEST_F(BadInputTest, TextThatIsMissingOrTooShort) {
  const std::string none = "--data.text=[\"" + folder_.path() + "/*.none\"]";
  ExpectOneLine(Run(Train({"--swarm.stages=2", none})), HasSubstr("*.none"));
  ExpectOneLine(Run(Train({"--swarm.stages=2", "--model.context=4096"})), HasSubstr("too few"));
  EXPECT_FALSE(std::filesystem::exists(run_));
}

TEST_F(BadInputTest, AddressInUseLeavesNothingBehind) {
  EventLoop loop;
  const auto taken = ZmqTransport::Create(&loop, ZmqTransport::Options());
  ASSERT_TRUE(taken.ok());
  const std::string& address = (*taken)->address().control;
  ExpectOneLine(Run(Train({"--swarm.stages=2", "--swarm.listen=" + address})),
                AllOf(HasSubstr(address), HasSubstr("in use")));
  EXPECT_FALSE(std::filesystem::exists(run_));
}

TEST_F(BadInputTest, RunDirectoryThatExistsNamesResume) {
  std::filesystem::create_directory(run_);
  ExpectOneLine(Run(Train({"--swarm.stages=2"})), HasSubstr("starling resume " + run_));
}

TEST_F(BadInputTest, DiskThatIsFullWhenTheRunIsMade) {
  Subprocess::Options options;
  options.arguments = Train({"--swarm.stages=2"});
  options.arguments.insert(options.arguments.begin(), STARLING_PROGRAM);
  options.file_size_limit = 4000;  // version 0 is larger
  ExpectOneLine(RunToEnd(options), HasSubstr(run_));
  EXPECT_FALSE(std::filesystem::exists(run_));
}

TEST_F(BadInputTest, NobodyAtTheRendezvous) {
  std::string address;
  {
    EventLoop loop;
    address = (*ZmqTransport::Create(&loop, ZmqTransport::Options()))->address().control;
  }
  const absl::Time began = absl::Now();
  ExpectOneLine(Run({"stage", "--join", address}),
                AllOf(HasSubstr(address), HasSubstr("no rendezvous")));
  EXPECT_GE(absl::Now() - began, absl::Seconds(10));
  ExpectOneLine(Run({"status", address}), AllOf(HasSubstr(address), HasSubstr("no trainer")));
  ExpectOneLine(Run({"stage", "--join", "nowhere"}), HasSubstr("no address"));
  ExpectOneLine(Run({"stage", "--join", address, "--stage", "first"}), HasSubstr("--stage first"));
}

// A rendezvous that refuses everyone, as that of another version would.
class Refuser final : public TransportHandler {
 public:
  explicit Refuser(Transport* transport) : transport_(transport) { transport->SetHandler(this); }
  void OnPacket(Packet packet) override {
    const auto message = DecodeMessage(std::move(packet), WireLimits());
    const auto* hello = message.ok() ? std::get_if<Hello>(&message->body) : nullptr;
    if (hello == nullptr) return;
    Message reply;
    reply.reply_to = message->request;
    reply.body = Refused{false, "this peer speaks protocol 1, the trainer 2"};
    transport_->Send(hello->address, Channel::kControl, EncodeMessage(reply)).IgnoreError();
  }
  void OnLinkLost(const Endpoint& peer) override {}

 private:
  Transport* const transport_;
};

TEST_F(BadInputTest, PeerThatIsRefusedSaysWhyAndEnds) {
  EventLoop loop;
  auto transport = *ZmqTransport::Create(&loop, ZmqTransport::Options());
  Refuser refuser(transport.get());
  Subprocess stage({STARLING_PROGRAM, "stage", "--join", transport->address().control});
  std::optional<int> exit_code;
  EXPECT_TRUE(WaitUntil([&] {
    loop.RunUntil([] { return false; }, absl::Milliseconds(5));
    exit_code = stage.WaitForExit(absl::ZeroDuration());
    return exit_code.has_value();
  }));
  ExpectOneLine({exit_code.value_or(-1), stage.Output(), stage.Errors()},
                HasSubstr("the trainer 2"));
}

}  // namespace
}  // namespace starling
