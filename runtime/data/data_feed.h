// DataFeed: the sequences of each step, a pure function of (seed, step, sequence).
//
// The training tokens (corpus.h) are cut into windows of context + 1 tokens that overlap by one; a
// window's tokens are its first `context`, its targets those that follow them. Windows go over the
// boundaries of files and shards. Sequences are numbered through the whole run. Number `n` is
// window Permutation(W, key of (seed, n / W)).At(n % W) of the W windows: every pass takes each
// window once, in another order, and any place is reached at once. Sequence s of step t is number
// (t - 1) * global_batch + s, whatever the microbatch size, the stages or the replicas.
//
// Thread safety: const methods may be called from any thread.
#ifndef STARLING_RUNTIME_DATA_DATA_FEED_H_
#define STARLING_RUNTIME_DATA_DATA_FEED_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/ids.h"
#include "runtime/config/run_config.h"
#include "runtime/data/corpus.h"

namespace starling {

struct MicrobatchData {
  Blob tokens;                  // i32 [n, context]; or samples (sample_feed.h)
  Blob targets;                 // i32 [n, context]: for each token the one that follows it
  uint64_t first_sequence = 0;  // of the step, or of the evaluation; index * microbatch
  // Not ok: there is no such data and the run cannot go on; the message is for the user.
  absl::Status status;
};

class DataFeed {
 public:
  virtual ~DataFeed() = default;

  // Microbatch `index` of step `step`; the last one of a step may be short. `index` is below
  // train_microbatches().
  virtual MicrobatchData Train(Step step, uint32_t index) const = 0;
  // Microbatch `index` of an evaluation: the same at every step. `index` is below
  // evaluate_microbatches().
  virtual MicrobatchData Evaluate(uint32_t index) const = 0;

  virtual uint32_t train_microbatches() const = 0;
  virtual uint32_t evaluate_microbatches() const = 0;  // 0: there is nothing to evaluate on
};

// Where a run is in its data: `sequences` have been consumed by the steps up to and including
// `step`. A checkpoint records it, so that a run resumed with another global batch goes on from
// there.
struct DataPosition {
  Step step{0};
  uint64_t sequences = 0;
};

// A run's data: which sequences come when, and what they are cut from.
class RunFeed : public DataFeed {
 public:
  RunFeed(const TrainConfig& train, DataPosition start, uint64_t trained_on, uint64_t validated_on);

  // `step` must be after the start.
  MicrobatchData Train(Step step, uint32_t index) const final;
  MicrobatchData Evaluate(uint32_t index) const final;
  uint32_t train_microbatches() const override;
  uint32_t evaluate_microbatches() const override;

  // Where the run is when `step`, not before the start, has been decided.
  DataPosition PositionAfter(Step step) const;

  // The window or sample of those trained on that sequence `sequence` of `step` is. `step` must be
  // after the start.
  uint64_t PlaceOf(Step step, uint64_t sequence) const;

  // Reads what Train will read for `step` and drops it, so that it is in memory by then. For a
  // thread that may wait for a disk.
  virtual void ReadAhead(Step step) const = 0;
  virtual bool reads_files() const = 0;  // false: all of it is in memory

  // Runs with equal ones see equal data.
  virtual const std::string& sha256() const = 0;
  // The tokens it is cut from; null: it is of samples.
  virtual const Corpus* corpus() const { return nullptr; }

 protected:
  // The sequences at these places, of those trained on and of those to validate on. Whose numbers
  // they are in their batch is not known here.
  virtual MicrobatchData TrainRows(const std::vector<uint64_t>& places) const = 0;
  virtual MicrobatchData ValidationRows(const std::vector<uint64_t>& places) const = 0;
  uint64_t global_batch() const { return static_cast<uint64_t>(train_.global_batch); }

 private:
  const TrainConfig train_;
  const DataPosition start_;
  const uint64_t trained_on_;    // windows or samples
  const uint64_t validated_on_;  // likewise
  const uint64_t evaluated_;     // sequences per evaluation
};

class WindowFeed : public RunFeed {
 public:
  // Errors, invalid argument with one line for the user: too little for one batch, or for one
  // validation sequence if train.eval_every asks for evaluations.
  static absl::StatusOr<std::unique_ptr<WindowFeed>> Make(const RunConfig& config, Corpus corpus,
                                                          DataPosition start = {});

  void ReadAhead(Step step) const override;
  bool reads_files() const override { return corpus_.from_shards; }
  const std::string& sha256() const override { return corpus_.sha256; }
  const Corpus* corpus() const override { return &corpus_; }

  uint64_t train_windows() const { return train_windows_; }
  uint64_t WindowOf(Step step, uint64_t sequence) const { return PlaceOf(step, sequence); }

 private:
  WindowFeed(const RunConfig& config, Corpus corpus, DataPosition start);
  MicrobatchData TrainRows(const std::vector<uint64_t>& windows) const override;
  MicrobatchData ValidationRows(const std::vector<uint64_t>& windows) const override;
  // Every token is checked: a status that is invalid argument names the shard, the place and the
  // token that the model's vocabulary does not have.
  MicrobatchData Cut(const TokenStream& from, const std::vector<uint64_t>& windows) const;

  const uint64_t context_;
  const int64_t vocabulary_;
  const Corpus corpus_;
  const uint64_t train_windows_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_DATA_FEED_H_
