// Learning rate, clipping and the scalars of one update, as the trainer and `--single-process` both
// compute them: in double, rounded to fp32 once. Pure functions.
#ifndef STARLING_STAGES_SCHEDULE_H_
#define STARLING_STAGES_SCHEDULE_H_

#include <cstdint>

#include "runtime/base/ids.h"
#include "runtime/config/run_config.h"
#include "runtime/env/compute.h"

namespace starling {

// Linear warm-up over `warmup` steps (step 1 has lr / warmup), then a cosine that ends at min_lr (a
// tenth of lr if that is 0) at step `total_steps`, and stays there.
double LearningRate(const OptimizerConfig& config, int64_t total_steps, Step step);

// The scalars of step `step` from the square norm of the gradient *sum* over `tokens` tokens. The
// gradient is the sum divided by the tokens; if its norm exceeds config.clip (and that is not 0) it
// is scaled down to it. Both outputs may be null. tokens > 0.
UpdateScalars MakeUpdate(const OptimizerConfig& config, int64_t total_steps, Step step,
                         double square_norm_of_sum, int64_t tokens, double* gradient_norm,
                         double* learning_rate);

}  // namespace starling

#endif  // STARLING_STAGES_SCHEDULE_H_
