#include "bench/loopback_run.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/app/child_process.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/base/status_macros.h"
#include "runtime/peer/peer.h"
#include "runtime/reactor/compute_thread.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_transport.h"
#include "stages/model_layout.h"

namespace starling::bench {
namespace {

constexpr int kTexts = 10;
constexpr int kTextBytes = 200'000;

// Words of small letters, the same in every run.
void WriteText(const std::string& path, uint64_t seed) {
  Rng rng(seed);
  std::string text;
  while (text.size() < kTextBytes) {
    for (uint64_t i = 2 + rng.Below(8); i > 0; --i) text += static_cast<char>('a' + rng.Below(26));
    text += rng.Below(12) == 0 ? '\n' : ' ';
  }
  std::ofstream(path) << text;
}

// Passes everything on, and notes when.
class ProbedExecutor final : public StageExecutor {
 public:
  ProbedExecutor(std::unique_ptr<StageExecutor> executor, uint32_t replica, StageId stage,
                 Probe* probe)
      : executor_(std::move(executor)), replica_(replica), stage_(stage), probe_(probe) {}

  int64_t size() const override { return executor_->size(); }
  absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) override {
    return Noted(DeviceCall::kForward, input.work.id.step, input.work.id.index,
                 [&] { return executor_->Forward(input); });
  }
  absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) override {
    return Noted(DeviceCall::kBackward, input.work.id.step, input.work.id.index,
                 [&] { return executor_->Backward(input); });
  }
  void Drop(WorkId work) override { executor_->Drop(work); }
  std::vector<SegmentSummary> Seal(Step step) override {
    return Noted(DeviceCall::kSeal, step, 0, [&] { return executor_->Seal(step); });
  }
  absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) override {
    return Noted(DeviceCall::kRead, step, 0, [&] { return executor_->Read(step, segments); });
  }
  void FreeThrough(Step step) override { executor_->FreeThrough(step); }
  absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                const std::vector<Blob>& gradient) override {
    return Noted(DeviceCall::kApply, Step{0}, 0,
                 [&] { return executor_->Apply(scalars, gradient); });
  }
  absl::StatusOr<Blob> Snapshot() override { return executor_->Snapshot(); }
  absl::StatusOr<Hash128> Load(const Blob& state) override { return executor_->Load(state); }

 private:
  template <typename Work>
  std::invoke_result_t<Work> Noted(DeviceCall call, Step step, uint32_t index, Work work) {
    DeviceEvent event{call, replica_, Value(stage_), step, index, Clock::now(), {}};
    std::invoke_result_t<Work> result = work();
    event.end = Clock::now();
    probe_->Add(event);
    return result;
  }

  const std::unique_ptr<StageExecutor> executor_;
  const uint32_t replica_;
  const StageId stage_;
  Probe* const probe_;
};

// One replica: on its own thread until the trainer tells it to stop.
class PeerThread {
 public:
  PeerThread(const LoopbackOptions& options, std::string trainer, uint32_t replica, StageId stage,
             Probe* probe)
      : thread_([this, &options, trainer = std::move(trainer), replica, stage, probe] {
          status_ = Serve(options, trainer, replica, stage, probe);
        }) {}

  absl::Status Join() {
    thread_.join();
    return status_;
  }

