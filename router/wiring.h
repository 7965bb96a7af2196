// Wiring: which replica of the next stage gets the next microbatch.
//
// Stochastic wiring as in SWARM (Ryabinin et al. 2023, Algorithm 1): interleaved weighted
// round-robin (IWRR). Every replica carries the service time charged to it so far; the one
// charged least is chosen and charged once more, so a replica twice as fast gets twice as many
// microbatches, evenly interleaved.
//
// What is different, and why:
//  - Work that is on its way counts. SWARM orders replicas by their charge alone and so goes on
//    feeding one that stalled, at its old share. Here they are ordered by when a microbatch could
//    be expected to start:
//        max(charged, virtual time) + service * outstanding
//    with the virtual time advancing to the charge of each one chosen (as in start-time fair
//    queuing). With nobody waiting this is IWRR; under load it is shortest expected wait; and a
//    replica that was passed over because its queue was long saves up no credit meanwhile, so one
//    that stalls is sent no more than what makes its queue look as long as its siblings'.
//  - Others send to the same replicas. What a replica says is queued there beyond what we sent
//    holds it back by the time it will take; that wears off as the virtual time advances, since a
//    replica that is left out has no occasion to say that its queue is empty again.
//  - Service times are those that replicas measure and report, not round trips: a round trip holds
//    the way, the queue and all the stages behind, none of which is the replica's speed. One that
//    has not reported yet counts as the mean of those that have.
//  - A refusal (busy) takes the charge back and leaves the replica out for a while; it is not a
//    ban. Bans do not exist here: who is fenced is no candidate.
//
// One object per next stage, owned by each replica and by the trainer. No clock, no thread: calls
// are made on the owner's reactor thread, which passes the time. Same seed, same calls: same
// choices. Cost per call: O(log n) of n candidates, amortised; SetCandidates O(n log n).
#ifndef STARLING_ROUTER_WIRING_H_
#define STARLING_ROUTER_WIRING_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "runtime/base/ids.h"

namespace starling {

class Wiring {
 public:
  struct Options {
    double smoothing = 0.1;           // weight of a new report in the service time, in (0, 1]
    double initial_service_s = 0.01;  // of replicas while none has reported
    uint64_t seed = 0;                // breaks ties; give each chooser its own, so they do not herd
    absl::Duration busy_backoff = absl::Milliseconds(50);  // after a refusal; doubles up to 1 s
  };

  explicit Wiring(Options options);

  // The live replicas of the next stage. Those already known keep their history; those left out are
  // forgotten at once, with what is outstanding there; newcomers enter at the virtual time (nobody
  // counts as charged less), so that they are tried at once and then charged like the others.
  void SetCandidates(const std::vector<Incarnation>& replicas);

  // The replica for the next microbatch, charged for it. None: no candidate, or all are left out
  // for being busy until NextTry().
  std::optional<Incarnation> Choose(absl::Time now);

  // When Choose may succeed: `now`, or the end of the first busy pause; infinite future without
  // candidates.
  absl::Time NextTry(absl::Time now) const;

  // What `replica` says about itself: smoothed seconds of device time per microbatch, and
  // microbatches accepted and not finished. A service time that is not positive and finite is
  // ignored (one that has run nothing yet reports 0). Where a message also finishes a microbatch,
  // OnFinished first.
  void OnReport(Incarnation replica, double service_s, uint32_t queued);

  // A microbatch sent there came back, or was cancelled: no longer outstanding.
  void OnFinished(Incarnation replica);

  // It refused one before accepting it: the charge is taken back and the replica left out.
  void OnBusy(Incarnation replica, absl::Time now);

  // Microbatches sent there and not finished; 0 for an unknown replica.
  uint32_t outstanding(Incarnation replica) const;
  // The service time it is charged, in seconds; 0 for an unknown replica.
  double service_s(Incarnation replica) const;
  // Where it stands and why, in words, for logs.
  std::string Explain(Incarnation replica) const;

 private:
  // kAhead: charged to the virtual time or beyond, so its place is a fixed number. kBehind: the
  // virtual time has passed it, and it moves along with it.
  enum class Place : uint8_t { kNowhere, kAhead, kBehind, kBusy };

  struct Key {
    double priority = 0;
    uint64_t tie = 0;
    Incarnation replica;
    friend bool operator<(const Key& a, const Key& b) {
      return std::tie(a.priority, a.tie, a.replica) < std::tie(b.priority, b.tie, b.replica);
    }
  };

  struct Replica {
    double charged = 0;       // virtual time up to which our own sends have charged it
    double others_until = 0;  // virtual time by which what others sent is expected to be done
    double last_charge = 0;   // to take back
    double reported_s = 0;    // smoothed; 0 while it has not reported
    uint32_t reported_queue = 0;
    uint32_t outstanding = 0;
    uint64_t chosen = 0;
    absl::Time busy_until = absl::InfinitePast();
    absl::Duration backoff = absl::ZeroDuration();  // of the last refusal; zero: it accepts
    Place place = Place::kNowhere;
    Key key;           // as it stands in ahead_ or behind_
    double start = 0;  // as it stands in starts_
  };

  double ServiceOf(const Replica& replica) const;
  void Insert(Incarnation id, Replica* replica);
  void Remove(Incarnation id, Replica* replica);
  void PassBehind();
  void ReleaseBusy(absl::Time now);
  std::optional<Incarnation> First() const;

  const Options options_;
  std::map<Incarnation, Replica> replicas_;
  double virtual_time_ = 0;
  double reported_sum_ = 0;  // over replicas that have reported
  size_t reported_count_ = 0;

  // Each replica stands in exactly one of ahead_ (and then in starts_ too), behind_ and busy_.
  std::set<Key> ahead_;                                // priority: expected start
  std::set<std::pair<double, Incarnation>> starts_;    // of those ahead: where behind begins
  std::set<Key> behind_;                               // priority: expected start - virtual time
  std::set<std::pair<absl::Time, Incarnation>> busy_;  // by the end of the pause
};

}  // namespace starling

#endif  // STARLING_ROUTER_WIRING_H_
