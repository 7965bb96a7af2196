// Departures: replicas that leave in order, to exit or to serve another stage.
//
//   asked --every neighbour knows, and another one serves the stage--> named in a decision --> told
//
// A replica that is asked to leave is draining: it gets no new work where others serve its stage,
// finishes what it has, and takes part in the step under way. The decision of that step names it,
// with its work counted; nothing is replayed. It is due only once its upstream neighbours have
// acknowledged a View in which others take its place, so that none sends it work of the next step.
// The last replica of a stage waits until another one serves there; a move that would have to wait
// is called off.
//
// It says what is due; recording it and acting on it is the trainer's. Reactor thread; sans-I/O.
#ifndef STARLING_RUNTIME_TRAINER_DEPARTURES_H_
#define STARLING_RUNTIME_TRAINER_DEPARTURES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/event.h"
#include "runtime/trainer/swarm.h"

namespace starling {

class Departures {
 public:
  Departures(Swarm* swarm, EventSink events);

  // A serving replica is to leave. Asked again, nothing changes, except that leaving for good takes
  // the place of moving. Gives a line for whoever asked: when it will leave, or what it waits for.
  // A View goes out next (Review).
  std::string Ask(Incarnation incarnation, const std::string& reason,
                  std::optional<StageId> moves_to);

  // Those whom the record being made names, in order of incarnations: nothing calls them off any
  // more. With `only`, those alone that were avoided then and have been since.
  using Avoided = std::map<Incarnation, uint64_t>;  // since which View
  std::vector<Departure> Due(const Avoided* only = nullptr);
  // Those who get no more work: a step that begins now has none of theirs.
  Avoided AvoidedNow() const;
  bool WasAsked(Incarnation incarnation) const { return asked_.count(incarnation) > 0; }
  bool MoveUnderWay() const;
  std::optional<StageId> MovesTo(Incarnation incarnation) const;

  // Membership changed, or someone was asked, and a View is about to go out: sets who is shown as
  // draining in it, says what is waited for, calls off moves that became impossible.
  void Review();
  // ... and has gone out.
  void ViewIsOut();

  // The record is on disk: they are out of the swarm, and are told so now, and again whenever they
  // are heard (TellAgain).
  void Left(const std::vector<Departure>& due, Version at);
  // Lost before it could leave.
  void Forget(Incarnation incarnation);
  // A message came from someone who is no member. True if it left in order, and was told again.
  bool TellAgain(Incarnation sender);

 private:
  struct Asked {
    std::string reason;
    std::optional<StageId> moves_to;
    uint64_t shown = 0;  // the first View of those that show it draining; 0: none does
    bool named = false;  // by a record
    bool waiting_said = false;
  };
  struct Gone {
    Endpoint address;
    MessageBody farewell;  // Stop or MoveTo
  };

  bool OthersServe(const Replica& replica) const;
  bool NeighboursKnow(const Replica& replica, uint64_t view) const;

  Swarm* const swarm_;
  const EventSink events_;
  std::map<Incarnation, Asked> asked_;
  std::map<Incarnation, Gone> gone_;  // the newest, bounded
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_DEPARTURES_H_
