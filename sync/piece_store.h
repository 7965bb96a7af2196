// PieceStore: what a member of one group's rounds in a step keeps until the step is over, so that
// the round after a death moves only what changed.
//
// A piece is named by (sender, the segments it sums, part): it is the same in every round of the
// step, because parts are cut once (KeepParts). An owner keeps the pieces that it got, a sender
// remembers which of its own an owner has acknowledged and does not send those to it again. Neither
// forgets before the step is over for both, or one of them is admitted anew under another name.
//
// Pure. Memory: of each sender the newest piece of each part, together at most a gradient for each
// member times the share of the run that is summed here.
#ifndef STARLING_SYNC_PIECE_STORE_H_
#define STARLING_SYNC_PIECE_STORE_H_

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "runtime/wire/messages.h"

namespace starling {

class PieceStore {
 public:
  using Contribution = std::vector<SegmentRef>;

  // --- as an owner ---
  // A piece arrived. Of a changed contribution it takes the place of the one before.
  void Keep(Incarnation from, const Piece& piece);
  // The piece of this contribution, if it is here: as it came, with the round it came for.
  const Piece* Find(Incarnation from, uint32_t part, const Contribution& contribution) const;

  // --- as a sender ---
  void Delivered(Incarnation owner, uint32_t part, const Contribution& contribution);
  bool IsDelivered(Incarnation owner, uint32_t part, const Contribution& contribution) const;

 private:
  using Key = std::pair<Incarnation, uint32_t>;  // the other one, part

  std::map<Key, Piece> kept_;
  std::map<Key, Contribution> delivered_;
};

}  // namespace starling

#endif  // STARLING_SYNC_PIECE_STORE_H_