 private:
  static absl::Status Serve(const LoopbackOptions& options, const std::string& trainer,
                            uint32_t replica, StageId stage, Probe* probe) {
    EventLoop loop;
    Peer::Options peer_options;
    peer_options.id = PeerId{loop.Random() | 1};
    peer_options.trainer.control = trainer;
    peer_options.stage = stage;
    peer_options.pinned = true;
    peer_options.host = HostName();
    peer_options.pid = static_cast<uint64_t>(getpid());
    peer_options.device = "bench";
    peer_options.layout_of = [](const RunConfig& config, StageId at) {
      return ModelStageLayout(config.model, StageRanges(config)[Value(at)]);
    };
    STARLING_ASSIGN_OR_RETURN(const std::unique_ptr<ZmqTransport> transport,
                              ZmqTransport::Create(&loop, ZmqTransport::Options()));
    bool ended = false;
    absl::Status status;
    const auto make = [&](const RunConfig& config,
                          StageId at) -> absl::StatusOr<std::unique_ptr<Compute>> {
      STARLING_ASSIGN_OR_RETURN(std::unique_ptr<StageExecutor> device, options.device(config, at));
      return std::make_unique<ThreadedCompute>(
          &loop, std::make_unique<ProbedExecutor>(std::move(device), replica, at, probe));
    };
    Peer peer(
        peer_options, &loop, transport.get(), make, [](const Event&) {},
        [&](absl::Status exit_status, const std::string& reason) {
          status = std::move(exit_status);
          ended = true;
        });
    peer.Start();
    loop.RunUntil([&ended] { return ended; }, absl::InfiniteDuration());
    return status;
  }

  absl::Status status_;
  std::thread thread_;
};

// The trainer's address, once it has bound it.
absl::StatusOr<std::string> WaitForAddress(const std::string& path, pid_t trainer) {
  for (;;) {
    std::string address;
    if (std::ifstream file(path); std::getline(file, address) && !file.eof()) return address;
    if (waitpid(trainer, nullptr, WNOHANG) == trainer) {
      return absl::InternalError("the trainer ended before it began");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

ScratchFolder::ScratchFolder() {
  path_ = (std::filesystem::temp_directory_path() / "starling-bench-XXXXXX").string();
  STARLING_CHECK(mkdtemp(path_.data()) != nullptr);
  std::filesystem::create_directory(path_ + "/text");
  for (int i = 0; i < kTexts; ++i) {
    WriteText(absl::StrCat(path_, "/text/", i, ".txt"), static_cast<uint64_t>(i) + 1);
  }
}

ScratchFolder::~ScratchFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void Probe::Add(const DeviceEvent& event) {
  const std::lock_guard<std::mutex> lock(mutex_);
  events_.push_back(event);
}

std::vector<DeviceEvent> Probe::Take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(events_, {});
}

absl::StatusOr<std::vector<DeviceEvent>> RunOnLoopback(const LoopbackOptions& options) {
  const ScratchFolder scratch;
  const std::string run_file = scratch.path() + "/run.toml";
  std::ofstream(run_file) << options.run_toml << "[data]\ntext = [\"" << scratch.text()
                          << "\"]\n[local]\nreplicas = 0\n[checkpoint]\nevery = 0\n";
  SpawnOptions spawn;
  spawn.program = options.program;
  const std::string run_directory = scratch.path() + "/run";
  spawn.arguments = {"starling", "train", run_file, "--run-dir", run_directory};
  spawn.log = scratch.path() + "/trainer.log";
  STARLING_ASSIGN_OR_RETURN(const pid_t trainer, Spawn(spawn));
  absl::StatusOr<std::string> address = WaitForAddress(run_directory + "/address", trainer);
  if (!address.ok()) {
    return absl::InternalError(absl::StrCat(address.status().message(), ": ", ReadFile(spawn.log)));
  }
  Probe probe;
  std::vector<std::unique_ptr<PeerThread>> peers;
  for (uint32_t stage = 0; stage < options.replicas.size(); ++stage) {
    for (uint32_t i = 0; i < options.replicas[stage]; ++i) {
      peers.push_back(std::make_unique<PeerThread>(
          options, *address, static_cast<uint32_t>(peers.size()), StageId{stage}, &probe));
    }
  }
  absl::Status status;
  for (const auto& peer : peers) status.Update(peer->Join());
  int exit_status = 0;
  waitpid(trainer, &exit_status, 0);
  STARLING_RETURN_IF_ERROR(status);
  if (exit_status != 0) {
    return absl::InternalError(
        absl::StrCat("the trainer failed: ", DescribeExit(exit_status), ": ", ReadFile(spawn.log)));
  }
  return probe.Take();
}

}  // namespace starling::bench
