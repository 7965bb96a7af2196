// RollCall: a restarted trainer asks the members of the newest record to report, and decides
// nothing before each of them has said Hello or been given up.
//
//   Asked --Hello--> reported
//     |---- silent for `patience`, or its connection refused or lost --> given up
//     '---- still hears another trainer --> refused: two would decide
//
// A member is known by its peer: its incarnation may be that of a trainer which never recorded it.
// One that is given up and comes later is a joiner like any other. Sans-I/O, reactor thread; Env
// and Swarm outlive it.
#ifndef STARLING_RUNTIME_TRAINER_ROLL_CALL_H_
#define STARLING_RUNTIME_TRAINER_ROLL_CALL_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "runtime/base/event.h"
#include "runtime/env/env.h"
#include "runtime/membership/failure_detector.h"
#include "runtime/trainer/swarm.h"

namespace starling {

class RollCall {
 public:
  struct Options {
    std::map<Incarnation, Member> members;  // of the newest record
    std::set<Incarnation> dead;             // known to be gone: not waited for
    Endpoint trainer;                       // where to report
    absl::Duration patience;                // of silence
  };
  // Another trainer is alive: a line that says so. This one must not go on.
  using OnRefused = std::function<void(const std::string& reason)>;

  RollCall(Options options, Env* env, Swarm* swarm, EventSink events, OnRefused refused);
  RollCall(const RollCall&) = delete;
  RollCall& operator=(const RollCall&) = delete;

  void Start();

  void OnHello(const Hello& hello);
  void OnLinkLost(const std::string& control);
  // Now and then. `late`: how long this loop could not run, and so heard nobody.
  void Watch(absl::Duration late);

  // Nobody is waited for any more.
  bool complete() const { return waiting_.empty(); }
  const std::map<Incarnation, Member>& waiting() const { return waiting_; }

 private:
  void Ask(Incarnation incarnation);
  void OnAnswer(Incarnation incarnation, absl::Time asked, const Message& reply);
  void GiveUp(Incarnation incarnation, const std::string& reason);

  const Options options_;
  Env* const env_;
  Swarm* const swarm_;
  const EventSink events_;
  const OnRefused refused_;
  absl::Time began_;
  FailureDetector detector_;
  std::map<Incarnation, Member> waiting_;
  // Answers and timers may come after this is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_ROLL_CALL_H_
