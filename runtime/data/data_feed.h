// DataFeed: the sequences of each step, a pure function of (seed, step, sequence).
//
// The training text is cut into windows of context + 1 bytes that overlap by one; a window's tokens
// are its first `context` bytes, its targets the bytes that follow them. Sequences are numbered
// through the whole run. Number `n` is window Permutation(W, key of (seed, n / W)).At(n % W) of the
// W windows: every pass takes each window once, in another order. Sequence s of step t is number (t
// - 1) * global_batch + s, whatever the microbatch size, the stages or the replicas.
//
// Thread safety: const methods may be called from any thread.
#ifndef STARLING_RUNTIME_DATA_DATA_FEED_H_
#define STARLING_RUNTIME_DATA_DATA_FEED_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/ids.h"
#include "runtime/config/run_config.h"
#include "runtime/data/text.h"

namespace starling {

struct MicrobatchData {
  Blob tokens;                  // i32 [n, context]
  Blob targets;                 // i32 [n, context]: for each token the one that follows it
  uint64_t first_sequence = 0;  // of the step, or of the evaluation; index * microbatch
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

class TextFeed : public DataFeed {
 public:
  // Errors, invalid argument with one line for the user: too little text for one batch, or for one
  // validation sequence if train.eval_every asks for evaluations.
  static absl::StatusOr<std::unique_ptr<TextFeed>> Make(const RunConfig& config, Text text,
                                                        DataPosition start = {});

  // `step` must be after the start.
  MicrobatchData Train(Step step, uint32_t index) const override;
  MicrobatchData Evaluate(uint32_t index) const override;
  uint32_t train_microbatches() const override;
  uint32_t evaluate_microbatches() const override;

  // Where the run is when `step`, not before the start, has been decided.
  DataPosition PositionAfter(Step step) const;

  const Text& text() const { return text_; }
  uint64_t train_windows() const { return train_windows_; }

  // The training window that sequence `sequence` of `step` is.
  uint64_t WindowOf(Step step, uint64_t sequence) const;

 private:
  TextFeed(const RunConfig& config, Text text, DataPosition start);

  const TrainConfig train_;
  const uint64_t context_;
  const Text text_;
  const DataPosition start_;
  const uint64_t train_windows_;
  const uint64_t validation_windows_;
  const uint64_t evaluated_;  // sequences per evaluation
};

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_DATA_FEED_H_
