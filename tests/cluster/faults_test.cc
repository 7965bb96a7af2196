// Processes are killed, stopped, join, and are shouted at while they train; the steps stay those of
// one process. All but the last test are long runs, so that there is time for it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/base/rng.h"
#include "tests/cluster/cluster_testing.h"

namespace starling {
namespace {

// Swarms of this file: two stages, so that two cores are enough for two replicas of each.
const std::vector<std::string>& TwoByTwo() {
  static const std::vector<std::string> arguments = {"--swarm.stages=2", "--local.replicas=2"};
  return arguments;
}

std::vector<std::string> With(std::vector<std::string> arguments,
                              const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string Folder(const std::string& name) { return ClusterFolder() + "/" + name; }
std::string LongRunFile() { return WriteRunFile(ClusterFolder(), kLongBatch); }

// peer_joined events of those who came when the run was under way.
std::vector<Json> Joiners(const ClusterRun& run) {
  std::vector<Json> joined;
  for (Json& event : run.EventsNamed("peer_joined")) {
    if (event.at("version") > 0) joined.push_back(std::move(event));
  }
  return joined;
}

TEST(KilledReplicasTest, RandomKillsEverySecondLeaveEveryStepAsItWas) {
  ClusterRun run(Folder("killed-replicas"));
  run.Train(LongRunFile(), {"--swarm.stages=3", "--local.replicas=2", "--chaos.kill_every=1s"});
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch);
  ExpectOneHashPerState(run);
  EXPECT_GE(run.EventsNamed("chaos_kill").size(), 3u);
  EXPECT_GE(run.EventsNamed("peer_lost").size(), 2u);
  EXPECT_GE(Joiners(run).size(), 1u);
  // The kills did hit work that had to be done again.
  EXPECT_GE(run.EventsNamed("replayed").size(), 1u);
  EXPECT_TRUE(run.Processes().empty());
}

// A replica that comes from another terminal, with other vector instructions and threads.
Subprocess::Options Outsider(const std::string& address, const std::string& stage,
                             const std::string& capability, const std::string& threads) {
  Subprocess::Options options;
  options.arguments = {STARLING_PROGRAM, "stage", "--join",    address,
                       "--stage",        stage,   "--threads", threads};
  options.environment = {"ATEN_CPU_CAPABILITY=" + capability};
  return options;
}

TEST(OutsideReplicasTest, OthersHardwareJoinsWhileItTrainsAndHoldsTheSameBits) {
  ClusterRun run(Folder("outside-replicas"));
  // Nobody here serves stage 1.
  run.Train(LongRunFile(), {"--swarm.stages=2", "--local.replicas=[1,0]"});
  const std::string address = run.Address();
  Subprocess plain(Outsider(address, "1", "default", "2"));
  ASSERT_TRUE(run.WaitForStep(2)) << run.trainer().Errors() << plain.Output() << plain.Errors();
  EXPECT_EQ(run.Metrics().front().at("replicas"), Json({1, 1}));
  Subprocess wide(Outsider(address, "1", "avx2", "1"));
  Subprocess first(Outsider(address, "0", "default", "2"));
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch);
  EXPECT_EQ(run.Metrics().back().at("replicas"), Json({2, 2}));
  EXPECT_GE(Joiners(run).size(), 2u);
  const std::map<int64_t, int> shared = ExpectOneHashPerState(run);
  for (int64_t stage : {0, 1}) {
    ASSERT_EQ(shared.count(stage), 1u) << "two replicas of stage " << stage << " at no version";
    EXPECT_GE(shared.at(stage), 10);
  }
  // The run is over: they are told so, and end by themselves.
  EXPECT_EQ(plain.WaitForExit().value_or(-1), 0) << plain.Output() << plain.Errors();
  EXPECT_EQ(wide.WaitForExit().value_or(-1), 0) << wide.Output() << wide.Errors();
  EXPECT_EQ(first.WaitForExit().value_or(-1), 0) << first.Output() << first.Errors();
}

TEST(KilledRunTest, EverythingKilledTwiceAtRandomMomentsResumesOnTheSameTrajectory) {
  Rng rng(LoggedSeed());
  ClusterRun run(Folder("killed-run"));
  run.Train(LongRunFile(), TwoByTwo());
  for (const int64_t first_step : {5, 45}) {
    const int64_t step = first_step + static_cast<int64_t>(rng.Below(40));
    uint64_t looks = rng.Below(40);  // a moment within the step
    run.Address();
    ASSERT_TRUE(run.WaitUntilRunning([&] { return run.LastStep() >= step && looks-- == 0; }))
        << run.trainer().Output() << run.trainer().Errors();
    run.KillEverything();
    EXPECT_TRUE(run.Processes().empty());
    EXPECT_LT(run.LastStep(), kSteps);
    run.Resume();
  }
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch);
  ExpectOneHashPerState(run);
  EXPECT_GE(run.EventsNamed("era_began").size(), 3u);
}

