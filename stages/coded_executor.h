// A StageExecutor's forward and backward with boundaries as they travel: what arrives encoded is
// decoded for it, what it makes is encoded as asked. On the thread that calls, so codecs run beside
// the numbers and not on the reactor.
#ifndef STARLING_STAGES_CODED_EXECUTOR_H_
#define STARLING_STAGES_CODED_EXECUTOR_H_

#include <utility>

#include "codec/codec.h"
#include "runtime/base/status_macros.h"
#include "stages/executor.h"

namespace starling {

inline absl::StatusOr<ForwardOutput> CodedForward(StageExecutor* executor, ForwardInput input) {
  if (input.input.encoded()) {
    STARLING_ASSIGN_OR_RETURN(input.input, DecodeBlob(input.input));
  }
  STARLING_ASSIGN_OR_RETURN(ForwardOutput output, executor->Forward(input));
  if (!output.output.empty()) output.output = EncodeBlob(output.output, input.coding);
  return output;
}

inline absl::StatusOr<BackwardOutput> CodedBackward(StageExecutor* executor, BackwardInput input) {
  if (input.gradient.encoded()) {
    STARLING_ASSIGN_OR_RETURN(input.gradient, DecodeBlob(input.gradient));
  }
  STARLING_ASSIGN_OR_RETURN(BackwardOutput output, executor->Backward(input));
  if (!output.input_gradient.empty()) {
    output.input_gradient = EncodeBlob(output.input_gradient, input.coding);
  }
  return output;
}

}  // namespace starling

#endif  // STARLING_STAGES_CODED_EXECUTOR_H_
