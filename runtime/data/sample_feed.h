// Samples: what a model of the user's own layers learns from where that is not text. A safetensors
// file with two tensors, a row of each per sample:
//   inputs   [N, ...]  F32, U8, I32 or I64: what the first layer gets
//   targets  [N] or [N, ...]  I32 or I64: the class of each sample, or of each of its places
//
// For validation is the share data.validation of the samples, at the end of the file. The file is
// mapped and must not be changed while a run trains. Integers travel as i32 (checked when they are
// read), all else as it is.
//
// SampleFeed deals samples as WindowFeed deals windows: a sequence is a sample.
#ifndef STARLING_RUNTIME_DATA_SAMPLE_FEED_H_
#define STARLING_RUNTIME_DATA_SAMPLE_FEED_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/data/data_feed.h"
#include "runtime/env/file_system.h"

namespace starling {

class Samples {
 public:
  // Reads all of the file once, for its hash. Errors, one line that names file and tensor: what the
  // disk says; data loss = no safetensors file; invalid argument = tensors that are missing or of
  // another type or shape.
  static absl::StatusOr<Samples> Open(Disk& disk, const std::string& path);

  uint64_t count() const { return count_; }
  DType input_type() const;                          // f32, u8 or i32: as they travel
  const std::vector<int64_t>& input_shape() const {  // of one sample
    return input_shape_;
  }
  const std::vector<int64_t>& target_shape() const { return target_shape_; }
  int64_t targets_per_sample() const { return ElementCount(target_shape_); }
  const std::string& path() const { return path_; }
  const std::string& sha256() const { return sha256_; }

  // Invalid argument, naming the first sample whose target is not below `classes`.
  absl::Status CheckTargets(int64_t classes) const;

  // Rows `places` of inputs and targets. Invalid argument: an integer does not fit into 32 bits.
  MicrobatchData Rows(const std::vector<uint64_t>& places) const;

 private:
  Samples() = default;

  std::string path_;
  std::string sha256_;
  uint64_t count_ = 0;
  Blob inputs_, targets_;
  std::vector<int64_t> input_shape_, target_shape_;
};

class SampleFeed : public RunFeed {
 public:
  // Errors, invalid argument with one line for the user: too few samples for one batch, or none to
  // validate on if train.eval_every asks for evaluations.
  static absl::StatusOr<std::unique_ptr<SampleFeed>> Make(const RunConfig& config, Samples samples,
                                                          DataPosition start = {});

  void ReadAhead(Step step) const override;
  bool reads_files() const override { return true; }
  const std::string& sha256() const override { return samples_.sha256(); }

  const Samples& samples() const { return samples_; }
  uint64_t train_samples() const { return train_samples_; }

 private:
  SampleFeed(const RunConfig& config, Samples samples, DataPosition start, uint64_t train_samples);
  MicrobatchData TrainRows(const std::vector<uint64_t>& places) const override;
  MicrobatchData ValidationRows(const std::vector<uint64_t>& places) const override;

  const Samples samples_;
  const uint64_t train_samples_;  // the first ones; the rest is for validation
};

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_SAMPLE_FEED_H_
