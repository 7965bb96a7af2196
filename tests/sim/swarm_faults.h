// What can go wrong in a drawn world, by name: what SwarmOptions::Drawn draws from, and what
// `starling sim --faults` chooses from.
#ifndef STARLING_TESTS_SIM_SWARM_FAULTS_H_
#define STARLING_TESTS_SIM_SWARM_FAULTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling::sim {

enum class FaultKind : uint8_t {
  kCrash,         // a peer dies and is started again; its disk forgets what was not synced
  kStall,         // a peer is stopped and goes on, as by SIGSTOP
  kVanish,        // a peer's machine is gone without a word; another one comes
  kSlow,          // a peer computes many times slower for a while
  kHiccup,        // one operation of a peer's device takes seconds
  kPartition,     // two nodes do not reach each other for a while
  kOneWay,        // one node's packets to another vanish, and neither is told
  kClog,          // packets from one node to another are held back, then come all at once
  kJam,           // one node's queue to another accepts nothing for a while
  kFullDisk,      // no room for checkpoints for a while
  kTrainerCrash,  // the trainer dies and is started again
  kTrainerStall,  // the trainer is stopped and goes on
  kEverything,    // all die at once, and all are started again
  kLoss,          // packets vanish: requests, and replies after the work was done
  kDuplicates,    // packets arrive twice
};
constexpr int kFaultKinds = 15;

const char* ToString(FaultKind kind);

// A set of kinds.
class FaultSet {
 public:
  static FaultSet All();
  static FaultSet None() { return FaultSet(); }
  // "crash,clog", "all", "none", or "all,-trainer_crash". invalid argument: names what there is.
  static absl::StatusOr<FaultSet> Parse(const std::string& list);

  bool Has(FaultKind kind) const { return (bits_ >> static_cast<int>(kind) & 1) != 0; }
  void Set(FaultKind kind, bool on = true);
  // In the order of the kinds.
  std::vector<FaultKind> Kinds() const;

 private:
  uint32_t bits_ = 0;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SWARM_FAULTS_H_
