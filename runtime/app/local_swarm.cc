#include "runtime/app/local_swarm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/app/child_process.h"
#include "runtime/app/run_layers.h"
#include "runtime/app/run_plan.h"
#include "runtime/app/threads.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/listen_address.h"

namespace starling {
namespace {

constexpr absl::Duration kEndByThemselves = absl::Seconds(5);
constexpr absl::Duration kEndWhenAsked = absl::Seconds(3);
constexpr absl::Duration kLookAfterAdopted = absl::Milliseconds(200);
constexpr absl::Duration kLongestPause = absl::Seconds(5);
constexpr char kLoopback[] = "tcp://127.0.0.1:";

bool IsAliveStill(pid_t pid, uint64_t start_ticks) {
  return StartTicks(pid) == std::optional<uint64_t>(start_ticks);
}

void AwaitEnd(pid_t pid, uint64_t start_ticks) {
  for (int tries = 0; tries < 200 && IsAliveStill(pid, start_ticks); ++tries) poll(nullptr, 0, 10);
}

// The last line of a log that says something.
std::string LastLine(Disk& disk, const std::string& path) {
  absl::StatusOr<std::string> text = disk.Read(path);
  if (!text.ok()) return "(no log)";
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  if (text->empty()) return "(empty)";
  return text->substr(text->find_last_of('\n') + 1);
}

}  // namespace

LocalSwarm::LocalSwarm(Options options, EventLoop* loop, Disk* disk, EventSink events)
    : options_(std::move(options)), loop_(loop), disk_(disk), events_(std::move(events)) {
  for (uint32_t stage = 0; stage < options_.config.stage_count(); ++stage) {
    const int64_t count = PerStage(options_.config.local.replicas, stage);
    for (int64_t replica = 0; replica < count; ++replica) {
      Place place;
      place.stage = stage;
      place.replica = static_cast<uint32_t>(replica);
      places_.push_back(place);
    }
  }
}

LocalSwarm::~LocalSwarm() {
  ending_ = true;
  loop_->Cancel(look_);
  for (Place& place : places_) loop_->Cancel(place.restart);
  KillAll();
}

absl::Status LocalSwarm::Start() {
  STARLING_RETURN_IF_ERROR(loop_->AddSignal(SIGCHLD, [this] { Reap(); }));
  Adopt();
  for (Place& place : places_) {
    if (place.pid != 0) continue;
    STARLING_RETURN_IF_ERROR(StartOne(&place));
    WriteFile();
  }
  return absl::OkStatus();
}

void LocalSwarm::Adopt() {
  for (const LocalReplica& replica : options_.adopt) {
    const auto place = std::find_if(places_.begin(), places_.end(), [&replica](const Place& p) {
      return p.stage == replica.stage && p.replica == replica.replica && p.pid == 0;
    });
    if (place == places_.end()) {  // there are to be fewer
      EndReplicas({replica});
      continue;
    }
    place->pid = replica.pid;
    place->adopted = replica.start_ticks;
    place->joined = true;
  }
  WriteFile();
  LookAfterAdopted();
}

// No signal tells of the death of a process that is nobody's child here.
void LocalSwarm::LookAfterAdopted() {
  bool any = false;
  for (Place& place : places_) {
    if (place.pid == 0 || place.adopted == 0) continue;
    if (IsAliveStill(place.pid, place.adopted)) {
      any = true;
    } else {
      OnDied(&place, "gone (its trainer was another process)");
    }
  }
  if (any) look_ = loop_->Schedule(kLookAfterAdopted, [this] { LookAfterAdopted(); });
}

std::string LocalSwarm::LogOf(const Place& place) const {
  return absl::StrCat(options_.run_directory, "/logs/stage-", place.stage, "-replica-",
                      place.replica, ".log");
}

std::vector<std::string> LocalSwarm::ArgumentsOf(const Place& place) const {
  const SwarmConfig& swarm = options_.config.swarm;
  std::vector<std::string> arguments = {
      "starling",  "stage",
      "--join",    options_.join,
      "--stage",   absl::StrCat(place.stage),
      "--threads", absl::StrCat(ThreadsOfReplica(options_.config, place.stage)),
      "--child"};
  if (options_.config.model.own()) {
    arguments.push_back("--layers-dir");
    arguments.push_back(LayersFolder(options_.run_directory));
  }
  if (options_.config.local.memory > 0) {
    arguments.push_back("--memory");
    arguments.push_back(absl::StrCat(options_.config.local.memory));
  }
  if (absl::StartsWith(swarm.listen, "tcp://") && !absl::StartsWith(swarm.listen, kLoopback)) {
    // Replicas of other machines must reach the local ones too; ports are the system's choice.
    arguments.push_back("--listen");
    arguments.push_back(swarm.listen.substr(0, swarm.listen.rfind(':')) + ":*");
    if (!swarm.advertise.empty()) {
      const size_t port = swarm.advertise.find(':', sizeof("tcp://") - 1);
      arguments.push_back("--advertise");
      arguments.push_back(swarm.advertise.substr(0, port));
    }
  }
  return arguments;
}

absl::Status LocalSwarm::StartOne(Place* place) {
  SpawnOptions spawn;
  spawn.program = options_.program;
  spawn.arguments = ArgumentsOf(*place);
  spawn.environment = {
      absl::StrCat("OMP_NUM_THREADS=", ThreadsOfReplica(options_.config, place->stage))};
  spawn.log = LogOf(*place);
  STARLING_ASSIGN_OR_RETURN(place->pid, Spawn(spawn));
  place->joined = false;
  place->left = false;
  return absl::OkStatus();
}

void LocalSwarm::OnJoined(uint64_t pid) {
  for (Place& place : places_) {
    if (place.pid == 0 || static_cast<uint64_t>(place.pid) != pid) continue;
    place.joined = true;
    place.quick_deaths = 0;
  }
}

void LocalSwarm::OnLeft(uint64_t pid) {
  for (Place& place : places_) {
    if (place.pid != 0 && static_cast<uint64_t>(place.pid) == pid) place.left = true;
  }
}

bool LocalSwarm::IsAlive(uint64_t pid) const {
  return std::any_of(places_.begin(), places_.end(), [pid](const Place& place) {
    return place.pid != 0 && static_cast<uint64_t>(place.pid) == pid;
  });
}

void LocalSwarm::Kill(uint64_t pid) {
  if (IsAlive(pid)) kill(static_cast<pid_t>(pid), SIGKILL);
}

bool LocalSwarm::AllGaveUp() const {
  return !places_.empty() && std::all_of(places_.begin(), places_.end(),
                                         [](const Place& place) { return place.gave_up; });
}

void LocalSwarm::Reap() {
  for (Place& place : places_) {
    int status = 0;
    if (place.pid != 0 && place.adopted == 0 && waitpid(place.pid, &status, WNOHANG) == place.pid) {
      OnDied(&place, DescribeExit(status));
    }
  }
}

void LocalSwarm::OnDied(Place* place, const std::string& how) {
  const pid_t pid = std::exchange(place->pid, 0);
  place->adopted = 0;
  if (ending_) return;
  events_(Event("local_exited")
              .With("stage", place->stage)
              .With("pid", pid)
              .With("how", how)
              .With("joined", place->joined));
  if (!place->joined) ++place->quick_deaths;
  if (!options_.config.local.restart || place->left) {
    place->gave_up = true;
  } else if (place->quick_deaths >= kQuickDeaths) {
    GiveUp(place);
  } else {
    const absl::Duration pause =
        place->quick_deaths == 0
            ? absl::ZeroDuration()
            : std::min(kLongestPause, absl::Milliseconds(100) * (1 << place->quick_deaths));
    place->restart = loop_->Schedule(pause, [this, place] {
      place->restart = kNoTimer;
      if (ending_) return;
      if (absl::Status status = StartOne(place); !status.ok()) {
        events_(Event("notice").With("reason", std::string(status.message())));
        place->gave_up = true;
      }
      WriteFile();
    });
  }
  WriteFile();
}

void LocalSwarm::GiveUp(Place* place) {
  place->gave_up = true;
  events_(Event("local_gave_up")
              .With("stage", place->stage)
              .With("times", place->quick_deaths)
              .With("log", LogOf(*place))
              .With("last_line", LastLine(*disk_, LogOf(*place))));
}

bool LocalSwarm::AnyRunning() const {
  return std::any_of(places_.begin(), places_.end(),
                     [](const Place& place) { return place.pid != 0; });
}

void LocalSwarm::SignalAll(int signal) {
  for (const Place& place : places_) {
    if (place.pid != 0) kill(place.pid, signal);
  }
}

void LocalSwarm::Shutdown() {
  ending_ = true;
  const auto all_ended = [this] { return !AnyRunning(); };
  // Those that are no members yet have not been told.
  for (const Place& place : places_) {
    if (place.pid != 0 && !place.joined) kill(place.pid, SIGTERM);
  }
  if (!loop_->RunUntil(all_ended, kEndByThemselves)) {
    SignalAll(SIGTERM);
    loop_->RunUntil(all_ended, kEndWhenAsked);
  }
  KillAll();
  WriteFile();
}

void LocalSwarm::Release() {
  for (Place& place : places_) {
    if (place.adopted == 0) continue;
    place.pid = 0;
    place.adopted = 0;
  }
}

void LocalSwarm::KillAll() {
  SignalAll(SIGKILL);
  for (Place& place : places_) {
    int status = 0;
    if (place.pid != 0 && place.adopted != 0) AwaitEnd(place.pid, place.adopted);
    while (place.pid != 0 && place.adopted == 0 && waitpid(place.pid, &status, 0) < 0 &&
           errno == EINTR) {
    }
    place.pid = 0;
  }
}

void LocalSwarm::WriteFile() const {
  nlohmann::ordered_json children = nlohmann::ordered_json::array();
  for (const Place& place : places_) {
    if (place.pid == 0) continue;
    children.push_back({{"stage", place.stage},
                        {"replica", place.replica},
                        {"pid", place.pid},
                        {"start_ticks", StartTicks(place.pid).value_or(0)}});
  }
  const nlohmann::ordered_json json = {{"host", HostName()}, {"replicas", children}};
  // For the next trainer's comfort only: without it, what is left ends at its orphan timeout.
  WriteWholeFile(*disk_, options_.run_directory + "/local.json", json.dump() + "\n").IgnoreError();
}

std::vector<LocalReplica> FindLocalReplicas(Disk& disk, const std::string& run_directory) {
  std::vector<LocalReplica> found;
  const absl::StatusOr<std::string> text = disk.Read(run_directory + "/local.json");
  if (!text.ok()) return found;
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("host", nlohmann::json()) != HostName()) return found;
  for (const auto& entry : json.value("replicas", nlohmann::json::array())) {
    if (!entry.is_object()) continue;
    const auto number = [&entry](const char* key) {
      const auto value = entry.value(key, nlohmann::json());
      return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
    };
    LocalReplica replica;
    replica.stage = static_cast<uint32_t>(number("stage"));
    replica.replica = static_cast<uint32_t>(number("replica"));
    replica.pid = static_cast<pid_t>(number("pid"));
    replica.start_ticks = number("start_ticks");
    // The number may have been given to another process since.
    if (replica.pid <= 1 || replica.start_ticks == 0) continue;
    if (IsAliveStill(replica.pid, replica.start_ticks)) found.push_back(replica);
  }
  return found;
}

int EndReplicas(const std::vector<LocalReplica>& replicas) {
  int ended = 0;
  for (const LocalReplica& replica : replicas) {
    // Killed rather than asked: it would first look for its trainer, which is gone.
    if (kill(replica.pid, SIGKILL) == 0) ++ended;
    AwaitEnd(replica.pid, replica.start_ticks);
  }
  return ended;
}

}  // namespace starling
