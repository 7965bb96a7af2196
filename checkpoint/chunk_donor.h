// ChunkDonor: answers FetchIndex and Fetch, at a bounded rate, so that giving state away does not
// cost the donor's own steps.
//
//   ChunkDonor donor(env, options, find, reply);
//   donor.OnFetchIndex(fetch, message.request);
//   donor.OnFetch(fetch, message.request);
//
// Chunks that may not leave yet wait in the order they were asked for; a repeat of one that waits
// changes nothing. More than Options::waiting are refused (resource exhausted): the asker tries
// another donor or comes back. Small answers (indexes, refusals) leave at once.
//
// Sans-I/O; one thread. It keeps no bytes: what a waiting answer needs is looked up when it leaves,
// and refused if it is gone by then.
#ifndef STARLING_CHECKPOINT_CHUNK_DONOR_H_
#define STARLING_CHECKPOINT_CHUNK_DONOR_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>

#include "absl/status/statusor.h"
#include "checkpoint/chunked_bytes.h"
#include "checkpoint/token_bucket.h"
#include "runtime/env/env.h"
#include "runtime/wire/messages.h"

namespace starling {

class ChunkDonor {
 public:
  struct Options {
    double bytes_per_s = 0;  // of chunks; 0: no bound
    size_t waiting = 64;     // chunks
  };
  // What is asked for, valid until the call that asked returns; or the code to answer with
  // (aborted, failed precondition: messages.h). May begin to make a snapshot.
  using Find = std::function<absl::StatusOr<ChunkedBytes*>(Content content, StageId stage, Era era,
                                                           Version version)>;
  // Sends an answer; lost if the transport loses it, the asker repeats.
  using Reply = std::function<void(const Endpoint& to, uint64_t request, MessageBody body)>;

  // `env` outlives the donor.
  ChunkDonor(Env* env, Options options, Find find, Reply reply);
  ~ChunkDonor();
  ChunkDonor(const ChunkDonor&) = delete;
  ChunkDonor& operator=(const ChunkDonor&) = delete;

  void OnFetchIndex(const FetchIndex& fetch, uint64_t request);
  void OnFetch(const Fetch& fetch, uint64_t request);

  size_t waiting() const { return waiting_.size(); }
  uint64_t sent_bytes() const { return sent_bytes_; }  // of chunks

 private:
  struct Waiting {
    Fetch fetch;
    uint64_t request;
  };

  void Answer(const Fetch& fetch, uint64_t request);
  void SendWaiting();

  Env* const env_;
  const Options options_;
  const Find find_;
  const Reply reply_;
  TokenBucket bucket_;
  std::deque<Waiting> waiting_;
  TimerId timer_ = kNoTimer;
  uint64_t sent_bytes_ = 0;
};

}  // namespace starling

#endif  // STARLING_CHECKPOINT_CHUNK_DONOR_H_
