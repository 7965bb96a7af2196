// Compute: one stage's numbers on one device.
//
// It holds the parameters and moments of a stage, what forward passes left for their backward, and
// the gradient segments. Real implementations run LibTorch on a compute thread; the virtual world's
// takes virtual time and adds up small integers; an emulated one waits for a timer.
//
// Calls are made on the reactor thread. Operations run one at a time in the order they were posted;
// Decode and Encode likewise among themselves, beside the others and in no order with them. Each
// `done` is called on the reactor thread, never inline, exactly once: with cancelled if the Compute
// is shut down first. Shapes: n sequences of T tokens, width C, a flat run of `size` floats
// (runtime/base/layout.h). Passes take and make boundaries that are not encoded.
//
// Errors: invalid argument = a Blob of the wrong shape or dtype; failed precondition = no such
// microbatch or segment, or no state loaded; internal = the device failed; cancelled = shutting
// down.
#ifndef STARLING_RUNTIME_ENV_COMPUTE_H_
#define STARLING_RUNTIME_ENV_COMPUTE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"

namespace starling {

// What a Compute has beside the newest parameters, where it keeps those before the newest update.
enum class OlderParameters : uint8_t {
  kNone,
  kSame,     // of the version before, which are the newest ones: a step was skipped
  kUpdated,  // of the version before the newest update
};

struct ForwardInput {
  WorkId work;                  // two attempts at one microbatch are kept apart
  Blob input;                   // first stage: i32 [n, T] tokens; others: f32 [n, T, C]
  Blob targets;                 // last stage: i32 [n, T]; others: empty
  uint64_t first_sequence = 0;  // place of the first sequence in the step's batch; keys dropout
  // On the parameters before the newest update, where the Compute keeps them (delayed commit);
  // failed precondition if it does not, or has made none since it was loaded.
  bool older = false;
};

struct ForwardOutput {
  Blob output;          // f32 [n, T, C]; empty at the last stage
  double loss_sum = 0;  // last stage: summed over tokens, nats; may be not finite
  int64_t tokens = 0;   // last stage: how many tokens the sum is over
  absl::Duration took;  // on the device
};

struct BackwardInput {
  WorkId work;
  Blob gradient;                     // f32 [n, T, C]; empty at the last stage
  std::optional<SegmentId> segment;  // where parameter gradients go; none: they are not computed
  bool want_input_gradient = true;   // false at the first stage, or where no stage below needs it
};

struct BackwardOutput {
  Blob input_gradient;  // f32 [n, T, C], or empty
  absl::Duration took;
};

// One addition to a segment.
struct SegmentEntry {
  uint32_t index = 0;
  AttemptId attempt;
  double loss_sum = 0;  // last stage only
  int64_t tokens = 0;   // last stage only

  friend bool operator==(const SegmentEntry& a, const SegmentEntry& b) {
    return a.index == b.index && a.attempt == b.attempt && a.loss_sum == b.loss_sum &&
           a.tokens == b.tokens;
  }
};

// What a frozen segment holds, as written down where the gradients were added.
struct SegmentSummary {
  SegmentId id{0};
  std::vector<SegmentEntry> entries;  // in order of addition
  uint64_t lane = 0;                  // sum of LaneTerm over the entries
  Hash128 list_hash;                  // of (index, attempt) in order
  bool spoiled = false;               // a backward threw while adding: must be voided
  bool contested = false;             // of one contested microbatch; filled in by StageServer
};

struct SegmentSum {
  Blob gradient;  // f32 [size]; the frozen bytes themselves where there is one segment
  uint64_t lane = 0;
};

// Every scalar of one AdamW update (Loshchilov and Hutter 2019, Algorithm 2), computed by the
// trainer so that no replica takes a root or a power of its own. Per element:
//   g = grad * grad_scale;  m = beta1*m + one_minus_beta1*g;  v = beta2*v + one_minus_beta2*(g*g)
//   p = p * decay  (tensors with decay only);  p = p - step_size * m / (sqrt(v)*inv_sqrt_bias2 +
//   epsilon)
struct UpdateScalars {
  float grad_scale = 1;  // clip factor / tokens
  float beta1 = 0.9f;
  float one_minus_beta1 = 0.1f;
  float beta2 = 0.95f;
  float one_minus_beta2 = 0.05f;
  float step_size = 0;       // learning rate / (1 - beta1^k)
  float inv_sqrt_bias2 = 1;  // 1 / sqrt(1 - beta2^k)
  float epsilon = 1e-8f;
  float decay = 1;  // 1 - learning rate * weight decay
};

class Compute {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;

  virtual ~Compute() = default;

  // Elements of the flat run.
  virtual int64_t size() const = 0;

  // Training work keeps what Backward needs until Backward or Drop; evaluation keeps nothing.
  virtual void Forward(ForwardInput input, Done<ForwardOutput> done) = 0;

  // Adds the parameter gradients, the lane and the list entry to (work.id.step, segment), which is
  // made on first use and must not be frozen. Forgets the microbatch, on failure too. A failure
  // after the adding began marks the segment spoiled.
  virtual void Backward(BackwardInput input, Done<BackwardOutput> done) = 0;

  // Forgets what Forward kept for `work`, if anything.
  virtual void Drop(WorkId work) = 0;

  // A boundary as it came, to one that a pass takes; and one that a pass has made, to one that
  // travels. (DecodeBlob and EncodeBlob, codec/codec.h.)
  virtual void Decode(Blob encoded, Done<Blob> done) = 0;
  virtual void Encode(Blob values, Coding coding, Done<Blob> done) = 0;

  // Freezes all segments of `step` that exist, and answers with all of them in the order of their
  // ids.
  virtual void Seal(Step step, Done<std::vector<SegmentSummary>> done) = 0;

  // The sum of frozen segments in the order given; zeros and lane 0 for none.
  virtual void Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) = 0;

  // Frees segments and microbatches of all steps up to and including `step`.
  virtual void FreeThrough(Step step) = 0;

  // One optimizer update from a summed gradient, given as consecutive pieces of the flat run
  // (together `size` floats, not yet scaled). Answers with the hash of the new state.
  virtual void Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) = 0;

  // A consistent copy: f32 [kStatePlanes * size] (parameters, first moments, second moments).
  virtual void Snapshot(Done<Blob> done) = 0;

  // The hash of the state as it is in memory now, not as it was when it last changed.
  virtual void Hash(Done<Hash128> done) {
    Snapshot([done = std::move(done)](absl::StatusOr<Blob> state) {
      if (!state.ok()) return done(state.status());
      done(HashBytes(state->data(), state->size_bytes()));
    });
  }

  // Replaces the state by a snapshot's bytes and frees all segments and microbatches. Answers with
  // its hash.
  virtual void Load(Blob state, Done<Hash128> done) = 0;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_ENV_COMPUTE_H_
