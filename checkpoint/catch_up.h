// CatchUp: a newcomer follows the decisions of its stage as an observer. It holds the state of some
// version, fetches the results of the decisions since then from the members' logs, and replays them
// one after another, while the swarm goes on without noticing.
//
//   CatchUp catch_up(env, options, start, self_address, donors, links, apply, events);
//   catch_up.Start();
//   ... events.advanced(state) each time it is a version further ...
//   catch_up.Stop();                       // it becomes a member with the state at()
//
// It has no end of its own: at the newest version it waits for the next decision (donors answer
// "not yet"). Each record must continue the chain: made from this very state, and after it was
// applied the hash is the one the members had. While one result is applied the next is fetched, so
// at most two are in memory.
//
// Sans-I/O; reactor thread.
#ifndef STARLING_CHECKPOINT_CATCH_UP_H_
#define STARLING_CHECKPOINT_CATCH_UP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/chunk_fetcher.h"
#include "runtime/base/blob.h"
#include "runtime/env/env.h"
#include "runtime/wire/messages.h"

namespace starling {

class CatchUp {
 public:
  struct Start {
    StageId stage{0};
    int64_t elements = 0;  // of a result: the layout's size
    StateName state;       // what `apply` begins with
  };
  // Compute::Apply: updates the state by a result, answers with its new hash, not inline.
  using Apply = std::function<void(const UpdateScalars& scalars, Blob gradient,
                                   std::function<void(absl::StatusOr<Hash128>)> done)>;
  struct Events {
    // One version further. Must not destroy the CatchUp; may Stop it.
    std::function<void(const StateName& state)> advanced;
    // It can go no further. Once, never from Begin; it may be destroyed in it.
    //   aborted: nobody has the next result (any more): a newer snapshot is needed. The state is
    //   still that of at().
    //   data loss: the next result does not follow from this state, or led to another hash. After
    //   the latter the state is worth nothing: state_spoiled().
    //   what `apply` failed with: the same.
    std::function<void(const absl::Status& why)> failed;
    // As ChunkFetcher's. May be empty.
    std::function<void(const Endpoint& donor, const absl::Status& why)> donor_dropped;
  };

  // `env` outlives it. `fetch` bounds the rate of all that it fetches.
  CatchUp(Env* env, ChunkFetcher::Options fetch, Start start, Endpoint reply_address,
          std::vector<Endpoint> donors, FetchLinks links, Apply apply, Events events);
  CatchUp(const CatchUp&) = delete;
  CatchUp& operator=(const CatchUp&) = delete;

  void Begin();
  // Applies nothing more. An update under way still ends, and counts.
  void Stop();

  void AddDonor(const Endpoint& donor);
  void RemoveDonor(const Endpoint& donor, const std::string& reason);

  const StateName& at() const { return at_; }
  bool applying() const { return applying_; }
  bool state_spoiled() const { return spoiled_; }
  uint64_t fetched_bytes() const { return fetched_bytes_; }

 private:
  void FetchNext();
  void OnFetched(absl::StatusOr<ChunkFetcher::Fetched> fetched);
  void ApplyNext();
  void OnApplied(const ResultRecord& record, const absl::StatusOr<Hash128>& hash);
  void Advanced(const ResultRecord& record);
  void Fail(const absl::Status& why);

  Env* const env_;
  const ChunkFetcher::Options fetch_;
  const StageId stage_;
  const int64_t elements_;
  const Endpoint reply_address_;
  std::vector<Endpoint> donors_;
  const FetchLinks links_;
  const Apply apply_;
  const Events events_;

  StateName at_;
  Version next_;  // to be fetched
  std::unique_ptr<ChunkFetcher> fetcher_;
  std::optional<ChunkFetcher::Fetched> ready_;  // to be applied next
  std::optional<absl::Status> fetch_failed_;    // told when all that is ready was applied
  bool applying_ = false;
  bool stopped_ = false;
  bool spoiled_ = false;
  uint64_t fetched_bytes_ = 0;
  // `apply` may answer after this is gone: it holds a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_CATCH_UP_H_
