// ChunkFetcher: downloads a stage's state, or a decision's result, from several donors at once.
//
//   ChunkFetcher fetcher(env, options, want, self_address, donors, links, events);
//   fetcher.Start();
//   ...
//   fetcher.RemoveDonor(endpoint, "connection lost");   // what it had not sent comes from others
//
// Every donor is asked for its index (the hash of each chunk). The index that most donors give
// counts; chunks are asked for from those who gave it, a few at a time from each, fewer from the
// slower ones. A chunk that is overdue at one donor (median plus k deviations of that donor's own
// answers) is asked for at another as well. A chunk with another hash is thrown away and its donor
// dropped. At the end the hash of the whole is compared with the wanted one: if it differs, all who
// gave that index are dropped and the next index counts; chunks that both agree on are kept.
//
// A donor that answers "not yet" or "busy" is asked again later; one that answers that it does not
// have it, or nothing at all for Options::silent_after, is dropped. When none is left the download
// fails. So it ends well as long as one honest donor stays.
//
// Sans-I/O; reactor thread. The rate is bounded by a token bucket. Memory: the whole content, once.
#ifndef STARLING_CHECKPOINT_CHUNK_FETCHER_H_
#define STARLING_CHECKPOINT_CHUNK_FETCHER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "checkpoint/token_bucket.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/learned_duration.h"
#include "runtime/env/env.h"
#include "runtime/wire/messages.h"

namespace starling {

// How a fetcher speaks to donors; an Outbox has both.
struct FetchLinks {
  using OnReply = std::function<void(const MessageBody& body)>;
  // Sends a request and repeats it until it is answered or cancelled; never answers inline. Returns
  // a number to cancel it by.
  std::function<uint64_t(const Endpoint& donor, MessageBody body, OnReply reply)> ask;
  std::function<void(uint64_t request)> cancel;
};

class ChunkFetcher {
 public:
  struct Options {
    double bytes_per_s = 0;  // at most so fast, all donors together; 0: no bound
    size_t window = 4;       // chunks asked for and not answered, at the fastest donor
    LimitBounds overdue{absl::Milliseconds(500), absl::Seconds(10), 8, 4};  // of a chunk
    absl::Duration ask_again = absl::Milliseconds(100);  // after "not yet"; the pause doubles
    absl::Duration longest_ask_again = absl::Seconds(2);
    absl::Duration silent_after = absl::Seconds(30);
  };
  struct Want {
    Content content = Content::kState;
    StageId stage{0};
    Era era{0};
    Version version{0};
    int64_t elements = 0;         // f32; anything else is refused, but for a skip's empty result
    std::optional<Hash128> hash;  // of all bytes, where it is known
  };
  struct Fetched {
    Blob bytes;  // f32 [elements]; empty for a skip's result
    std::optional<ResultRecord> result;
  };
  struct Events {
    // Once, from a timer, so that the fetcher may be destroyed in it. Errors:
    //   aborted: no donor is left, with the reason of the last one;
    //   data loss: the same, and the last one's bits were wrong.
    std::function<void(absl::StatusOr<Fetched>)> done;
    // A donor was dropped: data loss means that it sent wrong bits. Must not call the
    // fetcher. May be empty.
    std::function<void(const Endpoint& donor, const absl::Status& why)> donor_dropped;
  };
  struct Progress {
    uint64_t received_bytes = 0;
    uint64_t total_bytes = 0;  // 0: not known yet
    size_t donors = 0;
    uint64_t asked_elsewhere = 0;  // chunks asked for at another donor, for whatever reason
  };

  // `env` outlives the fetcher. Destroying it cancels what is open and calls nothing.
  ChunkFetcher(Env* env, Options options, Want want, Endpoint reply_address,
               std::vector<Endpoint> donors, FetchLinks links, Events events);
  ~ChunkFetcher();
  ChunkFetcher(const ChunkFetcher&) = delete;
  ChunkFetcher& operator=(const ChunkFetcher&) = delete;

