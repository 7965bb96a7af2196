// Mover: the trainer's picture of who serves what, how fast, and who is on the way, for the policy
// in router/placement.h: where a newcomer goes, and who should move.
//
// Speeds are those that replicas measure and report; a peer's is remembered for when it comes to
// another stage. How long a newcomer takes to serve is learnt per stage. It proposes; having it
// done is the trainer's. Reactor thread; sans-I/O.
#ifndef STARLING_RUNTIME_TRAINER_MOVER_H_
#define STARLING_RUNTIME_TRAINER_MOVER_H_

#include <cstdint>
#include <map>
#include <vector>

#include "router/placement.h"
#include "runtime/base/event.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "runtime/env/env.h"
#include "runtime/trainer/admission.h"
#include "runtime/trainer/departures.h"
#include "runtime/trainer/swarm.h"

namespace starling {

class Mover {
 public:
  // All outlive it.
  Mover(const RunConfig& config, const std::vector<StageLayout>& layouts, Env* env, Swarm* swarm,
        const Admission* admission, const Departures* departures, EventSink events);

  // For a newcomer that leaves it to us.
  StageId ChooseStage(const Hello& hello);

  // The moves that pay now. None while one is under way.
  std::vector<Move> Propose();
  // The same while all are joiners, and a stage has none: who has loaded may go there.
  std::vector<Move> ProposeForJoiners();

  // A joiner became a member; `replica.since` says when it arrived.
  void OnJoined(const Replica& replica);
  // A member died or left for good.
  void OnGone();

 private:
  PlacementPicture Picture(bool joiners_serve = false);

  const absl::Duration period_;
  Env* const env_;
  Swarm* const swarm_;
  const Admission* const admission_;
  const Departures* const departures_;
  const EventSink events_;
  std::vector<PlacementStage> stages_;
  std::vector<bool> download_known_;
  std::map<PeerId, double> device_speeds_;  // microbatches/s at cost 1, as last measured
  DepartureMeter departures_seen_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_MOVER_H_