TEST(KilledTrainerTest, LiveStageServersAreTakenOverAndNoStepIsTakenTwice) {
  Rng rng(LoggedSeed());
  ClusterRun run(Folder("killed-trainer"));
  run.Train(LongRunFile(), TwoByTwo());
  for (const int64_t first_step : {5, 45}) {
    const int64_t step = first_step + static_cast<int64_t>(rng.Below(30));
    uint64_t looks = rng.Below(40);  // a moment within the step
    run.Address();
    ASSERT_TRUE(run.WaitUntilRunning([&] { return run.LastStep() >= step && looks-- == 0; }))
        << run.trainer().Output() << run.trainer().Errors();
    run.trainer().Signal(SIGKILL);
    ASSERT_TRUE(run.trainer().WaitForExit().has_value());
    EXPECT_LT(run.LastStep(), kSteps);
    EXPECT_EQ(run.Processes().size(), 4u);
    run.Resume();
    ASSERT_TRUE(run.trainer().WaitForOutput("resumed at version "))
        << run.trainer().Output() << run.trainer().Errors();
    EXPECT_NE(run.trainer().Output().find("from 4 live replicas"), std::string::npos)
        << run.trainer().Output();
  }
  run.ExpectSuccess();
  EXPECT_TRUE(run.Processes().empty());
  ExpectEqualToReference(run, kLongBatch);
  ExpectOneHashPerState(run);
  EXPECT_EQ(run.EventsNamed("era_began").size(), 1u);
  EXPECT_EQ(run.EventsNamed("local_exited").size(), 0u);
  EXPECT_EQ(static_cast<int64_t>(run.Metrics().size()), kSteps);
}

TEST(KilledTrainerTest, AReplicaThatDiesWithItIsReplacedAndTheOthersGoOn) {
  ClusterRun run(Folder("killed-trainer-and-replica"));
  run.Train(LongRunFile(), TwoByTwo());
  run.Address();
  ASSERT_TRUE(run.WaitForStep(10)) << run.trainer().Errors();
  const pid_t pid = run.EventsNamed("peer_joined").front().at("pid").get<pid_t>();
  run.trainer().Signal(SIGKILL);
  kill(pid, SIGKILL);
  ASSERT_TRUE(run.trainer().WaitForExit().has_value());
  ASSERT_TRUE(WaitUntil([&] { return run.Processes().size() == 3; }));
  run.Resume();
  ASSERT_TRUE(run.trainer().WaitForOutput("from 3 live replicas"))
      << run.trainer().Output() << run.trainer().Errors();
  run.ExpectSuccess();
  EXPECT_TRUE(run.Processes().empty());
  ExpectEqualToReference(run, kLongBatch);
  EXPECT_EQ(run.EventsNamed("era_began").size(), 1u);
  EXPECT_EQ(run.Metrics().back().at("replicas"), Json({2, 2}));
}

TEST(StoppedReplicaTest, StoppedBeyondDeadAfterIsFencedAndServesAgainWhenItGoesOn) {
  ClusterRun run(Folder("stopped-replica"));
  run.Train(LongRunFile(), With(TwoByTwo(), {"--swarm.dead_after=3s", "--swarm.heartbeat=500ms"}));
  ASSERT_TRUE(run.WaitForStep(10)) << run.trainer().Errors();
  const pid_t pid = run.EventsNamed("peer_joined").front().at("pid").get<pid_t>();
  const auto is_named = [&](const Json& event) { return event.at("pid") == pid; };
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  const auto lost = [&] {
    const std::vector<Json> events = run.EventsNamed("peer_lost");
    return std::any_of(events.begin(), events.end(), is_named);
  };
  EXPECT_TRUE(run.WaitUntilRunning(lost)) << run.trainer().Output();
  const int64_t stopped_at = run.LastStep();
  EXPECT_TRUE(run.WaitForStep(stopped_at + 3)) << "the others do not go on without it";
  ASSERT_EQ(kill(pid, SIGCONT), 0);
  EXPECT_TRUE(run.WaitUntilRunning([&] { return !Joiners(run).empty(); }))
      << run.trainer().Output();
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch);
  ExpectOneHashPerState(run);
  EXPECT_TRUE(run.Processes().empty());
}

TEST(InterruptedRunTest, CtrlCSavesACheckpointLeavesNobodyAndResumes) {
  ClusterRun run(Folder("interrupted-run"));
  run.Train(LongRunFile(), TwoByTwo());
  run.Address();
  ASSERT_TRUE(run.WaitForStep(27)) << run.trainer().Errors();
  run.trainer().Signal(SIGINT);
  run.ExpectSuccess();
  EXPECT_TRUE(run.Processes().empty());
  const int64_t last = run.LastStep();
  ASSERT_LT(last, kSteps);
  ASSERT_FALSE(run.EventsNamed("checkpoint_saved").empty());
  EXPECT_EQ(run.EventsNamed("checkpoint_saved").back().at("step"), last);
  const Finished verify = RunToEnd({STARLING_PROGRAM, "checkpoint", "verify", run.directory()});
  EXPECT_EQ(verify.exit_code, 0) << verify.output << verify.errors;

  // Cut and served otherwise.
  run.Resume({"--swarm.stages=3", "--local.replicas=1"});
  run.ExpectSuccess();
  ExpectEqualToReference(run, kLongBatch);
  EXPECT_EQ(static_cast<int64_t>(run.Metrics().size()), kSteps) << "no step was taken again";
}

