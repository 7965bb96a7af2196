// Placement: who should serve what.
//
// A microbatch passes every stage, so the swarm is as fast as its slowest stage:
//
//     throughput = min over stages of the sum of its replicas' speeds
//
// Two questions follow from it. Where should a newcomer go (ChooseStage)? And, since departures
// undo any balance, should a replica move, which one, and where to (ProposeMoves)? Both are pure
// functions of a picture of the swarm and give their reasons in words. The one decision maker, the
// trainer, calls them; the planning simulator (tests/sim/planning) calls the same code.
//
// SWARM's rule (Ryabinin et al. 2023, Algorithm 2) moves one peer per period from the stage with
// the shortest queues to the one with the longest. What is different here, and why:
//  - Speeds, not queues: a queue says that a stage is slow, not how much one more replica would
//  help.
//  - Who is under way (a mover, a joiner) counts as already there: no second move for one cause.
//  - As many moves as the causes need, up to a bound: a burst may hurt several stages at once, and
//    throughput rises only when the last of them is mended.
//  - A move must raise the slower of its two stages by a good part of the mover's speed. So none is
//    made for measuring noise, and none is ever the reverse of the one before.
//  - A move must pay: throughput after it, for as long as the mover can be expected to serve,
//  against
//    the download during which it serves nowhere and the work that it throws away.
//  - Reserve counts: where replicas depart often, a stage that can lose one without becoming the
//    slowest is worth something, so what exceeds the slowest stage is spread over all of them.
//  - The last serving replica of a stage never moves.
//
// No clock, no state, no randomness: same picture, same answer. Any thread. With n replicas, S
// stages: ChooseStage O(n log n); ProposeMoves O(n log n) and O(S log n) for each move it
// considers, at most 64 + 2 S of them.
#ifndef STARLING_ROUTER_PLACEMENT_H_
#define STARLING_ROUTER_PLACEMENT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/ids.h"

namespace starling {

struct PlacementStage {
  // Device time that a microbatch takes here, in any unit common to all stages (layers, FLOPs, or
  // measured); positive. A replica that does v microbatches/s at stage a would do
  // v * cost(a) / cost(b) at stage b.
  double cost = 1;
  // From the start of a move or join to the first microbatch served here.
  absl::Duration download;
};

struct PlacementReplica {
  Incarnation id;
  StageId stage{0};  // where it serves or, under way, where it will
  // Microbatches/s (forward and backward) of its device at `stage`, busy all the time. Not positive
  // and finite: unknown, taken as the median of the others' devices.
  double speed = 0;
  // Until it serves; zero: it does. Positive for joiners and movers, which are left where they are
  // going.
  absl::Duration ready_in;
  bool pinned = false;  // must stay where it is: its owner chose the stage
};

// What the trainer sees. Replicas that are about to leave are left out.
struct PlacementPicture {
  std::vector<PlacementStage> stages;
  std::vector<PlacementReplica> replicas;
  double departure_rate = 0;  // departures per replica and second: see DepartureMeter
};

struct PlacementOptions {
  // From a departure to the next call of ProposeMoves, on average: half a period, or zero where
  // every departure leads to a call.
  absl::Duration reaction;
  // A gain counts for this long, or for a replica's mean life where that is shorter.
  absl::Duration horizon = absl::Minutes(10);
  // Work that a mover throws away by leaving. None where it leaves at a decision; what it did in
  // the step so far where it does not.
  absl::Duration lost_work;
  // The gain in expected throughput below which all moves of a call are left undone.
  double min_gain = 0.002;
  // The part of the mover's speed by which the slower of its two stages must gain; in (0, 1].
  double min_raise = 0.5;
  size_t max_moves = 8;  // per call; at least 1
};

struct StageChoice {
  StageId stage{0};
  double throughput_before = 0;  // microbatches/s, with everyone under way counted as there
  double throughput_after = 0;
  std::string reason;
};

struct Move {
  Incarnation replica;
  StageId from{0};
  StageId to{0};
  std::string reason;
};

struct Rebalancing {
  std::vector<Move> moves;       // in order of urgency; each replica at most once
  double throughput_before = 0;  // microbatches/s, with everyone under way counted as there
  double throughput_after = 0;   // the same, after the moves
  std::string reason;            // also why there is no move
};

// The stage where one more replica raises the throughput most; where no single stage does (several
// are the slowest), one of the slowest, since the next newcomer will then find fewer of them.
// `device_speed`: microbatches/s of the newcomer on a stage of cost 1; not positive and finite:
// unknown. There must be a stage.
StageChoice ChooseStage(const PlacementPicture& picture, double device_speed);

// The moves that pay now: none where nothing is wrong. Call it every period, and when a replica was
// lost; whoever was told to move must stand in the next picture at its destination with its
// `ready_in`, until it serves there. Who died and is sure to be back (a process that is started
// again) stands in it too, with the time until then: else a move would be made for a loss that is
// none. A stage that nobody serves or loads is slower than any other, and moves go there as well;
// whether its state can still be had is for the caller to know.
Rebalancing ProposeMoves(const PlacementPicture& picture, const PlacementOptions& options);

// The departure rate as it was observed, recent hours counting more. Deaths and leaves count, moves
// do not. Times must not go back.
class DepartureMeter {
 public:
  explicit DepartureMeter(absl::Duration half_life = absl::Hours(6)) : half_life_(half_life) {}

  // There are `replicas` from `now` on.
  void OnReplicas(absl::Time now, size_t replicas);
  void OnDeparture(absl::Time now);
  // Departures per replica and second; 0 while nothing was observed.
  double RateAt(absl::Time now) const;

 private:
  struct Sums {
    double departures = 0;
    double replica_seconds = 0;
  };
  Sums At(absl::Time now) const;

  absl::Duration half_life_;
  absl::Time since_ = absl::InfinitePast();
  size_t replicas_ = 0;
  Sums sums_;  // as of since_
};

}  // namespace starling

#endif  // STARLING_ROUTER_PLACEMENT_H_
