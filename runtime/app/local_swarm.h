// LocalSwarm: the replicas that a trainer starts on its own machine, as child processes.
//
// Each is `starling stage --join ADDR --stage S`, writing to RUN/logs/stage-S-replica-R.log. One
// that dies is started again (local.restart): at once, or after a growing pause if it had not
// joined; after kQuickDeaths such deaths in a row its place stays empty and an event says why.
// RUN/local.json names the processes, so that a trainer that follows a killed one can take them
// over (FindLocalReplicas, Options::adopt) or end them. One that was taken over is nobody's child
// here: whether it lives is looked up now and then, and everything else is as for the others.
//
// Events: local_exited {stage, pid, how, joined}, local_gave_up {stage, times, log, last_line}.
//
// Threads: the reactor's. The destructor kills what is left and waits for it: no replica outlives
// this, unless it was released.
#ifndef STARLING_RUNTIME_APP_LOCAL_SWARM_H_
#define STARLING_RUNTIME_APP_LOCAL_SWARM_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/event.h"
#include "runtime/config/run_config.h"
#include "runtime/env/file_system.h"
#include "runtime/reactor/event_loop.h"

namespace starling {

// A replica that another trainer started here and that is alive.
struct LocalReplica {
  uint32_t stage = 0;
  uint32_t replica = 0;  // of the stage
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // child_process.h
};

class LocalSwarm {
 public:
  static constexpr int kQuickDeaths = 5;

  struct Options {
    std::string program;  // of the stage server
    std::string join;     // the trainer's control endpoint
    std::string run_directory;
    RunConfig config;
    std::vector<LocalReplica> adopt;  // each for the place it names; without one it is ended
  };

  // `loop` and `disk` outlive it.
  LocalSwarm(Options options, EventLoop* loop, Disk* disk, EventSink events);
  ~LocalSwarm();
  LocalSwarm(const LocalSwarm&) = delete;
  LocalSwarm& operator=(const LocalSwarm&) = delete;

  // Starts all of them. Once.
  absl::Status Start();

  // The process has become a member.
  void OnJoined(uint64_t pid);
  // It left the run as it was asked to: it is not started again.
  void OnLeft(uint64_t pid);
  // Whether it is one of these and has not died.
  bool IsAlive(uint64_t pid) const;
  // Kills one of these; it is started again as if it had died.
  void Kill(uint64_t pid);
  // Every place is empty for good, and there had been some.
  bool AllGaveUp() const;

  // Gives the children time to end by themselves (they have been told to), then asks them to, then
  // kills them. Turns the loop meanwhile. None is left afterwards.
  void Shutdown();
  // Lets go of what was taken over: it is not ended, and not looked after any more.
  void Release();
  // At once, for a second Ctrl-C.
  void KillAll();

 private:
  struct Place {
    uint32_t stage = 0;
    uint32_t replica = 0;  // of the stage
    pid_t pid = 0;         // 0: not running
    uint64_t adopted = 0;  // start ticks of one that is no child of this process
    bool joined = false;
    bool left = false;
    int quick_deaths = 0;
    bool gave_up = false;
    TimerId restart = kNoTimer;
  };

  absl::Status StartOne(Place* place);
  void Reap();
  void LookAfterAdopted();
  void Adopt();
  void OnDied(Place* place, const std::string& how);
  void GiveUp(Place* place);
  void SignalAll(int signal);
  bool AnyRunning() const;
  void WriteFile() const;
  std::string LogOf(const Place& place) const;
  std::vector<std::string> ArgumentsOf(const Place& place) const;

  const Options options_;
  EventLoop* const loop_;
  Disk* const disk_;
  const EventSink events_;
  bool ending_ = false;
  TimerId look_ = kNoTimer;
  std::vector<Place> places_;
};

// The local replicas that a trainer which was killed has left behind, as local.json names them.
std::vector<LocalReplica> FindLocalReplicas(Disk& disk, const std::string& run_directory);

// Kills them and waits until they are gone. Says how many.
int EndReplicas(const std::vector<LocalReplica>& replicas);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_LOCAL_SWARM_H_
