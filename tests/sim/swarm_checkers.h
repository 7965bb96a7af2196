// SwarmCheckers: the invariants of docs/architecture.md, checked at every decision, state and event
// of a virtual run. What breaks one becomes a violation in the trace.
//
//   I1 every gradient in a decision was computed on the version that its record names: the one
//      before the step, or with delayed commit one earlier; every decided step has exactly the
//      loss and gradient norms of one machine (SimReference), every lane is right, and what the
//      journal saw added to the segments it names covers each microbatch once, at every stage of a
//      parameter group; what a replica applies is bit for bit the sum, in the plan's order, of what
//      the journal saw added, and only after the decision was taken
//   I2 one (stage, updates) has one hash of its tensors, on whatever replica, in whatever era, what
//      stages share is the same at all of them, and one (stage, era, version) one hash of
//      everything
//   I3 record numbers, epochs, eras, and versions within an era only grow, in the log, at the
//      trainer and at every peer; no incarnation comes twice; nobody is at a version that is not
//      decided
//   I4 no contributor of a decision had left before it
//   I5 every buffer that a peer or the trainer names is within its bound
//   I7 a checkpoint that was said to be saved loads, with the bits of its version, from what would
//      be left after a power cut
// Evaluations have one machine's loss, too.
// I6, progress, is the test's: RunToEnd must come back with true, or SwarmWorld::RunLiveness.
//
// Checks read; nothing they do changes the run.
#ifndef STARLING_TESTS_SIM_SWARM_CHECKERS_H_
#define STARLING_TESTS_SIM_SWARM_CHECKERS_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "runtime/base/parameter_groups.h"
#include "runtime/data/data_feed.h"
#include "runtime/peer/peer.h"
#include "runtime/trainer/observer.h"
#include "runtime/trainer/trainer.h"
#include "tests/sim/sim_reference.h"
#include "tests/sim/world.h"

namespace starling::sim {

class SwarmCheckers : public TrainerObserver {
 public:
  SwarmCheckers(World* world, std::vector<SimStage> stages, const DataFeed* feed);

  // A peer was admitted: whose numbers an incarnation stands for.
  void OnAdmitted(const std::string& incarnation, NodeId node, uint32_t life);

  // A trainer starts: what it found as the newest decision of the newest era counts as decided,
  // though the one before may have died before it could say so.
  void OnTrainerStart(const std::optional<Decision>& newest);

  void OnEvent(const Event& event) override;
  void OnDecision(const Decision& decision) override;
  void OnStep(const StepReport& report) override;
  void OnEvaluation(Version version, double loss) override;
  void OnFinished(const absl::Status& status, const std::string& summary) override;
  // After every event of the world.
  void CheckStates();
  // After every event of the node.
  void CheckPeer(NodeId node, uint32_t life, const Peer& peer);
  void CheckTrainer(const Trainer& trainer);
  // After the node's last event.
  Peer::Look LookOf(NodeId node) const;
  // The disk is full for a while: a run may end with that as its reason.
  void AllowDiskFull() { disk_full_ = true; }
  // It ended as it should.
  bool ended_well() const { return finished_ && (status_.ok() || DiskFull()); }
  // How rounds of more than one member travel.
  void SetRoundCoding(const Coding& coding) { round_coding_ = coding; }
  // Delayed commit: a step that is decided again in another era may have been computed on another
  // version, so that versions are compared within an era only.
  void AllowDelayed() { delayed_ = true; }
  // Where checkpoints are. Not looked at if null.
  void SetDisk(const SimDisk* disk) { disk_ = disk; }

  bool finished() const { return finished_; }
  const absl::Status& status() const { return status_; }
  const std::vector<StepReport>& steps() const { return steps_; }
  uint64_t count(const std::string& event) const;
  // In the order they were evaluated.
  const std::vector<Version>& evaluated() const { return evaluated_; }

 private:
  struct Expected {
    double loss = 0;
    int64_t tokens = 0;
    std::vector<double> square_norms;  // by group
  };
  // What one machine gets in this step. None: it has not come to the version before.
  std::optional<Expected> Advance(const Decision& decision);
  // One machine begins again with what the era's checkpoint holds.
  void OnEra(const Event& event);
  // The hash of the tensors of a state that replicas name so.
  std::optional<Hash128> TensorsOf(StageId stage, Era era, Version version) const;
  // Its path is empty if it is not there.
  static CheckpointInfo FindCheckpoint(SimDisk& disk, const std::string& path);
  void CheckMembership(const Decision& decision);
  void CheckNumbers(const Decision& decision);
  void CheckAdditions(const Decision& decision);
  void CheckAdditions(const Decision& decision, const GroupOutcome& group, StageId stage);
  // The sum that the plan names, from what was really added.
  std::vector<float> SumOf(const Decision& decision, const GroupOutcome& group) const;
  void NoteSums(const Decision& decision);
  const ParameterGroup* GroupOf(const GroupOutcome& outcome) const;
  // What `group` has of a stage's flat run.
  GroupRange RangeOf(StageId stage, uint32_t group) const;
  void CheckState(const StateSeen& seen);
  bool DiskFull() const { return disk_full_ && absl::IsResourceExhausted(status_); }
  void CheckCheckpoint(const std::string& path);
  void CheckBuffer(const std::string& who, const char* name, size_t used, size_t bound);
  void Violation(const std::string& text) { world_->trace().Violation(text); }

  World* const world_;
  const std::vector<SimStage> stages_;
  std::vector<ParameterGroup> groups_;
  const DataFeed* const feed_;
  // One machine, as it was after each version of each era.
  std::map<std::pair<Era, Version>, SimReference> references_;

  std::map<std::string, std::pair<NodeId, uint32_t>> admitted_;
  std::set<Incarnation> joined_;
  std::set<Incarnation> left_;
  std::tuple<uint64_t, Epoch, Era, Step> newest_{0, Epoch{0}, Era{0}, Step{0}};
  std::map<std::pair<uint32_t, uint32_t>, Hash128> hashes_;  // of tensors, by (stage, updates)
  std::map<uint32_t, Hash128> tied_hashes_;                  // of what stages share, by updates
  std::map<std::pair<StageId, Hash128>, Hash128> tensors_;   // by the hash of everything
  bool delayed_ = false;
  // What a decision makes of a (stage, step): the hash of the summed gradient, one per era.
  std::map<std::pair<uint32_t, Step>, std::set<Hash128>> sums_;
  // As replicas name their states: by (stage, era, version).
  std::map<std::tuple<StageId, Era, Version>, Hash128> names_;
  // What nodes were after their last event.
  struct PeerBefore {
    uint32_t life = 0;
    Peer::Look look;
  };
  std::map<NodeId, PeerBefore> before_;
  std::tuple<Epoch, Era, Version> trainer_before_{Epoch{0}, Era{0}, Version{0}};
  size_t members_before_ = 0;
  std::map<Era, Version> decided_;  // the newest version of each era
  Coding round_coding_;
  const SimDisk* disk_ = nullptr;
  size_t states_checked_ = 0;
  std::map<std::string, uint64_t> events_;
  std::vector<StepReport> steps_;
  std::vector<Version> evaluated_;
  bool finished_ = false;
  bool disk_full_ = false;
  absl::Status status_;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SWARM_CHECKERS_H_