// Connections to tcp://127.0.0.1:PORT that say what no peer says, and stay open: closing one could
// take back what has not been read.
class Strangers {
 public:
  static constexpr int kAnswerLimitMs = 60000;

  Strangers() = default;
  ~Strangers() {
    for (int socket_fd : sockets_) close(socket_fd);
  }
  Strangers(const Strangers&) = delete;
  Strangers& operator=(const Strangers&) = delete;

  // Waits for an answer to `greeting`, if there is one.
  void Shout(const std::string& address, const std::string& greeting, const std::string& bytes) {
    const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_GE(socket_fd, 0);
    sockets_.push_back(socket_fd);
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    ASSERT_EQ(connect(socket_fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0) << address;
    // It may close the connection at any moment, and need not read all of it.
    if (!greeting.empty()) {
      send(socket_fd, greeting.data(), greeting.size(), MSG_NOSIGNAL);
      pollfd answer = {socket_fd, POLLIN, 0};
      ASSERT_EQ(poll(&answer, 1, kAnswerLimitMs), 1) << address << " says nothing";
    }
    send(socket_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }

 private:
  std::vector<int> sockets_;
};

// What ZeroMQ's peers say first.
std::string ZmtpGreeting() {
  std::string greeting(64, '\0');
  greeting[0] = '\xff';
  greeting[8] = '\x01';
  greeting[9] = '\x7f';
  greeting[10] = 3;
  greeting.replace(12, 4, "NULL");
  return greeting;
}

// Then: the READY command of a dealer.
std::string ZmtpReady() {
  std::string ready("\x05READY\x0bSocket-Type\x00\x00\x00\x06", 22);
  ready += "DEALER";
  return std::string("\x04") + static_cast<char>(ready.size()) + ready;
}

// What is no ZeroMQ at all, and what follows `ZmtpGreeting`.
std::vector<std::pair<std::string, std::string>> Garbage() {
  Rng rng(7);
  std::string noise(100000, '\0');
  for (char& byte : noise) byte = static_cast<char>(rng.Below(256));
  const std::string ready = ZmtpReady();
  const std::string one_frame = std::string("\x00\x40", 2) + noise.substr(0, 64);
  const std::string two_frames = std::string("\x01\x20", 2) + noise.substr(0, 32) + one_frame;
  // A frame of 2^62 bytes, of which a few come.
  const std::string endless = std::string("\x02\x40\0\0\0\0\0\0\0", 9) + noise;
  return {{"", "GET / HTTP/1.1\r\nHost: starling\r\n\r\n"},
          {"", noise},
          {ZmtpGreeting(), noise},
          {ZmtpGreeting(), ready + noise},
          {ZmtpGreeting(), ready + one_frame},
          {ZmtpGreeting(), ready + two_frames},
          {ZmtpGreeting(), ready + endless},
          {ZmtpGreeting(), ready + std::string("\x00\x00", 2)}};
}

TEST(GarbageTest, BytesOfStrangersOnTrainersAndReplicasPortsHarmNothing) {
  ClusterRun run(Folder("garbage"));
  run.Train(WriteRunFile(ClusterFolder(), kQuickBatch), TwoByTwo());
  const std::string trainer = run.Address();
  ASSERT_TRUE(run.WaitForStep(3)) << run.trainer().Errors();
  // A replica says in its log where it listens.
  const std::string log_path = run.directory() + "/logs/stage-0-replica-0.log";
  const std::string log = FileText(log_path);
  const size_t from = log.find(" from tcp://");
  ASSERT_NE(from, std::string::npos) << log;
  const std::string replica = log.substr(from + 6, log.find(" (pid", from) - from - 6);
  Strangers strangers;
  for (const auto& [greeting, bytes] : Garbage()) {
    strangers.Shout(trainer, greeting, bytes);
    strangers.Shout(replica, greeting, bytes);
  }
  // What comes through ZeroMQ is refused where messages are read, and said.
  EXPECT_TRUE(run.WaitUntilRunning([&] {
    return !run.EventsNamed("message_refused").empty() &&
           FileText(log_path).find("message_refused") != std::string::npos;
  }));
  EXPECT_LT(run.LastStep(), kSteps);
  run.ExpectSuccess();
  ExpectEqualToReference(run, kQuickBatch);
  EXPECT_TRUE(run.EventsNamed("peer_lost").empty());
}

}  // namespace
}  // namespace starling
