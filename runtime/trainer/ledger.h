// Ledger: who holds which microbatch's gradient in the step under way, and what a fence cost.
//
// Two sources feed it. Notices are hints: they say when it is worth trying to seal. Fence answers
// are the truth about what was accepted: after every live replica has promised to take nothing more
// from the fenced, the ledger follows each attempt's chain of holders from stage to stage and finds
// the (stage, index) pairs that no live replica has or will get. Only sealed lists decide what is
// counted (segment_picker.h).
//
// Pure: no clock, no messages. A microbatch is its index within the step.
#ifndef STARLING_RUNTIME_TRAINER_LEDGER_H_
#define STARLING_RUNTIME_TRAINER_LEDGER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

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

  struct Repair {
    // index -> stages whose gradient is lost; each index goes down the pipeline again, and only
    // these stages add it.
    std::map<uint32_t, std::vector<StageId>> replays;
    // Live replicas that wait for what never comes. Where a replica took it only after it had
    // answered, all of its stage are named.
    std::vector<HolderWork> cancels;
    uint32_t added_and_lost = 0;  // pairs that had been added where they are lost
  };

  Ledger(uint32_t stages, uint32_t microbatches);

  // An attempt goes to `first`, a replica of stage 0. Empty `add_at`: every stage adds it.
  void OnSent(uint32_t index, AttemptId attempt, std::vector<StageId> add_at, Incarnation first);
  // `first` refused it before accepting: as if never sent.
  void OnRefused(uint32_t index, AttemptId attempt);
  // A replica says it added its gradient. Unknown attempts are ignored.
  void OnAdded(uint32_t index, AttemptId attempt, StageId stage, Incarnation by);

  // Every (stage, index) seems to have a holder.
  bool complete() const { return missing_ == 0; }
  // Every stage of this microbatch seems to have a holder.
  bool complete(uint32_t index) const;

  // After a fence was answered by every live replica.
  Repair Resolve(const FenceAnswers& answers);

  // Additions that will not be counted: a segment was voided. What another attempt has added there
  // stays covered by it. Replays come from the next Resolve or from MissingStages.
  void Void(StageId stage, const std::vector<SegmentEntry>& entries);
  // A sealed list lacks what a notice promised.
  void Lose(StageId stage, uint32_t index);
  std::map<uint32_t, std::vector<StageId>> MissingStages() const;

  bool was_sent(uint32_t index) const { return !attempts_[index].empty(); }

 private:
  // A live stretch of an attempt: stages [begin, end), the first of them held by this replica. The
  // chains of an attempt are disjoint; only its last one may still grow, up to the last stage.
  struct Chain {
    uint32_t begin = 0;
    uint32_t end = 0;
    Incarnation holder;
  };
  struct Attempt {
    AttemptId id;
    std::vector<bool> adds;     // per stage
    std::vector<Chain> chains;  // what a fence left of it; at first the whole
    std::set<uint32_t> voided;  // stages whose addition was voided
  };
  // Follows one chain; marks stages that are or will be added, and appends what survives and who is
  // to be told that nothing comes.
  void Follow(const Chain& chain, const Attempt& attempt, uint32_t index,
              const FenceAnswers& answers, std::vector<bool>* alive, std::vector<Chain>* survivors,
              std::vector<HolderWork>* cancels) const;

  // Which attempts a notice says were added, and by whom.
  using Cell = std::map<AttemptId, Incarnation>;
  // Changes a cell by `change`, and keeps count of the empty ones. True if that emptied it.
  template <typename Change>
  bool Update(uint32_t index, uint32_t stage, Change change);

  const uint32_t stages_;
  std::vector<std::vector<Attempt>> attempts_;  // by index
  std::vector<std::vector<Cell>> covered_;      // [index][stage], by hint
  uint64_t missing_;                            // empty cells
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_LEDGER_H_
