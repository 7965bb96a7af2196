// Ledger: who holds which microbatch's gradient in the step under way, and what a fence cost.
//
// Two sources feed it. Notices are hints: they say when it is worth trying to seal. Fence answers
// are the truth about what was accepted: after every live replica has promised to take nothing more
// from the fenced, the ledger finds, microbatch by microbatch, the stages that no live replica has
// added or will add, and how their paths are mended (path_repair.h). Asked about slow work it plans
// around replicas that may be alive: contested. Only sealed lists decide what is counted
// (segment_picker.h).
//
// Pure: no clock, no messages. A microbatch is its index within the step.
#ifndef STARLING_RUNTIME_TRAINER_LEDGER_H_
#define STARLING_RUNTIME_TRAINER_LEDGER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "runtime/trainer/path_repair.h"
#include "runtime/wire/messages.h"

namespace starling {

class Ledger {
 public:
  // What each live replica answered to a fence; a holder not in it is gone.
  struct FenceAnswer {
    StageId stage{0};  // which it serves
    std::vector<HeldWork> held;
  };
  using FenceAnswers = std::map<Incarnation, FenceAnswer>;

  struct HolderWork {
    Incarnation holder;
    WorkId work;
  };

  // A stretch of a path to be computed again, as a new attempt.
  struct Splice {
    uint32_t index = 0;
    std::optional<HolderWork> from;  // who sends its output on again; none: the trainer
    uint32_t begin = 0;
    uint32_t end = 0;
    std::vector<StageId> add_at;
    std::optional<starling::Splice> until;
    bool contested = false;
    bool avoid_first = false;  // the trainer: not whom it was sent to last
  };

  struct Repair {
    std::vector<Splice> splices;
    std::vector<HolderWork> cancels;  // live replicas that wait for what never comes
    // Slow work: who need not do it any more once a contested copy is done, by index.
    std::map<uint32_t, std::vector<HolderWork>> give_up;
    uint32_t lost_pairs = 0;  // (stage, microbatch) that were begun by replicas that are gone
    bool ask_again = false;   // someone answered too early to tell
    std::vector<uint32_t> hopeless;  // slow work that no other replica can take
    std::set<Incarnation> rivals;    // slow work: who is replaced, and may be alive
  };

  // About slow work, see Liveness in path_repair.h.
  struct Suspicion {
    std::set<uint32_t> overdue;  // indices
    std::set<uint32_t> again;    // those of them for which the gentlest way was tried
    std::set<Incarnation> stuck;
    std::map<Incarnation, uint32_t> silent;  // its stage
  };

  Ledger(uint32_t stages, uint32_t microbatches);

  // The trainer sends an attempt to `first`, a replica of stage 0: to all stages, or as `splice`
  // says.
  void OnSent(uint32_t index, AttemptId attempt, Incarnation first, const Splice* splice = nullptr);
  // `first` has it.
  void OnAccepted(uint32_t index, AttemptId attempt);
  // `first` refused it before accepting: as if never sent.
  void OnRefused(uint32_t index, AttemptId attempt);
  // `splice.from` was told to send it on as this attempt.
  void OnSpliced(const Splice& splice, AttemptId attempt);
  // A replica says it added its gradient. Unknown attempts are ignored.
  void OnAdded(uint32_t index, AttemptId attempt, StageId stage, Incarnation by);

  // Every (stage, index) seems to have a holder.
  bool complete() const { return missing_ == 0; }
  // Every stage of this microbatch seems to have a holder.
  bool complete(uint32_t index) const;

  // After a fence was answered by every live replica.
  Repair Resolve(const FenceAnswers& answers);
  // After everyone was asked and these answered. Touches only what is overdue.
  Repair ResolveSlow(const FenceAnswers& answers, const Suspicion& suspicion);

  // Additions that will not be counted: a segment was voided. What another attempt has added there
  // stays covered by it. Resolve plans what is to be done about it.
  void Void(StageId stage, const std::vector<SegmentEntry>& entries);
  // A sealed list lacks what a notice promised.
  void Lose(StageId stage, uint32_t index);
  std::map<uint32_t, std::vector<StageId>> MissingStages() const;

  bool was_sent(uint32_t index) const { return !attempts_[index].empty(); }

 private:
  void Issue(uint32_t index, AttemptId attempt, const Splice* splice,
             std::optional<Incarnation> first);
  // What is known of the microbatch, beside who answered.
  void Describe(uint32_t index, Liveness* liveness) const;
  void Add(uint32_t index, const Liveness& liveness, RepairPlan plan, Repair* repair);

  // Which attempts a notice says were added, and by whom.
  using Cell = std::map<AttemptId, Incarnation>;
  // Changes a cell by `change`, and keeps count of the empty ones.
  template <typename Change>
  void Update(uint32_t index, uint32_t stage, Change change);

  const uint32_t stages_;
  std::vector<std::vector<IssuedAttempt>> attempts_;  // by index, in the order of issue
  std::vector<std::vector<Cell>> covered_;            // [index][stage], by hint
  // [index][stage]: these were replaced while they may have been alive. As long as one of them may,
  // what is done there is contested.
  std::vector<std::vector<std::set<Incarnation>>> rivals_;
  std::map<uint32_t, std::set<Incarnation>> doubted_;  // by index: who those are
  uint64_t missing_;                                   // empty cells
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_LEDGER_H_
