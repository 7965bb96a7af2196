#include "runtime/app/swarm_run.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/app/addresses.h"
#include "runtime/app/child_process.h"
#include "runtime/app/local_swarm.h"
#include "runtime/app/run_records.h"
#include "runtime/app/seams.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/threaded_files.h"
#include "runtime/reactor/worker.h"
#include "runtime/reactor/zmq_transport.h"
#include "runtime/trainer/trainer.h"

namespace starling {
namespace {

constexpr int kInterrupted = 130;
constexpr uint64_t kReadAheadSteps = 2;

Worker::Options ReadAheadOptions() {
  Worker::Options options;
  options.name = "read-ahead";
  options.bound = 2 * kReadAheadSteps;
  return options;
}

Trainer::Options TrainerOptions(const RunPlan& plan) {
  Trainer::Options options;
  options.config = plan.config;
  options.config_toml = plan.config_toml;
  options.run_directory = plan.directory;
  std::error_code error;
  options.shared_directory = std::filesystem::absolute(plan.directory, error).string();
  options.run = plan.run;
  options.epoch = plan.epoch;
  options.era = plan.era;
  options.last_record = plan.last_record;
  options.start = plan.start;
  options.start_meta = plan.start_meta;
  options.live = plan.live;
  options.layouts = plan.layouts;
  for (uint32_t stage = 0; stage < plan.config.stage_count(); ++stage) {
    options.expected.push_back(static_cast<uint32_t>(PerStage(plan.config.local.replicas, stage)));
  }
  return options;
}

LocalSwarm::Options LocalOptions(const RunPlan& plan, const Endpoint& trainer) {
  LocalSwarm::Options options;
  options.program = TorchProgramPath();
  options.join = trainer.control;
  options.run_directory = plan.directory;
  options.config = plan.config;
  options.adopt = plan.adopt;
  return options;
}

class SwarmRun final : public TrainerObserver {
 public:
  SwarmRun(RunPlan plan, EventLoop* loop, std::unique_ptr<Transport> transport,
           std::unique_ptr<RunRecords> records)
      : plan_(std::move(plan)),
        loop_(loop),
        records_(std::move(records)),
        transport_(std::move(transport)),
        trainer_disk_(TrainerDisk(std::make_unique<PosixDisk>())),
        files_(std::make_unique<ThreadedFiles>(loop, trainer_disk_.get())),
        local_(LocalOptions(plan_, transport_->address()), loop, &disk_,
               [this](const Event& event) { OnEvent(event); }),
        trainer_(TrainerOptions(plan_), loop, transport_.get(), files_.get(), plan_.feed.get(),
                 this) {
    if (plan_.feed->reads_files()) {
      read_ahead_ = std::make_unique<Worker>(loop, ReadAheadOptions());
    }
  }
  // Jobs that are left call back, so they go before the trainer.
  ~SwarmRun() override { files_.reset(); }

  absl::Status Run();

  void OnEvent(const Event& event) override;
  void OnDecision(const Decision& decision) override {}
  void OnStep(const StepReport& report) override;
  void OnEvaluation(Version version, double loss) override {
    records_->OnEvaluation(version, loss);
  }
  void OnFinished(const absl::Status& status, const std::string& summary) override;

 private:
  absl::Status Begin();
  void SayResumed(const Event& event);
  void ReadAhead(Step step);
  void OnInterrupt(const char* signal_name);
  void CheckLocal();
  void BeginKilling();
  void KillOne();

