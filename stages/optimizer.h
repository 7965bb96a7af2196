// AdamW to the bit: one elementwise loop over a stage's flat run.
//
// Replicas run on different processors and must end with the same bits. So the update is one
// written order of IEEE single precision operations, compiled without contraction into fused
// multiply-adds; additions, products, quotients and square roots are correctly rounded everywhere,
// so SSE2, AVX2 and AVX-512 give the same bits. Every root, power and schedule of the step comes
// from the trainer (UpdateScalars in runtime/env/compute.h, where the formula stands); the quotient
// there is (step_size * m) / (sqrt(v) * inv_sqrt_bias2 + epsilon). Denormals must not be flushed to
// zero: the golden hash below notices it.
#ifndef STARLING_STAGES_OPTIMIZER_H_
#define STARLING_STAGES_OPTIMIZER_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/base/blob.h"
#include "runtime/base/hash.h"
#include "runtime/base/layout.h"
#include "runtime/env/compute.h"

namespace starling {

// Ok if the pieces are f32 and together layout.size floats; else invalid argument.
absl::Status CheckGradientPieces(const StageLayout& layout, const std::vector<Blob>& gradient);

// Updates `state` (kStatePlanes * layout.size floats: parameters, first and second moments) in
// place by a gradient given as consecutive pieces of the flat run. The gaps between tensors are
// left alone.
//   invalid argument: the pieces do not fit; nothing was changed.
absl::Status ApplyAdamW(const StageLayout& layout, const UpdateScalars& scalars,
                        const std::vector<Blob>& gradient, absl::Span<float> state);
// The same where parameters (layout.size floats) and both moments (2 * layout.size) lie apart.
// `hash`, unless null, is given the new parameters and then the new moments.
absl::Status ApplyAdamW(const StageLayout& layout, const UpdateScalars& scalars,
                        const std::vector<Blob>& gradient, absl::Span<float> parameters,
                        absl::Span<float> moments, Hasher128* hash);

// The hash of what the kernel makes of a fixed input that has denormals, large and tiny values in
// it. A machine with another value than kOptimizerGoldenHash must not be a replica.
Hash128 OptimizerGoldenHash();
extern const char* const kOptimizerGoldenHash;  // as ToHex() writes it

}  // namespace starling

#endif  // STARLING_STAGES_OPTIMIZER_H_
