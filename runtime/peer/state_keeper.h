// StateKeeper: the state that a peer holds. Loads it when the trainer says which, remembers its
// name, and donates copies of it.
//
// Reactor thread. One per admission and stage; Env, Compute and PeerLinks outlive it.
#ifndef STARLING_RUNTIME_PEER_STATE_KEEPER_H_
#define STARLING_RUNTIME_PEER_STATE_KEEPER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "checkpoint/transfer.h"
#include "runtime/base/buffers.h"
#include "runtime/env/compute.h"
#include "runtime/env/env.h"
#include "runtime/peer/peer_links.h"

namespace starling {

class StateKeeper {
 public:
  StateKeeper(StageId stage, Env* env, Compute* compute, PeerLinks* links);
  StateKeeper(const StateKeeper&) = delete;
  StateKeeper& operator=(const StateKeeper&) = delete;

  // The last state whose hash is known; none before the first load and while loading.
  const std::optional<StateName>& held() const { return held_; }

  // LoadState: fetches the state unless it is held, and answers `request`. A repeat is answered as
  // before, once there is an answer: what was done since must not be undone.
  // True if it begins: whatever belonged to an earlier state is to be forgotten first.
  bool Begins(uint64_t request);
  void OnLoad(const LoadState& load, uint64_t request);
  // What was being loaded is of no use any more (a new admission).
  void GiveUpLoading();

  // `version` is the one served now, which is ahead of held() while an update runs.
  void OnFetch(const Fetch& fetch, uint64_t request, Era era, Version version);

  // A decision moved the version on.
  void OnVersion(Version version);
  // ... and its update is done.
  void OnApplied(const StateName& state) { held_ = state; }
  void VisitBuffers(const BufferVisitor& visit) const;

 private:
  void FetchState(const LoadState& load, uint64_t request);
  void TakeState(const LoadState& load, uint64_t request, Blob state);
  void AnswerLoaded(uint64_t request, absl::Status status, const StateName& state);
  void AnswerChunk(const Fetch& fetch, uint64_t request);

  const StageId stage_;
  Env* const env_;
  Compute* const compute_;
  PeerLinks* const links_;

  std::optional<StateName> held_;
  std::unique_ptr<StateFetcher> fetcher_;
  uint64_t load_request_ = 0;  // of the LoadState being worked on
  uint64_t answered_request_ = 0;
  Loaded answer_;

  // State being donated
  Version snapshot_version_{0};
  Blob snapshot_;
  bool snapshot_pending_ = false;
  std::vector<std::pair<Fetch, uint64_t>> waiting_fetches_;
  // Completions may come after this keeper is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_STATE_KEEPER_H_
