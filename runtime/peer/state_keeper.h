// StateKeeper: the state that a peer holds: its name, how it is loaded (state_loader.h) and given
// away (state_donor.h).
//
// Reactor thread. One per stage; Env, Compute and PeerLinks outlive it.
#ifndef STARLING_RUNTIME_PEER_STATE_KEEPER_H_
#define STARLING_RUNTIME_PEER_STATE_KEEPER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/buffers.h"
#include "runtime/env/compute.h"
#include "runtime/env/env.h"
#include "runtime/peer/peer_links.h"
#include "runtime/peer/state_donor.h"
#include "runtime/peer/state_loader.h"

namespace starling {

class StateKeeper {
 public:
  StateKeeper(StageId stage, StateDonor::Options donor, Env* env, Compute* compute,
              PeerLinks* links);
  StateKeeper(const StateKeeper&) = delete;
  StateKeeper& operator=(const StateKeeper&) = delete;

  // The last state whose hash is known; none before the first load, and while the device is given
  // another one.
  const std::optional<StateName>& held() const { return held_; }

  // What the device has of the version before the one held.
  OlderParameters older() const { return older_; }

  // LoadState: whether it is news. An old one, or a repeat, is not; a repeat of one that was
  // answered is answered again.
  bool Begins(uint64_t request);
  // Gets the state, and answers `request` when it is held, or cannot be had. A later one takes the
  // place of one that is being worked on. Whatever belonged to an earlier state is to be forgotten
  // first.
  void OnLoad(const LoadState& load, uint64_t request);
  // What was being loaded is of no use any more (a new admission). Another trainer counts its
  // requests from another number.
  void GiveUpLoading(bool same_trainer);
  void OnLinkLost(const Endpoint& donor) { loader_.OnLinkLost(donor); }

  void OnFetchIndex(const FetchIndex& fetch, uint64_t request) {
    donor_.OnFetchIndex(fetch, request);
  }
  void OnFetch(const Fetch& fetch, uint64_t request) { donor_.OnFetch(fetch, request); }
  StateDonor* donor() { return &donor_; }
  void Tidy() { donor_.Tidy(); }

  // A decision moved the version on: its update is posted to the device.
  void OnVersion(Version version);
  // What is in memory has another hash than it had: it is no longer what its name says.
  void OnHashed(Hash128 hash) { held_->hash = hash; }
  // ... and is done. `record.before` and `.after` are filled in here; `pieces`: what was applied.
  void OnApplied(const StateName& state, ResultRecord record, std::vector<Blob> pieces);
  void VisitBuffers(const BufferVisitor& visit) const;

 private:
  void OnHeld(const std::optional<StateName>& held);
  void SetHeld(const std::optional<StateName>& held);
  void AnswerLoaded(const absl::Status& status);

  Compute* const compute_;
  PeerLinks* const links_;
  std::optional<StateName> held_;
  OlderParameters older_ = OlderParameters::kNone;
  StateDonor donor_;
  StateLoader loader_;

  uint64_t load_request_ = 0;       // the newest LoadState
  std::optional<StateName> asked_;  // what it named
  std::optional<Loaded> answer_;    // to it
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_STATE_KEEPER_H_
