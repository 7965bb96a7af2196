#include "runtime/app/local_swarm.h"

#include <signal.h>
#include <sys/stat.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/app/child_process.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr absl::Duration kLimit = absl::Seconds(60);

// Stage servers that are shell scripts.
class LocalSwarmTest : public ::testing::Test {
 protected:
  LocalSwarmTest() {
    mkdir((folder_.path() + "/logs").c_str(), 0777);
    options_.program = folder_.path() + "/server";
    options_.join = "tcp://" + folder_.path();  // to be found by
    options_.run_directory = folder_.path();
    options_.config.swarm.stages = 2;
    options_.config.local.replicas = {2, 1};
    options_.config.local.threads = {3};
    // Waits for ever, as a builtin of the shell: nobody writes to it.
    wait_ = "read line < " + folder_.path() + "/fifo";
    EXPECT_EQ(mkfifo((folder_.path() + "/fifo").c_str(), 0666), 0);
    Serve(wait_);
  }

  void Serve(const std::string& script) {
    WriteFileText(options_.program, "#!/bin/sh\n" + script + "\n");
    chmod(options_.program.c_str(), 0755);
  }

  std::unique_ptr<LocalSwarm> Start() {
    auto swarm = std::make_unique<LocalSwarm>(
        options_, &loop_, &disk_, [this](const Event& event) { events_.push_back(event); });
    const absl::Status status = swarm->Start();
    EXPECT_TRUE(status.ok()) << status;
    return swarm;
  }

  size_t Count(const std::string& name) const {
    size_t count = 0;
    for (const Event& event : events_) count += event.name == name ? 1 : 0;
    return count;
  }
  std::vector<pid_t> Running() const { return ProcessesMentioning(options_.join); }
  std::string Log(int stage, int replica) const {
    return FileText(folder_.path() + "/logs/stage-" + std::to_string(stage) + "-replica-" +
                    std::to_string(replica) + ".log");
  }

  TemporaryFolder folder_;
  std::string wait_;
  EventLoop loop_;
  PosixDisk disk_;
  LocalSwarm::Options options_;
  std::vector<Event> events_;
};

TEST_F(LocalSwarmTest, EveryPlaceIsFilledWithItsStageAndThreads) {
  Serve("echo \"$@\" threads=$OMP_NUM_THREADS; " + wait_);
  auto swarm = Start();
  EXPECT_TRUE(WaitUntil([&] { return !Log(1, 0).empty() && !Log(0, 1).empty(); }));
  EXPECT_THAT(Log(1, 0),
              HasSubstr("stage --join " + options_.join + " --stage 1 --threads 3 --child"));
  EXPECT_THAT(Log(0, 1), HasSubstr("--stage 0"));
  EXPECT_THAT(Log(0, 1), HasSubstr("threads=3"));
}

TEST_F(LocalSwarmTest, KilledReplicaIsStartedAgainWithoutBeingCountedAsBroken) {
  options_.config.local.replicas = {1};
  options_.config.swarm.stages = 1;
  auto swarm = Start();
  std::set<uint64_t> seen;
  for (size_t deaths = 1; deaths <= 2 * LocalSwarm::kQuickDeaths; ++deaths) {
    uint64_t pid = 0;
    ASSERT_TRUE(loop_.RunUntil(
        [&] {
          const std::string json = FileText(folder_.path() + "/local.json");
          const size_t at = json.find("\"pid\":");
          pid = at == std::string::npos ? 0 : std::stoull(json.substr(at + 6));
          if (pid == 0 || !swarm->IsAlive(pid)) {
            loop_.Schedule(absl::Milliseconds(5), [] {});
            return false;
          }
          return true;
        },
        kLimit));
    EXPECT_TRUE(seen.insert(pid).second);
    swarm->OnJoined(pid);
    swarm->Kill(pid);
    ASSERT_TRUE(loop_.RunUntil([&] { return Count("local_exited") == deaths; }, kLimit));
  }
  EXPECT_EQ(Count("local_gave_up"), 0u);
  EXPECT_FALSE(swarm->AllGaveUp());
}

TEST_F(LocalSwarmTest, ReplicasThatNeverJoinAreGivenUpWithTheirLastWords) {
  Serve("echo first; echo no such device >&2; exit 3");
  auto swarm = Start();
  ASSERT_TRUE(loop_.RunUntil([&] { return swarm->AllGaveUp(); }, kLimit));
  EXPECT_EQ(Count("local_gave_up"), 3u);
  EXPECT_EQ(Count("local_exited"), 3u * LocalSwarm::kQuickDeaths);
  EXPECT_THAT(ToString(events_.back()), HasSubstr("last_line=no such device"));
}

TEST_F(LocalSwarmTest, WithoutRestartOneDeathIsTheEndOfAPlace) {
  options_.config.local.restart = false;
  Serve("exit 0");
  auto swarm = Start();
  ASSERT_TRUE(loop_.RunUntil([&] { return swarm->AllGaveUp(); }, kLimit));
  EXPECT_EQ(Count("local_exited"), 3u);
}

