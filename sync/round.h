// RoundMember: one all-reduce as one of its members sees it.
//
// A butterfly by parts: the flat run is cut into parts, each with an owner. Every member that
// contributes sends each part's owner its piece; the owner adds the pieces in the plan's order of
// members and sends the result to all. Everyone uses the result as it was sent, the owner too, so
// all members end with the same bits. The integer lane is added along with the pieces.
//
// Pieces and results travel in the plan's encoding. A sum is taken of pieces as they were sent, the
// owner's own too, so that its bits do not depend on who the owner is.
//
// Nothing here depends on the order in which messages arrive: the sum is taken in the plan's order.
// Pieces may come before this member has contributed. Messages may be repeated; senders repeat them
// until they are acknowledged, and answers to a repeat are empty because the results already sent
// are repeated in the same way. A member that died leaves the round incomplete: the trainer then
// begins another with another number, and this object is dropped.
//
// Sans-I/O and without a thread of its own: the owner passes what arrives and sends what is
// returned. Adds and encodes on the calling thread. Memory: one output buffer per owned part,
// pieces only until they can be added, and the results.
#ifndef STARLING_SYNC_ROUND_H_
#define STARLING_SYNC_ROUND_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/env/compute.h"
#include "runtime/wire/messages.h"
#include "sync/piece_store.h"

namespace starling {

struct RoundSend {
  Incarnation to;  // never the member itself
  std::variant<Piece, Result> message;
};

struct RoundOutcome {
  Hash128 result_hash;     // of the hashes of the parts' bytes, in the order of the parts
  double square_norm = 0;  // of the unscaled sum: SquareNorm of each part, added in order
  uint64_t lane = 0;       // the total; if parts disagree, one that is not the plan's
};

class RoundMember {
 public:
  // `plan` must have passed CheckPlan for `self` and `size`.
  RoundMember(RoundPlan plan, Incarnation self, int64_t size);

  // This member's sum of the segments that the plan names: f32 [size]. Once. Raw pieces are slices
  // of it, so its bytes live until they are sent. Returns the pieces for the others, but for those
  // that `store` knows to be delivered, and the results of own parts that are now complete. A
  // member without segments need not call it; its sum is not used.
  std::vector<RoundSend> Contribute(SegmentSum own, const PieceStore* store = nullptr);

  // A piece for a part that this member owns. Returns the results to send, if the part is now
  // complete; nothing for a piece that is there already or whose part is done.
  //   aborted: of another round.
  //   invalid argument: a part that is not this member's, a sender who does not contribute, or data
  //   of the wrong size or type.
  absl::StatusOr<std::vector<RoundSend>> OnPiece(Incarnation from, const Piece& piece);

  // The result of a part, from its owner. Repeats are ok.
  //   aborted: of another round.
  //   invalid argument: a part that does not exist, a sender who is not its owner, or data of the
  //   wrong size or type.
  //   data loss: other bits than its first result, which is kept; status() remembers it.
  absl::Status OnResult(Incarnation from, const Result& result);

  // The results of all parts are here.
  bool complete() const { return missing_ == 0; }

  // Ok while nothing is known to be wrong. Data loss: an owner sent two different results, or the
  // round is complete and the lanes of its parts differ from each other or from the plan's expected
  // one. Nothing may be applied then.
  absl::Status status() const;

  // The summed gradient as consecutive flat blobs, as Compute::Apply takes it. Only when complete.
  std::vector<Blob> gradient() const;

  // Only when complete.
  RoundOutcome outcome() const;

  // What is missing, in words, for logs: "part 2 (owner 1.4)".
  std::string Missing() const;

  const RoundPlan& plan() const { return plan_; }

 private:
  // A part while this member adds it up.
  struct Sum {
    std::map<uint32_t, Piece> waiting;  // by place among contributors_; not added yet
    uint32_t added = 0;                 // contributors added so far
    Blob first;                         // the first piece, until the second is added to it
    std::optional<MutableBlob> total;   // from the second piece on
    uint64_t lane = 0;
  };

  struct PartResult {
    Blob data;
    uint64_t lane = 0;
    Hash128 hash;
    double square_norm = 0;
  };

  absl::Status CheckPiece(Incarnation from, const Piece& piece) const;
  Blob Coded(const Blob& values) const;
  Blob Decoded(const Blob& data) const;
  std::vector<RoundSend> AddPiece(uint32_t part, uint32_t place, const Piece& piece);
  void AddNext(Sum* sum, const Piece& piece);
  std::vector<RoundSend> FinishPart(uint32_t part, Sum* sum);
  void SetResult(uint32_t part, uint64_t lane, Blob data);

  const RoundPlan plan_;
  const int64_t size_;
  uint32_t self_ = 0;                               // number among the plan's members
  std::map<Incarnation, uint32_t> contributors_;    // to the place in the order of addition
  std::map<uint32_t, Sum> sums_;                    // by part, for owned parts without a result
  std::vector<std::optional<PartResult>> results_;  // by part
  size_t missing_ = 0;                              // parts without a result
  bool contributed_ = false;
  absl::Status conflict_;
};

}  // namespace starling

#endif  // STARLING_SYNC_ROUND_H_
