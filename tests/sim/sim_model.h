// The virtual model: numbers that are cheap, exact, and say where they came from.
//
// A boundary tensor carries a Signal: which microbatch, which stage made it, and a digest of all
// that went into it (tokens, and the parameters of every stage on the way). A gradient element is a
// small integer drawn from that digest, and losses are integers too, so every sum is exact whatever
// its order, and a run's losses and parameters are a pure function of the text and of version 0:
// they show whether anything was counted twice, never, on a wrong version or with a wrong input.
//
// The elements between tensors, which alignment leaves and real layouts keep zero, hold the
// opposite: gradients far below 1 with all bits of their mantissa in use, so that their sums depend
// on the order of addition. They do not reach the tensors or the norms; they go into the bits of a
// round's result and, through an update, into the hash of the state. So a sum in another order than
// the plan's, or the result of another round, shows.
#ifndef STARLING_TESTS_SIM_SIM_MODEL_H_
#define STARLING_TESTS_SIM_SIM_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/base/layout.h"

namespace starling::sim {

// A stage of the virtual model. Any layout will do; parameters wrap within [0, 2^20).
struct SimStage {
  StageId stage{0};
  bool last = false;
  StageLayout layout;
  int64_t width = 8;  // C of the boundary f32 [n, T, C]; n * T * C must be at least kSignalFloats

  bool first() const { return Value(stage) == 0; }
};

struct Signal {
  MicrobatchId id;
  StageId made_by{0};
  bool gradient = false;  // false: an activation
  uint32_t updates = 0;   // how many updates the maker's state has seen
  uint64_t digest = 0;    // of all that went into it
  uint64_t answers = 0;   // gradient: digest of the activation it is the gradient of
};
constexpr int64_t kSignalFloats = 21;
constexpr int64_t kLossySignalFloats = 4 * kSignalFloats;

// f32 of `shape`: the signal in the first elements, zeros after it. With kLossySignalFloats
// elements and more, as numbers from 0 to 15, which 16-bit and int8 codecs leave recognisable.
Blob EncodeSignal(const Signal& signal, const std::vector<int64_t>& shape);
// invalid argument: not a signal (wrong dtype, too small, changed on the way).
absl::StatusOr<Signal> DecodeSignal(const Blob& blob);
std::string ToString(const Signal& signal);

// Of tokens or targets, and of parameters.
uint64_t DigestOf(const Blob& blob, uint64_t salt);
uint64_t DigestOfParameters(const float* state, const StageLayout& layout);

uint64_t ForwardDigest(StageId stage, const MicrobatchId& id, uint64_t parameters, uint64_t input);
uint64_t LossDigest(uint64_t output_digest, uint64_t targets);
double LossSum(uint64_t loss_digest, int64_t tokens);  // an integer
uint64_t BackwardDigest(StageId stage, uint64_t forward_digest, uint64_t incoming);

// sum[e] += factor * gradient.
void AddGradient(const StageLayout& layout, uint64_t backward_digest, int factor, float* sum);

// One update of state f32 [kStatePlanes * size] with a summed gradient f32 [size]. The first plane
// takes the gradient, the second also a digest of the update's scalars, the third counts updates.
void UpdateState(const StageLayout& layout, uint64_t scalars_digest, const float* gradient,
                 float* state);
// Of what does not depend on the order of additions.
Hash128 HashOfTensors(const float* state, const StageLayout& layout);
// Of the tied tensors alone: the same at every stage of the tie.
Hash128 HashOfTied(const float* state, const StageLayout& layout);
uint32_t UpdatesOf(const float* state, const StageLayout& layout);

// f32 [kStatePlanes * size] with small integers as parameters.
Blob SimInitialState(const StageLayout& layout, uint64_t seed);
// `tensors` tensors of `count` elements each, named by the stage.
StageLayout SimLayout(StageId stage, int tensors, int64_t count);
// The same, and a tensor of `tied` elements that other stages hold too; one of them stores it.
StageLayout SimTiedLayout(StageId stage, int tensors, int64_t count, int64_t tied, bool stores);

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SIM_MODEL_H_
