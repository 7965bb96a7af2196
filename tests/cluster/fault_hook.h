// FaultHook: kills this process, once, at a point that a test has named.
//
//   STARLING_FAULT="replica,1,forward,20;trainer,-,sealing,30" STARLING_FAULT_FOLDER=/tmp/faults
//
// Coordinates are ROLE,STAGE,PHASE,STEP; docs/testing.md lists the phases. They are taken in the
// order given. One falls to the first process of that role (and stage) that reaches that phase in
// that step or, if it cannot happen then, in a later one: an earlier coordinate is still to come;
// or both are deaths of members, and the earlier one came less than two steps before; or a stage
// that it sees lacks a replica, so that the death would take a stage's state with it. Who makes
// FOLDER/ROLE-STAGE-PHASE-STEP.json takes it, so that it is one of all processes, and none that is
// started again. Into that file goes one line of JSON before the process sends itself SIGKILL:
//
//   coordinate, pid, step; of a replica also incarnation, decided (the newest step whose Apply has
//   reached it) and accepted: {step: [index, ...]}, the microbatches whose gradients it had said it
//   would add
//
// What it had sent until then is let out, so that what it said is what others may know.
//
// Threads: Reached from any; everything else on the reactor thread.
#ifndef STARLING_TESTS_CLUSTER_FAULT_HOOK_H_
#define STARLING_TESTS_CLUSTER_FAULT_HOOK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/ids.h"

namespace starling {

struct FaultCoordinate {
  std::string role;               // "replica", "trainer"
  std::optional<uint32_t> stage;  // none: any
  std::string phase;
  uint64_t step = 0;
  std::string text;  // as given

  std::string FileName() const;  // within the folder
};

// Those separated by ';'. Aborts on anything else: a fault that never comes proves nothing.
std::vector<FaultCoordinate> ParseFaultCoordinates(const std::string& text);

class FaultHook {
 public:
  // What the environment asks of a process in this role.
  explicit FaultHook(std::string role);

  // Some coordinate is for this role.
  bool armed() const { return armed_; }

  // Dies here if this is the point.
  void Reached(const std::string& phase, Step step);

  // What lets out what was sent; called before it dies on the reactor thread.
  void SetFlush(std::function<void()> flush) { flush_ = std::move(flush); }

  // --- what a replica knows, for its line ---
  void OnWelcome(Incarnation self, StageId stage);
  // `count`: of replicas by stage, as this one sees them.
  void OnView(const std::map<uint32_t, int>& count) { replicas_ = count; }
  void OnAccepted(Step step, uint32_t index) { accepted_[Value(step)].insert(index); }
  void OnDecided(Step step);

 private:
  bool IsHere(const FaultCoordinate& coordinate, const std::string& phase, Step step) const;
  bool EarlierAreOver(const FaultCoordinate& coordinate, Step step) const;
  bool AllStagesAreWhole() const;
  // Makes the file with its line. False: another process did.
  bool Take(const FaultCoordinate& coordinate, Step step) const;

  const std::string role_;
  const std::string folder_;
  std::vector<FaultCoordinate> coordinates_;
  bool armed_ = false;
  const std::thread::id reactor_;
  std::function<void()> flush_;
  Incarnation self_;
  std::optional<uint32_t> stage_;
  std::map<uint32_t, int> replicas_;
  std::map<uint64_t, std::set<uint32_t>> accepted_;
  uint64_t decided_ = 0;
};

}  // namespace starling

#endif  // STARLING_TESTS_CLUSTER_FAULT_HOOK_H_
