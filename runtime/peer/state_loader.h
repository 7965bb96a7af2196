// StateLoader: how a newcomer gets the state of its stage while the swarm goes on. The trainer
// names a state and its donors (LoadState), again with each version while it is not there yet.
//
//   nothing --snapshot of some version--> that version --results, one by one--> the state named
//      ^                                        |
//      '---- results are gone, or it is of another era
//
// The snapshot stays at the version it began with; what was decided meanwhile is replayed from the
// members' logs (checkpoint/catch_up.h). Nothing beyond the state named is applied, so it never
// runs ahead of its admission. What it holds is exact at any time, by hash, or nothing.
//
// Reactor thread. Env, Compute and PeerLinks outlive it.
#ifndef STARLING_RUNTIME_PEER_STATE_LOADER_H_
#define STARLING_RUNTIME_PEER_STATE_LOADER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/catch_up.h"
#include "checkpoint/chunk_fetcher.h"
#include "runtime/env/compute.h"
#include "runtime/env/env.h"
#include "runtime/peer/peer_links.h"

namespace starling {

class StateLoader {
 public:
  // It arrived at the state that was named last, or cannot get there as things are. Once for each
  // Load that it still works on; the next Load may follow at once.
  using OnLoaded = std::function<void(const absl::Status& status)>;
  // What is held has changed; none: nothing exact.
  using OnHeld = std::function<void(const std::optional<StateName>& held)>;

  StateLoader(StageId stage, Env* env, Compute* compute, PeerLinks* links, OnHeld on_held,
              OnLoaded on_loaded);
  StateLoader(const StateLoader&) = delete;
  StateLoader& operator=(const StateLoader&) = delete;

  // Work towards this from what is held. A new one takes the place of the one before, and goes on
  // with what is on its way where that is of use.
  void Load(const LoadState& goal, const std::optional<StateName>& held);
  // Not wanted any more. What the device was changing is then worth nothing (OnHeld).
  void GiveUp();
  bool loading() const { return goal_.has_value(); }

  void OnLinkLost(const Endpoint& donor);

 private:
  void Step();
  void FetchSnapshot();
  void OnSnapshot(const StateName& name, absl::StatusOr<ChunkFetcher::Fetched> fetched);
  void LoadSnapshot(const StateName& name, Blob state);
  void Replay();
  void OnAdvanced(const StateName& state);
  void OnReplayFailed(const absl::Status& why);
  void Arrived(const absl::Status& status);
  void SetHeld(std::optional<StateName> held);
  void RefreshDonors(const std::vector<Endpoint>& before);
  void MeasureSteps(const LoadState& goal);
  void MeasureResults(const StateName& state);
  FetchLinks MakeLinks();

  const StageId stage_;
  Env* const env_;
  Compute* const compute_;
  PeerLinks* const links_;
  const OnHeld on_held_;
  const OnLoaded on_loaded_;

  std::optional<LoadState> goal_;
  std::optional<StateName> held_;
  std::unique_ptr<ChunkFetcher> fetcher_;  // of a snapshot
  std::unique_ptr<CatchUp> catch_up_;
  bool putting_in_ = false;  // a snapshot is on its way into the device
  bool no_results_ = false;  // nobody has the results from what is held: a new snapshot
  uint64_t generation_ = 0;  // of snapshots put into the device

  // Does it keep up?
  std::optional<StateName> named_;  // by the newest LoadState
  absl::Time named_at_;
  double step_s_ = 0;       // smoothed, between the versions named
  double result_s_ = 0;     // smoothed, per result
  absl::Time advanced_at_;  // or since when results are replayed
  uint64_t replayed_ = 0;   // results in a row
  uint64_t lag_at_first_ = 0;
  bool behind_said_ = false;
  // Completions may come after this is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_STATE_LOADER_H_