  void Start();

  // One more to ask. One that is there already, or was dropped for wrong bits, is ignored.
  void AddDonor(const Endpoint& donor);
  // It is gone (fenced, connection lost). One that is not there is ignored.
  void RemoveDonor(const Endpoint& donor, const std::string& reason);

  Progress progress() const;

 private:
  struct Ask {
    Endpoint donor;
    uint64_t request = 0;
    absl::Time since;
    bool overdue = false;
  };
  struct ChunkState {
    bool received = false;
    std::vector<Ask> asks;  // open ones, at different donors
  };
  struct Donor {
    std::optional<uint64_t> index_request;
    std::optional<size_t> group;  // of the index it gave
    size_t open = 0;              // chunks asked for
    absl::Time quiet_until = absl::InfinitePast();
    int refusals = 0;  // in a row
    absl::Time heard;  // or since when there was something to hear
    LearnedDuration answers;
    double seconds_per_byte = 0;  // smoothed; 0: not known
  };
  // Donors that gave the same index.
  struct Group {
    ChunkIndex index;
    size_t donors = 0;
    bool wrong = false;  // the whole had another hash
  };

  // Everything that may change what can be asked for ends with this.
  void Advance();
  void AskForIndexes(absl::Time now);
  void ChooseGroup();
  void UseGroup(size_t group);
  void AskForChunks(absl::Time now);
  std::optional<uint32_t> NextChunkFor(const Endpoint& donor) const;
  void AskChunk(const Endpoint& endpoint, Donor* donor, uint32_t chunk, absl::Time now);
  void MarkOverdue(absl::Time now);
  void DropSilent(absl::Time now);
  bool AnotherCould(uint32_t chunk) const;
  void SetTimer(absl::Time now);

  void OnIndex(const Endpoint& endpoint, const MessageBody& body);
  void OnChunk(const Endpoint& endpoint, uint32_t chunk, const MessageBody& body);
  // "Not yet" or "busy": true, and it is asked again later. Else it is dropped.
  void OnRefusal(const Endpoint& endpoint, const absl::Status& status);
  absl::Status CheckIndex(const ChunkIndex& index) const;
  void Take(uint32_t chunk, const Blob& bytes);
  void HashMore();
  void CheckWhole();
  void Drop(Endpoint endpoint, const absl::Status& why);
  void DropWrong(const std::function<bool(const Donor&)>& is_wrong);
  void CloseAsk(uint32_t chunk, const Endpoint& endpoint);
  void CancelAsks();  // of chunks
  void CancelAll();
  void Finish(absl::StatusOr<Fetched> result);
  void FinishWithoutDonors();

  size_t WindowOf(const Donor& donor) const;
  uint64_t LengthOf(uint32_t chunk) const;
  const ChunkIndex& index() const { return groups_[*group_].index; }

  Env* const env_;
  const Options options_;
  const Want want_;
  const Endpoint reply_address_;
  const FetchLinks links_;
  const Events events_;
  TokenBucket bucket_;

  std::map<Endpoint, Donor> donors_;
  std::set<Endpoint> liars_;
  absl::Status last_reason_;  // why the last donor was dropped

  std::vector<Group> groups_;
  std::optional<size_t> group_;  // the one that counts
  std::vector<ChunkState> chunks_;
  std::set<uint32_t> unasked_;  // to be asked for: not received, and not open or overdue
  std::optional<MutableBlob> buffer_;
  uint64_t received_bytes_ = 0;
  uint64_t asked_elsewhere_ = 0;
  uint32_t hashed_ = 0;  // leading chunks that are in hasher_
  std::unique_ptr<Hasher128> hasher_;

  TimerId timer_ = kNoTimer;
  bool started_ = false;
  bool finished_ = false;
  // Answers may come after this fetcher is gone: they hold a weak reference to this.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_CHUNK_FETCHER_H_