TEST_F(LocalSwarmTest, ProgramThatCannotBeStartedIsAnError) {
  options_.program = "/nowhere/server";
  LocalSwarm swarm(options_, &loop_, &disk_, [](const Event&) {});
  EXPECT_EQ(swarm.Start().code(), absl::StatusCode::kNotFound);
}

TEST_F(LocalSwarmTest, ShutdownLeavesNoChild) {
  auto swarm = Start();
  EXPECT_TRUE(WaitUntil([&] { return Running().size() == 3; }));
  swarm->Shutdown();
  EXPECT_THAT(Running(), SizeIs(0));
  EXPECT_EQ(Count("local_exited"), 0u);  // asked for, so nothing to tell
}

TEST_F(LocalSwarmTest, ChildrenThatIgnoreSigtermDoNotOutliveIt) {
  Serve("trap '' TERM; " + wait_);
  auto swarm = Start();
  EXPECT_TRUE(WaitUntil([&] { return Running().size() == 3; }));
  swarm.reset();
  EXPECT_THAT(Running(), SizeIs(0));
}

TEST_F(LocalSwarmTest, LeftoversOfAKilledTrainerAreEndedButNotAProcessWithTheirNumber) {
  Subprocess left({"/bin/sh", "-c", wait_});
  Subprocess stranger({"/bin/sh", "-c", wait_});
  ASSERT_TRUE(WaitUntil([&] { return StartTicks(stranger.pid()).has_value(); }));
  const auto entry = [](pid_t pid, uint64_t ticks) {
    return "{\"pid\":" + std::to_string(pid) + ",\"start_ticks\":" + std::to_string(ticks) + "}";
  };
  WriteFileText(folder_.path() + "/local.json",
                "{\"host\":\"" + HostName() + "\",\"replicas\":[" +
                    entry(left.pid(), *StartTicks(left.pid())) + "," +
                    entry(stranger.pid(), *StartTicks(stranger.pid()) + 1) + "]}");
  EXPECT_EQ(EndReplicas(FindLocalReplicas(disk_, folder_.path())), 1);
  EXPECT_EQ(left.WaitForExit(), 128 + SIGKILL);
  EXPECT_TRUE(StartTicks(stranger.pid()).has_value());
}

TEST_F(LocalSwarmTest, LeftoversAreTakenOverReplacedWhenTheyDieAndGoneAtTheEnd) {
  Subprocess left({"/bin/sh", "-c", wait_});
  Subprocess surplus({"/bin/sh", "-c", wait_});
  ASSERT_TRUE(WaitUntil([&] { return StartTicks(surplus.pid()).has_value(); }));
  options_.adopt = {{0, 1, left.pid(), *StartTicks(left.pid())},
                    {7, 0, surplus.pid(), *StartTicks(surplus.pid())}};
  auto swarm = Start();
  EXPECT_EQ(surplus.WaitForExit(), 128 + SIGKILL);  // there is no such place
  EXPECT_TRUE(WaitUntil([&] { return Running().size() == 2; }));
  EXPECT_TRUE(swarm->IsAlive(static_cast<uint64_t>(left.pid())));
  EXPECT_THAT(FileText(folder_.path() + "/local.json"), HasSubstr(std::to_string(left.pid())));
  kill(left.pid(), SIGKILL);
  ASSERT_EQ(left.WaitForExit(), 128 + SIGKILL);
  EXPECT_TRUE(loop_.RunUntil([&] { return Running().size() == 3; }, kLimit));
  EXPECT_EQ(Count("local_exited"), 1u);
}

TEST_F(LocalSwarmTest, AdoptedReplicaIsEndedWithTheOthers) {
  Subprocess left({"/bin/sh", "-c", wait_});
  ASSERT_TRUE(WaitUntil([&] { return StartTicks(left.pid()).has_value(); }));
  options_.adopt = {{0, 0, left.pid(), *StartTicks(left.pid())}};
  auto swarm = Start();
  swarm.reset();
  EXPECT_THAT(Running(), SizeIs(0));
  EXPECT_FALSE(StartTicks(left.pid()).has_value());
}

TEST_F(LocalSwarmTest, ReleasedReplicaOutlivesIt) {
  Subprocess left({"/bin/sh", "-c", wait_});
  ASSERT_TRUE(WaitUntil([&] { return StartTicks(left.pid()).has_value(); }));
  options_.adopt = {{0, 0, left.pid(), *StartTicks(left.pid())}};
  auto swarm = Start();
  swarm->Release();
  swarm.reset();
  EXPECT_THAT(Running(), SizeIs(0));
  EXPECT_TRUE(StartTicks(left.pid()).has_value());
}

TEST_F(LocalSwarmTest, DamagedListOfLeftoversEndsNothing) {
  for (const char* text : {"", "{", "[]", "{\"host\":3}", "{\"replicas\":[1,{}]}"}) {
    WriteFileText(folder_.path() + "/local.json", text);
    EXPECT_THAT(FindLocalReplicas(disk_, folder_.path()), SizeIs(0)) << text;
  }
}

}  // namespace
}  // namespace starling
