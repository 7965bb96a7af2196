// What a hop costs beyond its bytes: from the moment a replica's device has finished a microbatch's
// forward (or backward) to the moment the next (or previous) stage's device begins with it.
//
// Four stages of one replica each, real peers over TCP on loopback, with devices that do nothing;
// one microbatch under way at a time, so that nothing queues; a boundary is 2 KiB. On the way are
// compute thread, mailbox, reactor, stage server, wiring, encoding, ZeroMQ's thread, the socket,
// ZeroMQ's thread there, reactor, decoding, stage server, mailbox, compute thread.
//
// Beside it, in turn, each as half of a round trip between two threads: a wake-up through an
// eventfd, and 2 KiB through a plain TCP connection (what no hop can do without: four of the one,
// one of the other); a piece of work through a Worker's mailboxes, and a message with 2 KiB through
// ZmqTransport, encoded and decoded (what a hop is made of: two of the one, one of the other).
//
// All of it once as it is, and once with cores that do not go to sleep, as where something
// computes: with one microbatch under way they sleep between any two threads' turns, and to wake
// one takes longer than all else, most of all on a virtual machine.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/bench.h"
#include "bench/loopback_run.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/worker.h"
#include "stages/emulated_executor.h"

namespace starling::bench {
namespace {

constexpr uint32_t kStages = 4;
constexpr int kMicrobatches = 100;
constexpr size_t kHops = 10'000;
constexpr double kGoalUs = 150;

std::string RunToml(int steps) {
  return absl::StrCat("[model]\nlayers = ", kStages, "\nwidth = 32\nheads = 2\ncontext = 16\n",
                      "[train]\nsteps = ", steps, "\nglobal_batch = ", kMicrobatches,
                      "\nmicrobatch = 1\neval_every = 0\nhash_every = 0\n",
                      "[swarm]\nstages = ", kStages,
                      "\nwindow = 1\nrebalance = \"0s\"\nverify_every = 0\n");
}

absl::StatusOr<std::unique_ptr<StageExecutor>> Nothing(const RunConfig& config, StageId stage) {
  return std::unique_ptr<StageExecutor>(std::make_unique<EmulatedExecutor>(
      EmulatedExecutor::For(config, stage, absl::ZeroDuration())));
}

// While it lives no core sleeps: on each a thread turns that anything else may interrupt.
class CoresAwake {
 public:
  CoresAwake() {
    for (unsigned core = 0; core < std::thread::hardware_concurrency(); ++core) {
      threads_.emplace_back([this, core] {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(core, &only);
        const sched_param none{};
        // Refused: without it this core sleeps, and with other priorities it would be in the way.
        if (sched_setaffinity(0, sizeof(only), &only) != 0) return;
        if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return;
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~CoresAwake() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// Microseconds of each hop, both ways, without those of the first step.
void Collect(const std::vector<DeviceEvent>& events, std::vector<double>* forward,
             std::vector<double>* backward) {
  using Key = std::tuple<DeviceCall, Step, uint32_t, uint32_t>;  // ..., index, stage
  std::map<Key, const DeviceEvent*> found;
  for (const DeviceEvent& event : events) {
    found[{event.call, event.step, event.index, event.stage}] = &event;
  }
  for (const auto& [key, event] : found) {
    const auto& [call, step, index, stage] = key;
    if (step <= Step{1} || (call != DeviceCall::kForward && call != DeviceCall::kBackward))
      continue;
    const bool ahead = call == DeviceCall::kForward;
    if (ahead ? stage + 1 == kStages : stage == 0) continue;
    const auto next = found.find({call, step, index, ahead ? stage + 1 : stage - 1});
    if (next == found.end()) continue;
    (ahead ? forward : backward)->push_back(1e6 * Seconds(next->second->begin - event->end));
  }
}

// Half of a round trip through two pairs of files, each end on its own thread; microseconds,
// median.
template <typename Ping, typename Pong>
double HalfRoundTripUs(int trips, Ping ping, Pong pong) {
  std::thread other([&] {
    for (int i = 0; i < trips; ++i) pong();
  });
  std::vector<double> us;
  for (int i = 0; i < trips; ++i) {
    const Clock::time_point begin = Clock::now();
    ping();
    us.push_back(1e6 * Seconds(Clock::now() - begin) / 2);
  }
  other.join();
  return Median(std::move(us));
}

double WakeUpUs(int trips) {
  const int there = eventfd(0, EFD_CLOEXEC);
  const int back = eventfd(0, EFD_CLOEXEC);
  const auto set = [](int fd) { STARLING_CHECK_EQ(eventfd_write(fd, 1), 0); };
  const auto wait = [](int fd) {
    eventfd_t value = 0;
    STARLING_CHECK_EQ(eventfd_read(fd, &value), 0);
  };
  const double us = HalfRoundTripUs(
      trips, [&] { set(there), wait(back); }, [&] { wait(there), set(back); });
  close(there);
  close(back);
  return us;
}

// Half of the way from the reactor to a worker thread and back, through its mailboxes.
double WorkerUs(int trips) {
  EventLoop loop;
  Worker worker(&loop, Worker::Options());
  std::vector<double> us;
  for (int i = 0; i < trips; ++i) {
    bool done = false;
    const Clock::time_point begin = Clock::now();
    worker.Run<int>([]() -> absl::StatusOr<int> { return 0; },
                    [&done](const absl::StatusOr<int>&) { done = true; });
    loop.RunUntil([&done] { return done; }, absl::Seconds(10));
    us.push_back(1e6 * Seconds(Clock::now() - begin) / 2);
  }
  return Median(std::move(us));
}

double SmallMessageUs(int trips) {
  int fds[2];
  ConnectTcp(fds);
  char bytes[2048] = {};
  const auto send_to = [&bytes](int fd) {
    STARLING_CHECK_EQ(write(fd, bytes, sizeof(bytes)), static_cast<ssize_t>(sizeof(bytes)));
  };
  const auto receive = [](int fd) {
    char got[2048];
    STARLING_CHECK_EQ(recv(fd, got, sizeof(got), MSG_WAITALL), static_cast<ssize_t>(sizeof(got)));
  };
  const double us = HalfRoundTripUs(
      trips, [&] { send_to(fds[0]), receive(fds[0]); }, [&] { receive(fds[1]), send_to(fds[1]); });
  close(fds[0]);
  close(fds[1]);
  return us;
}

// One row of the table.
absl::StatusOr<nlohmann::json> RunRound(const BenchOptions& options, int round, bool awake) {
  const int hops_per_step = kMicrobatches * 2 * (kStages - 1);
  // The first step does not count.
  const int steps = 2 + static_cast<int>(options.short_form ? 1 : kHops / hops_per_step);
  const int trips = options.short_form ? 500 : 5000;
  std::optional<CoresAwake> keep_awake;
  if (awake) keep_awake.emplace();
  const double wake_up = WakeUpUs(trips);
  const double message = SmallMessageUs(trips);
  const double worker = WorkerUs(trips);
  const double transport = SmallPacketUs(trips);
  LoopbackOptions run;
  run.program = options.program;
  run.run_toml = RunToml(steps);
  run.replicas = std::vector<uint32_t>(kStages, 1);
  run.device = Nothing;
  STARLING_ASSIGN_OR_RETURN(const std::vector<DeviceEvent> events, RunOnLoopback(run));
  std::vector<double> forward;
  std::vector<double> backward;
  Collect(events, &forward, &backward);
  std::vector<double> all = forward;
  all.insert(all.end(), backward.begin(), backward.end());
  std::printf("%-6d %-6s %8zu %9.1f %9.1f %7.1f %7.1f | %7.1f %7.1f %7.1f %9.1f\n", round,
              awake ? "awake" : "as is", all.size(), Median(all), Quantile(all, 0.9),
              Median(forward), Median(backward), wake_up, message, worker, transport);
  std::fflush(stdout);
  return nlohmann::json{{"cores_awake", awake},          {"hops", all.size()},
                        {"median_us", Median(all)},      {"p90_us", Quantile(all, 0.9)},
                        {"forward_us", Median(forward)}, {"backward_us", Median(backward)},
                        {"wake_up_us", wake_up},         {"tcp_us", message},
                        {"worker_us", worker},           {"transport_us", transport}};
}

}  // namespace

absl::StatusOr<nlohmann::json> RunHops(const BenchOptions& options) {
  const int rounds = options.rounds > 0 ? options.rounds : options.short_form ? 1 : 3;
  std::printf(
      "\nA hop beyond its bytes, microseconds\n%-6s %-6s %8s %9s %9s %7s %7s | %7s %7s %7s %9s\n",
      "round", "cores", "hops", "median", "90 %", "fwd", "bwd", "wake-up", "tcp", "worker",
      "transport");
  nlohmann::json rows = nlohmann::json::array();
  std::vector<double> medians[2];
  for (int round = 1; round <= rounds; ++round) {
    for (const bool awake : {false, true}) {
      STARLING_ASSIGN_OR_RETURN(nlohmann::json row, RunRound(options, round, awake));
      medians[awake].push_back(row["median_us"]);
      rows.push_back(std::move(row));
    }
  }
  const double as_is = Median(medians[false]);
  const double awake = Median(medians[true]);
  std::printf("median of the rounds %.1f us, with cores awake %.1f; goal: at most %.0f\n", as_is,
              awake, kGoalUs);
  return nlohmann::json{
      {"rounds", rows}, {"median_us", as_is}, {"awake_median_us", awake}, {"goal_us", kGoalUs}};
}

}  // namespace starling::bench
