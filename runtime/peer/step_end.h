// StepEnd: a replica's part in the end of a step: seal, round, apply.
//
// Reactor thread. One per stage: results and an update under way survive a new admission, so that a
// restarted trainer can have its newest decision finished. StateKeeper, Compute and PeerLinks
// outlive it; there is a StageServer for each admission.
#ifndef STARLING_RUNTIME_PEER_STEP_END_H_
#define STARLING_RUNTIME_PEER_STEP_END_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/base/buffers.h"
#include "runtime/base/parameter_groups.h"
#include "runtime/env/compute.h"
#include "runtime/peer/peer_links.h"
#include "runtime/peer/state_keeper.h"
#include "stages/stage_server.h"
#include "sync/piece_store.h"
#include "sync/round.h"

namespace starling {

class StepEnd {
 public:
  // `groups`: those that the stage's flat run is made of, in its order.
  StepEnd(std::vector<GroupRange> groups, StateKeeper* state, Compute* compute, PeerLinks* links);
  StepEnd(const StepEnd&) = delete;
  StepEnd& operator=(const StepEnd&) = delete;

  // Before anything else. `server` serves the version held. Seals and rounds that were not complete
  // are forgotten, complete results of the step after that version are kept.
  void OnAdmitted(StageServer* server);

  // Complete results of the step under way.
  std::vector<HeldResult> HeldResults() const;
  // An update runs: what is held is about to change.
  bool applying() const { return applying_ != Version{0}; }

  void OnSeal(const Seal& seal, uint64_t request);
  void OnReduce(const Reduce& reduce, uint64_t request);
  // From other members; they are acknowledged by the Peer.
  void OnPiece(Incarnation from, const Piece& piece);
  void OnResult(Incarnation from, const Result& result);
  void OnApply(const Apply& apply, uint64_t request);

  // A View may name members that pieces are waiting for.
  void RetrySends();
  // The step under way is over for this replica: another state is being loaded.
  void Forget();
  void VisitBuffers(const BufferVisitor& visit) const;

 private:
  struct Round {
    std::unique_ptr<RoundMember> member;  // null until the plan is here
    uint64_t reduce_request = 0;
    std::vector<std::pair<Incarnation, Piece>> early_pieces;
    std::vector<std::pair<Incarnation, Result>> early_results;
    std::vector<RoundSend> unsent;  // to members no View has named yet
    uint32_t reused = 0;            // pieces that need not travel again
    bool answered = false;
  };

  // A sum of this replica's segments over the whole run, which serves the rounds of all groups.
  struct OwnSum {
    PieceStore::Contribution segments;
    std::optional<SegmentSum> sum;   // none while the device is at it
    std::vector<RoundPlan> waiting;  // for it
  };

  // The step under way, whose decision has not been applied.
  Step step() const { return Step{Value(server_->version()) + 1}; }
  void AnswerSeal(Sealed sealed);
  const GroupRange* RangeOf(uint32_t group) const;
  void BeginRound(RoundId id, const RoundPlan& plan);
  void ReadFor(const RoundPlan& plan, const PieceStore::Contribution& own,
               std::vector<SegmentId> segments);
  void OnRead(OwnSum* own, const absl::StatusOr<SegmentSum>& sum);
  void Contribute(const RoundPlan& plan, const SegmentSum& sum);
  bool Send(const RoundSend& send);
  void ClearPieces();
  bool Serves(const RoundPlan& plan, Incarnation from, const Piece& piece) const;
  void TakePiece(Incarnation from, const Piece& piece);
  void RoundMoved(RoundId id, std::vector<RoundSend> sends);
  void FailRound(RoundId id, const absl::Status& status);
  // What a decision summed for this stage: the whole flat run, in pieces.
  struct Total {
    std::vector<Blob> pieces;
    Hash128 hash;  // of the result, or of the results' hashes where there are several groups
  };
  std::optional<Total> TotalOf(const Decision& decision);
  void MoveTo(Version version, bool updated);
  void Finished(const Decision& decision, uint64_t request, Hash128 hash, Hash128 result_hash,
                std::vector<Blob> pieces);

  const std::vector<GroupRange> groups_;
  StateKeeper* const state_;
  Compute* const compute_;
  PeerLinks* const links_;
  StageServer* server_ = nullptr;

  // Seals of the step: number -> request, answer
  std::map<uint32_t, std::pair<uint64_t, std::optional<Sealed>>> seals_;
  std::vector<SegmentSummary> sealed_;
  std::map<RoundId, Round> rounds_;
  std::map<uint32_t, PieceStore> pieces_;  // by group, of all rounds of the step
  std::shared_ptr<OwnSum> own_sum_;        // the newest asked for
  // Acknowledgements of its pieces may come when it is over: they hold a weak reference to this.
  std::shared_ptr<bool> step_life_ = std::make_shared<bool>(true);
  Version applying_{0};
  // Completions may come after this is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_STEP_END_H_
