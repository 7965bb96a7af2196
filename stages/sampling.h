// Sampling: which token follows, given the model's logits and a number drawn at random. Pure; any
// thread.
//
// The order of things: the k likeliest tokens (top_k); their probabilities at the temperature; of
// these the fewest likeliest that together have the probability top_p (nucleus sampling, Holtzman
// et al. 2020); of those one is drawn. Of equally likely tokens the lower ones count as likelier,
// so that every cut is one.
#ifndef STARLING_STAGES_SAMPLING_H_
#define STARLING_STAGES_SAMPLING_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace starling {

struct Sampling {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 40;        // only the k likeliest tokens; 0: all
  double top_p = 1.0;        // in [0, 1]. 0: the likeliest token; 1: no cut
  uint64_t seed = 1;
};

// Invalid argument: out of range, or not a number.
absl::Status CheckSampling(const Sampling& sampling);

// The number in [0, 1) that chooses token `index` of a text, counted from 0.
double SamplingDraw(uint64_t seed, uint64_t index);

// The token that `draw` in [0, 1) picks from logits, of which there is at least one and none is
// NaN or infinite. Draws run through the tokens from the likeliest on.
int32_t PickToken(const std::vector<float>& logits, const Sampling& sampling, double draw);

}  // namespace starling

#endif  // STARLING_STAGES_SAMPLING_H_