  RunPlan plan_;
  EventLoop* const loop_;
  PosixDisk disk_;
  const std::unique_ptr<RunRecords> records_;
  std::unique_ptr<Transport> transport_;
  const std::unique_ptr<Disk> trainer_disk_;
  std::unique_ptr<ThreadedFiles> files_;
  LocalSwarm local_;
  Trainer trainer_;
  std::unique_ptr<Worker> read_ahead_;  // windows of shards, before their step needs them
  bool resumed_said_ = false;
  bool killing_ = false;    // the timer of chaos.kill_every runs
  bool kill_done_ = false;  // of chaos.kill_at_step
  int interrupts_ = 0;
  bool finished_ = false;
  absl::Status status_;
  std::string summary_;
};

absl::Status SwarmRun::Begin() {
  const auto on_signal = [this](int signal, const char* name) {
    return loop_->AddSignal(signal, [this, name] { OnInterrupt(name); });
  };
  STARLING_RETURN_IF_ERROR(on_signal(SIGINT, "interrupted"));
  STARLING_RETURN_IF_ERROR(on_signal(SIGTERM, "terminated"));
  STARLING_RETURN_IF_ERROR(on_signal(SIGHUP, "hung up"));
  STARLING_RETURN_IF_ERROR(
      WriteWholeFile(disk_, plan_.directory + "/address", transport_->address().control + "\n"));
  STARLING_RETURN_IF_ERROR(WriteWholeFile(disk_, plan_.directory + "/run.toml", plan_.config_toml));
  PrintRunHeader(plan_);
  for (const std::string& notice : plan_.notices)
    records_->OnEvent(Event("notice").With("reason", notice));
  PrintLine(absl::StrCat("more replicas: ", plan_.program, " stage --join ",
                         transport_->address().control,
                         plan_.config.model.own() ? " --layers-dir FOLDER" : ""));
  for (uint64_t i = 1; i <= kReadAheadSteps; ++i) ReadAhead(Step{Value(plan_.start.version) + i});
  trainer_.Start();
  return local_.Start();
}

absl::Status SwarmRun::Run() {
  STARLING_RETURN_IF_ERROR(Begin());
  loop_->RunUntil([this] { return finished_; }, absl::InfiniteDuration());
  if (trainer_.refused_to_start()) local_.Release();  // they are another trainer's
  local_.Shutdown();
  STARLING_RETURN_IF_ERROR(status_);
  PrintLine(summary_);
  const Bottleneck limit = trainer_.Bottlenecks(TimeSpan::kWhole).front();
  if (limit.cause != Cause::kUnknown) PrintLine(ToWords(limit));
  const bool complete = static_cast<int64_t>(Value(trainer_.version())) >= plan_.config.train.steps;
  PrintRunEnd(plan_, *records_, complete);
  return absl::OkStatus();
}

// How a restarted trainer goes on.
void SwarmRun::SayResumed(const Event& event) {
  if (!plan_.live || resumed_said_) return;
  const auto number = [&event](const std::string& key) {
    for (const auto& [name, value] : event.fields) {
      if (name == key) return std::get<int64_t>(value);
    }
    return int64_t{0};
  };
  resumed_said_ = true;
  const int64_t replicas = number("replicas");
  records_->OnEvent(Event("notice").With(
      "reason", event.name == "resumed"
                    ? absl::StrCat("resumed at version ", number("version"), " from ", replicas,
                                   replicas == 1 ? " live replica" : " live replicas")
                    : ResumedFromCheckpoint(plan_)));
}

void SwarmRun::OnEvent(const Event& event) {
  records_->OnEvent(event);
  if (event.name == "resumed" || event.name == "era_began") SayResumed(event);
  if (event.name == "peer_joined" || event.name == "peer_left") {
    for (const auto& [key, value] : event.fields) {
      if (key != "pid") continue;
      const auto pid = static_cast<uint64_t>(std::get<int64_t>(value));
      event.name == "peer_left" ? local_.OnLeft(pid) : local_.OnJoined(pid);
    }
  }
  if (event.name == "local_gave_up" || event.name == "local_exited") {
    // The trainer may be on the stack.
    loop_->Schedule(absl::ZeroDuration(), [this] { CheckLocal(); });
  }
}

void SwarmRun::CheckLocal() {
  if (finished_ || !local_.AllGaveUp() || !trainer_.swarm().replicas().empty()) return;
  finished_ = true;
  status_ = absl::UnavailableError(absl::StrCat(
      "none of the local replicas could be kept running, and nobody else serves: see ",
      plan_.directory, "/logs; go on with `", plan_.program, " resume ", plan_.directory, "`"));
}

// The feed maps shards and samples: a page that is not in memory would hold the reactor up.
void SwarmRun::ReadAhead(Step step) {
  if (read_ahead_ == nullptr) return;
  read_ahead_->Run<Step>(
      [this, step]() -> absl::StatusOr<Step> {
        plan_.feed->ReadAhead(step);
        return step;
      },
      [](const absl::StatusOr<Step>&) {});
}

void SwarmRun::OnStep(const StepReport& report) {
  records_->OnStep(report);
  ReadAhead(Step{Value(report.step) + kReadAheadSteps});
  const ChaosConfig& chaos = plan_.config.chaos;
  const int64_t next = static_cast<int64_t>(Value(report.step)) + 1;
  if (chaos.kill_at_step > 0 && !kill_done_ && next >= chaos.kill_at_step &&
      next <= plan_.config.train.steps) {
    kill_done_ = true;
    // In the middle of that step, so that there is work to lose. After a resume it is long past.
    if (next == chaos.kill_at_step || chaos.kill_at_step == 1) {
      loop_->Schedule(absl::Seconds(report.step_s / 2), [this] { KillOne(); });
    }
  }
  if (chaos.kill_every > absl::ZeroDuration() && !killing_) {
    killing_ = true;
    BeginKilling();
  }
}

void SwarmRun::BeginKilling() {
  loop_->Schedule(plan_.config.chaos.kill_every, [this] {
    if (finished_) return;
    KillOne();
    BeginKilling();
  });
}

void SwarmRun::KillOne() {
  if (finished_) return;
  // Those who serve, by stage, without the ones whose death the trainer has yet to notice.
  std::map<uint32_t, std::vector<uint64_t>> local_pids;
  std::map<uint32_t, size_t> serving;
  for (const auto& [incarnation, replica] : trainer_.swarm().replicas()) {
    const uint32_t stage = Value(replica.member.stage);
    const bool local = replica.hello.host == HostName() && local_.IsAlive(replica.hello.pid);
    if (local) local_pids[stage].push_back(replica.hello.pid);
    if (local || replica.hello.host != HostName()) ++serving[stage];
  }
  std::vector<std::pair<uint32_t, uint64_t>> victims;
  for (const auto& [stage, pids] : local_pids) {
    for (uint64_t pid : pids) {
      if (serving[stage] > 1) victims.emplace_back(stage, pid);
    }
  }
  if (victims.empty()) return;
  const auto [stage, pid] = victims[loop_->Random() % victims.size()];
  OnEvent(Event("chaos_kill").With("stage", stage).With("pid", pid));
  local_.Kill(pid);
}

void SwarmRun::OnInterrupt(const char* signal_name) {
  ++interrupts_;
  if (interrupts_ > 1) {
    local_.KillAll();
    PrintLine("aborted");
    _exit(kInterrupted);
  }
  if (finished_) return;
  records_->Say(absl::StrCat(
      signal_name, ": finishing the step, then saving a checkpoint; again aborts at once"));
  trainer_.RequestStop(signal_name);
}

void SwarmRun::OnFinished(const absl::Status& status, const std::string& summary) {
  finished_ = true;
  summary_ = summary;
  if (!status.ok()) {
    status_ = absl::Status(status.code(), absl::StrCat(summary, ": ", status.message()));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> OpenTrainerTransport(const RunConfig& config,
                                                                const std::string& listen,
                                                                EventLoop* loop) {
  ZmqTransport::Options options;
  options.listen = listen.empty() ? config.swarm.listen : listen;
  options.advertise = config.swarm.advertise;
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<ZmqTransport> transport,
                            ZmqTransport::Create(loop, options));
  if (!IsLoopback(options.listen)) {
    PrintWarning(absl::StrCat("listening on ", options.listen,
                              " without encryption or identity: anyone who reaches it can take "
                              "part; use it in a network you trust"));
  }
  return TrainerTransport(std::move(transport));
}

absl::Status RunSwarm(RunPlan plan, EventLoop* loop, std::unique_ptr<Transport> transport) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<RunRecords> records, RunRecords::Open(disk, plan));
  SwarmRun run(std::move(plan), loop, std::move(transport), std::move(records));
  return run.Run();
}

}  // namespace starling
