// SwarmCheckers: the invariants of docs/architecture.md, checked at every decision, state and event
// of a virtual run. What breaks one becomes a violation in the trace.
//
//   I1 every decided step has exactly the loss and gradient norms of one machine (SimReference),
//      every lane is right, and what the journal saw added to the segments it names covers each
//      microbatch once
//   I2 one (stage, updates) has one hash, on whatever replica, in whatever era
//   I3 record numbers, epochs, eras, and versions within an era only grow; no incarnation comes
//   twice I4 no contributor of a decision had left before it I7 (at the end) the newest checkpoint
//   verifies
// I6, progress, is the test's: RunToEnd must come back with true.
#ifndef STARLING_TESTS_SIM_SWARM_CHECKERS_H_
#define STARLING_TESTS_SIM_SWARM_CHECKERS_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/data/data_feed.h"
#include "runtime/trainer/observer.h"
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

  bool finished() const { return finished_; }
  const absl::Status& status() const { return status_; }
  const std::vector<StepReport>& steps() const { return steps_; }
  uint64_t count(const std::string& event) const;

 private:
  struct Expected {
    double loss = 0;
    int64_t tokens = 0;
    std::vector<double> square_norms;
  };
  const Expected& At(Step step);
  void CheckMembership(const Decision& decision);
  void CheckNumbers(const Decision& decision);
  void CheckAdditions(const Decision& decision);
  void Violation(const std::string& text) { world_->trace().Violation(text); }

  World* const world_;
  const std::vector<SimStage> stages_;
  const DataFeed* const feed_;
  std::unique_ptr<SimReference> reference_;
  std::vector<Expected> expected_;  // by step - 1

  std::map<std::string, std::pair<NodeId, uint32_t>> admitted_;
  std::set<Incarnation> joined_;
  std::set<Incarnation> left_;
  std::tuple<uint64_t, Epoch, Era, Step> newest_{0, Epoch{0}, Era{0}, Step{0}};
  std::map<std::pair<uint32_t, uint32_t>, Hash128> hashes_;  // (stage, updates)
  size_t states_checked_ = 0;
  std::map<std::string, uint64_t> events_;
  std::vector<StepReport> steps_;
  bool finished_ = false;
  absl::Status status_;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SWARM_CHECKERS_H_
