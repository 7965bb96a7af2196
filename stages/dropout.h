// Dropout masks as a pure function of a key.
//
// An element is kept or not by (seed, step, place of its sequence in the step's global batch,
// layer, site, element within the sequence), so the mask is the same on every replica, device and
// attempt, and however the batch is cut into microbatches and the model into stages.
#ifndef STARLING_STAGES_DROPOUT_H_
#define STARLING_STAGES_DROPOUT_H_

#include <cstdint>

#include "absl/types/span.h"
#include "runtime/base/ids.h"

namespace starling {

// Where the model drops: on the embeddings (of layer 0), on what attention adds to the residual
// stream, and on what the MLP adds to it. Attention probabilities are not dropped, so that fused
// attention kernels can be used.
enum class DropoutSite : uint8_t { kEmbedding = 0, kAttention = 1, kMlp = 2 };

struct DropoutKey {
  uint64_t seed = 0;
  Step step{0};
  uint64_t first_sequence = 0;  // place of the microbatch's first sequence in the step's batch
  int64_t layer = 0;            // of the whole model
  DropoutSite site = DropoutSite::kEmbedding;
};

// Fills `mask` with 0 (probability `probability`) or 1 / (1 - probability), for consecutive
// sequences of `elements_per_sequence` elements each. 0 <= probability < 1; the size of `mask` is a
// multiple of `elements_per_sequence`.
void FillDropoutMask(const DropoutKey& key, double probability, int64_t elements_per_sequence,
                     absl::Span<float> mask);

}  // namespace starling

#endif  // STARLING_STAGES_DROPOUT_H_
