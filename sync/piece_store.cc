#include "sync/piece_store.h"

namespace starling {

void PieceStore::Keep(Incarnation from, const Piece& piece) { kept_[{from, piece.part}] = piece; }

const Piece* PieceStore::Find(Incarnation from, uint32_t part,
                              const Contribution& contribution) const {
  const auto it = kept_.find({from, part});
  return it == kept_.end() || !(it->second.segments == contribution) ? nullptr : &it->second;
}

void PieceStore::Delivered(Incarnation owner, uint32_t part, const Contribution& contribution) {
  delivered_[{owner, part}] = contribution;
}

bool PieceStore::IsDelivered(Incarnation owner, uint32_t part,
                             const Contribution& contribution) const {
  const auto it = delivered_.find({owner, part});
  return it != delivered_.end() && it->second == contribution;
}

}  // namespace starling
