// StageExecutor: the numbers of one stage, called synchronously. It is Compute
// (runtime/env/compute.h) without threads and callbacks: ThreadedCompute runs one on a compute
// thread, a test may call one directly.
//
// Implementations hold the stage's parameters and moments, what forward passes left for their
// backward, and the gradient segments. They catch every exception of the device's library: nothing
// is thrown from these methods.
//
// Threads: one at a time, always the same one from the first call on (LibTorch keeps per-thread
// settings); size() may be called from any thread at any time.
//
// Boundaries are never encoded here.
//
// Errors, as in Compute: invalid argument = a Blob of the wrong shape or dtype; failed precondition
// = no such microbatch or segment, or no state loaded; internal = the device failed.
#ifndef STARLING_STAGES_EXECUTOR_H_
#define STARLING_STAGES_EXECUTOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/base/status_macros.h"
#include "runtime/env/compute.h"

namespace starling {

class StageExecutor {
 public:
  virtual ~StageExecutor() = default;

  // Elements of the flat run. Constant.
  virtual int64_t size() const = 0;

  // Training work keeps what Backward needs until Backward or Drop; evaluation keeps nothing.
  virtual absl::StatusOr<ForwardOutput> Forward(const ForwardInput& input) = 0;

  // Adds the parameter gradients, the lane and the list entry to (id.step, segment), which is made
  // on first use and must not be frozen. Forgets the microbatch, on failure too. A failure after
  // the adding began marks the segment spoiled.
  virtual absl::StatusOr<BackwardOutput> Backward(const BackwardInput& input) = 0;

  // Forgets what Forward kept for `id`, if anything.
  virtual void Drop(WorkId work) = 0;

  // Freezes all segments of `step` that exist, and gives all of them in the order of their ids.
  virtual std::vector<SegmentSummary> Seal(Step step) = 0;

  // The sum of frozen segments in the order given; zeros and lane 0 for none.
  virtual absl::StatusOr<SegmentSum> Read(Step step, const std::vector<SegmentId>& segments) = 0;

  // Frees segments and microbatches of all steps up to and including `step`.
  virtual void FreeThrough(Step step) = 0;

  // One optimizer update from a summed gradient, given as consecutive pieces of the flat run
  // (together `size` floats, not yet scaled). Gives the hash of the new state. On failure the state
  // is as before.
  virtual absl::StatusOr<Hash128> Apply(const UpdateScalars& scalars,
                                        const std::vector<Blob>& gradient) = 0;

  // A consistent copy: f32 [kStatePlanes * size] (parameters, first moments, second moments).
  virtual absl::StatusOr<Blob> Snapshot() = 0;

  // The hash of the state as it is in memory now, not as it was when it last changed.
  virtual absl::StatusOr<Hash128> Hash() {
    STARLING_ASSIGN_OR_RETURN(const Blob state, Snapshot());
    return HashBytes(state.data(), state.size_bytes());
  }

  // Replaces the state by a snapshot's bytes and frees all segments and microbatches. Gives its
  // hash.
  virtual absl::StatusOr<Hash128> Load(const Blob& state) = 0;
};

}  // namespace starling

#endif  // STARLING_STAGES_EXECUTOR_H_
