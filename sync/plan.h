// The plan of a round: who sums which part of the flat run, and the check that a plan received from
// the trainer can be followed. Pure functions.
#ifndef STARLING_SYNC_PLAN_H_
#define STARLING_SYNC_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/ids.h"
#include "runtime/wire/messages.h"

namespace starling {

// Elements in a part are a multiple of this (64 bytes of fp32), except in the last part.
constexpr int64_t kPartAlignment = 16;

// What a part has at most, so that a piece is added, and its result on its way, while the next one
// still comes; but an owner has no more than kMostPartsOfOwner.
constexpr int64_t kPartElements = int64_t{1} << 20;  // 4 MiB of fp32
constexpr int64_t kMostPartsOfOwner = 64;

// Cuts a run of `size` elements into parts for owners 0 to owners-1, in turn, as equal as the
// alignment allows: earlier parts get what is left over. An owner for whom nothing is left has no
// part. `owners` must not be 0.
std::vector<RoundPart> EqualParts(int64_t size, uint32_t owners);

// The parts of a round that follows `before` with other members: cut as they were, and owned by
// whom they were owned by, but for those of members that are gone: each goes to the member that has
// the fewest elements to sum. So pieces of an earlier round fit the later one (piece_store.h).
// O(n log n) of n parts and members.
std::vector<RoundPart> KeepParts(const RoundPlan& before,
                                 const std::vector<RoundMemberPlan>& members);

// The exponent of the least power of two that is at least 1 / `tokens`: times it, a sum of
// gradients over so many tokens is about as large as a mean over them, which 16 bits hold. `tokens`
// at least 1.
int MeanExponent(int64_t tokens);

// Whether `self` can follow `plan` over a run of `size` elements. Invalid argument, with what is
// wrong: a run or a part without elements, parts that do not follow one another from 0 to `size`,
// an owner who is no member, a member twice, a segment twice in one member, `self` not among the
// members, nobody who contributes, or an encoding or scale that is not for rounds.
absl::Status CheckPlan(const RoundPlan& plan, int64_t size, Incarnation self);

}  // namespace starling

#endif  // STARLING_SYNC_PLAN_H_
