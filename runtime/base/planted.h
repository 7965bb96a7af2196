// Mistakes that tests turn on, to see that the search in the virtual world finds them.
//
//   if (place < sum.added && !Planted(Bug::kSumInArrivalOrder)) ...
//
// In every library and program that is built to be used this is the constant false. Only the
// objects that tests/sim compiles a second time, with STARLING_PLANT_BUGS, ask for it.
// docs/testing.md lists what each bug is, which checker finds it and in how many seeds.
#ifndef STARLING_RUNTIME_BASE_PLANTED_H_
#define STARLING_RUNTIME_BASE_PLANTED_H_

#include <cstdint>

namespace starling {

enum class Bug : uint8_t {
  kNone,
  kAddAfterSeal,         // a sealed segment takes more, behind the list that was answered
  kTrustNotices,         // what the dead said they had added counts, sealed lists or not
  kSkipFenceAcks,        // the first answer to a fence stands for all
  kForgetRecord,         // a restarted trainer does not read the newest record
  kReuseAttemptName,     // a replay has the name of the try before
  kPublishBeforeSync,    // a manifest names files that are not synced
  kActBeforeSync,        // a record is acted on before it is synced
  kSumInArrivalOrder,    // pieces are added as they come
  kApplyOtherRound,      // whichever result of the step is there is applied
  kForgetPromise,        // work is taken from the fenced
  kRunRepeatedRequest,   // a repeated Forward is run again
  kReuseIncarnation,     // who comes back is given the name it had
  kIgnoreStageMask,      // a replay is added at every stage
  kServeBeforeCaughtUp,  // a joiner serves with the state it was sent, steps later too
  kNeverRepeat,          // a request is sent once
  kContestedAsBaton,     // contested work is passed on, and added, as if it were not
  kForgetTiedStage,      // a tie's round sums one of its stages, and expects no more
  kApplyWithoutTie,      // of a tie a replica applies what it has summed itself
  kReplayOnNewest,       // delayed commit: a replay is computed on the newest version
};

#ifdef STARLING_PLANT_BUGS
bool Planted(Bug bug);  // tests/sim/planted_bugs.cc
#else
constexpr bool Planted(Bug bug) { return false; }
#endif

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_PLANTED_H_
