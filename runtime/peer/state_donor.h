// StateDonor: what a replica gives away: snapshots of its stage's state, kept while they are
// fetched, and the results of the newest decisions (checkpoint/snapshot_shelf.h, result_log.h).
//
// A snapshot is taken when a version is first asked for, between two updates, so it is consistent;
// one that is asked for a little early is taken when that version is reached. Later versions cannot
// be had, earlier ones only from the shelf. Giving does not hold up the replica's own steps, but
// for the copy.
//
// Reactor thread. Env, Compute and PeerLinks outlive it.
#ifndef STARLING_RUNTIME_PEER_STATE_DONOR_H_
#define STARLING_RUNTIME_PEER_STATE_DONOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/chunk_donor.h"
#include "checkpoint/result_log.h"
#include "checkpoint/snapshot_shelf.h"
#include "runtime/base/buffers.h"
#include "runtime/env/compute.h"
#include "runtime/env/env.h"
#include "runtime/peer/peer_links.h"

namespace starling {

class StateDonor {
 public:
  struct Options {
    double bytes_per_s = 0;  // of chunks; 0: no bound
    // Bytes kept while somebody catches up, and a while longer; at least the newest few. Else the
    // newest result alone: a result is as large as the gradient.
    uint64_t result_budget = 0;
  };

  StateDonor(StageId stage, Options options, Env* env, Compute* compute, PeerLinks* links);
  StateDonor(const StateDonor&) = delete;
  StateDonor& operator=(const StateDonor&) = delete;

  // The state at (era, version) is what the next operation posted to the device will find.
  void Serves(Era era, Version version);
  // No state to give: it is being loaded, or is not known.
  void ServesNothing();

  // A decision was applied. `pieces`: the result's parts in a row; none for a skip.
  void OnResult(Era era, const ResultRecord& record, std::vector<Blob> pieces);
  // The next result will not continue the chain.
  void ForgetResults() { results_.Clear(); }

  // A whole snapshot, now or when it is taken. Aborted: there is none (any more).
  using OnSnapshot = std::function<void(absl::StatusOr<Blob>)>;
  void Give(Era era, Version version, OnSnapshot done);

  void OnFetchIndex(const FetchIndex& fetch, uint64_t request);
  void OnFetch(const Fetch& fetch, uint64_t request);
  // Lets go of snapshots that nobody fetches any more; call it now and then.
  void Tidy() { shelf_.Expire(env_->Now()); }
  void VisitBuffers(const BufferVisitor& visit) const;

 private:
  absl::StatusOr<ChunkedBytes*> Find(Content content, StageId stage, Era era, Version version);
  void TakeSnapshot();
  void AnswerWaiting();

  const StageId stage_;
  Env* const env_;
  Compute* const compute_;
  PeerLinks* const links_;

  bool serves_ = false;
  Era era_{0};
  Version version_{0};
  SnapshotShelf shelf_;
  ResultLog results_;
  ChunkDonor chunks_;
  bool snapshot_pending_ = false;
  uint64_t wanted_for_ = 0;  // results to come that are kept for those who catch up
  // Requests for the index of a snapshot that is not there yet.
  std::vector<std::pair<FetchIndex, uint64_t>> waiting_;
  // Those that wait for a snapshot as a whole.
  struct Waiter {
    Era era{0};
    Version version{0};
    OnSnapshot done;
  };
  std::vector<Waiter> waiters_;
  // Completions may come after this is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_STATE_DONOR_H_
