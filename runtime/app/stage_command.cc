#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/app/addresses.h"
#include "runtime/app/child_process.h"
#include "runtime/app/commands.h"
#include "runtime/app/linked_layers.h"
#include "runtime/app/run_layers.h"
#include "runtime/app/seams.h"
#include "runtime/app/terminal.h"
#include "runtime/app/threads.h"
#include "runtime/app/version.h"
#include "runtime/base/status_macros.h"
#include "runtime/peer/peer.h"
#include "runtime/reactor/compute_thread.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/threaded_files.h"
#include "runtime/reactor/zmq_transport.h"
#include "stages/emulated_executor.h"
#include "stages/model_layout.h"
#include "stages/optimizer.h"
#include "stages/torch_executor.h"

namespace starling {
namespace {

void Log(const std::string& line) {
  PrintLine(
      absl::StrCat(absl::FormatTime("%H:%M:%E3S ", absl::Now(), absl::LocalTimeZone()), line));
}

absl::StatusOr<std::optional<StageId>> ParseStage(const std::string& text) {
  uint32_t stage = 0;
  if (text == "auto") return std::optional<StageId>();
  if (absl::SimpleAtoi(text, &stage)) return std::optional<StageId>(StageId{stage});
  return absl::InvalidArgumentError(
      absl::StrCat("--stage ", text, ": give the number of a stage, or auto"));
}

// Neighbours send to a replica directly, so they must be able to reach it.
absl::Status CheckListen(const StageArgs& args, const std::string& trainer) {
  if (!IsLoopback(args.listen)) {
    if (!args.child) {
      PrintWarning(absl::StrCat("listening on ", args.listen,
                                " without encryption or identity: use it in a network you trust"));
    }
    return absl::OkStatus();
  }
  if (IsLoopback(trainer)) return absl::OkStatus();
  std::string host = LocalAddressTowards(trainer);
  if (host.empty()) host = "THIS_MACHINE";
  return absl::InvalidArgumentError(absl::StrCat("the other replicas of ", trainer,
                                                 " could not reach this one on ", args.listen,
                                                 ": give --listen tcp://", host, ":*"));
}

// What a factory notes of the stages it has made, by number.
using Layouts = std::map<StageId, StageLayout>;

Peer::ComputeFactory MakeFactory(EventLoop* loop, const StageArgs& args, int threads,
                                 std::shared_ptr<Layouts> layouts) {
  return [loop, args, threads, layouts](const RunConfig& config,
                                        StageId stage) -> absl::StatusOr<std::unique_ptr<Compute>> {
    const std::string& device = args.device;
    absl::Duration time;
    STARLING_ASSIGN_OR_RETURN(const bool emulated, IsEmulatedDevice(device, &time));
    if (emulated) {
      if (config.model.own()) {
        return absl::InvalidArgumentError("--device emulated: this run has layers of its own");
      }
      Log(absl::StrCat("stage ", Value(stage), ": emulated, ", absl::FormatDuration(time),
                       " per microbatch"));
      return ReplicaCompute(
          std::make_unique<ThreadedCompute>(
              loop, std::make_unique<EmulatedExecutor>(EmulatedExecutor::For(config, stage, time))),
          stage);
    }
    TorchExecutor::Options options;
    options.model = config.model;
    options.layers = StageRanges(config)[Value(stage)];
    options.stage = stage;
    options.seed = config.train.seed;
    options.keep_older = config.train.delayed_commit;
    options.device = device;
    options.threads = threads;
    options.memory = static_cast<int64_t>(args.memory);
    options.precision = config.train.precision;
    if (config.model.own()) {
      PosixDisk disk;
      // One that may be moved needs the others' files too.
      const bool movable = !args.child && args.stage == "auto";
      STARLING_ASSIGN_OR_RETURN(
          options.own,
          ReadHostedLayers(disk, args.layers_directory, config.model, options.layers, movable));
      options.linked = LinkedLayers();
    }
    STARLING_ASSIGN_OR_RETURN(std::unique_ptr<TorchExecutor> executor,
                              TorchExecutor::Create(options));
    (*layouts)[stage] = executor->layout();
    Log(absl::StrCat("stage ", Value(stage), ": layers ", options.layers.begin, "-",
                     options.layers.end - 1, ", ",
                     FormatCount(executor->layout().parameter_count()), " parameters, ", device,
                     ", ", threads, threads == 1 ? " thread" : " threads"));
    return ReplicaCompute(std::make_unique<ThreadedCompute>(loop, std::move(executor)), stage);
  };
}

}  // namespace

absl::Status ServeStage(const StageArgs& args) {
  STARLING_ASSIGN_OR_RETURN(const std::string trainer, ParseAddress(args.join));
  Peer::Options options;
  STARLING_ASSIGN_OR_RETURN(options.stage, ParseStage(args.stage));
  STARLING_RETURN_IF_ERROR(CheckListen(args, trainer));
  if (ToHex(OptimizerGoldenHash()) != kOptimizerGoldenHash) {
    return absl::FailedPreconditionError(
        "this machine's arithmetic differs from that of the other replicas (see `starling "
        "doctor`), "
        "so it cannot be one");
  }
  EventLoop loop;
  options.id = PeerId{loop.Random() | 1};
  options.trainer.control = trainer;
  options.host = HostName();
  options.pid = static_cast<uint64_t>(getpid());
  options.device = args.device;
  options.threads = static_cast<uint32_t>(args.threads > 0 ? args.threads : HalfOfTheCores());
  options.build = StarlingVersion();
  options.pinned = options.stage.has_value() && !args.child;
  if (args.wait) options.first_contact = absl::InfiniteDuration();

  ZmqTransport::Options listen;
  listen.listen = args.listen;
  listen.advertise = args.advertise;
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<ZmqTransport> bound,
                            ZmqTransport::Create(&loop, listen));
  const std::unique_ptr<Transport> transport = ReplicaTransport(std::move(bound));
  PosixDisk disk;
  ThreadedFiles files(&loop, &disk);
  options.files = &files;
  const auto layouts = std::make_shared<Layouts>();
  options.layout_of = [layouts](const RunConfig& config, StageId stage) {
    const auto made = layouts->find(stage);
    if (made != layouts->end()) return made->second;
    return ModelStageLayout(config.model, StageRanges(config)[Value(stage)]);
  };
  bool ended = false;
  absl::Status status;
  Peer peer(
      options, &loop, transport.get(),
      MakeFactory(&loop, args, static_cast<int>(options.threads), layouts),
      [](const Event& event) { Log(ToString(event)); },
      [&](absl::Status exit_status, const std::string& reason) {
        Log(absl::StrCat("ends: ", reason));
        status = std::move(exit_status);
        ended = true;
      });
  int asked = 0;
  const auto leave = [&peer, &asked] {
    if (++asked > 1) return peer.Leave("asked twice to leave");
    Log("leaves at the next decision; asked again, at once");
    peer.Drain("asked to leave");
  };
  STARLING_RETURN_IF_ERROR(loop.AddSignal(SIGTERM, leave));
  STARLING_RETURN_IF_ERROR(loop.AddSignal(SIGHUP, leave));
  if (args.child) {
    signal(SIGINT, SIG_IGN);
  } else {
    STARLING_RETURN_IF_ERROR(loop.AddSignal(SIGINT, leave));
  }
  Log(absl::StrCat("joining ", trainer, " from ", transport->address().control, " (pid ",
                   options.pid, ")"));
  peer.Start();
  loop.RunUntil([&ended] { return ended; }, absl::InfiniteDuration());
  return status;
}

}  // namespace starling
