// A StageExecutor's forward and backward with boundaries as they travel: what arrives encoded is
// decoded for it, what it makes is encoded as asked. On the thread that calls, so codecs run beside
// the numbers and not on the reactor.
#ifndef STARLING_STAGES_CODED_EXECUTOR_H_
#define STARLING_STAGES_CODED_EXECUTOR_H_

#include <utility>

#include "absl/time/time.h"
#include "codec/codec.h"
#include "runtime/base/status_macros.h"
#include "stages/executor.h"

namespace starling {

// Of callers that have none, or whose time is virtual: codecs take no time.
struct NoClock {
  absl::Duration operator()() const { return absl::ZeroDuration(); }
};

// `clock` gives the time since any moment, to say what decoding and encoding took.
template <typename Clock = NoClock>
absl::StatusOr<ForwardOutput> CodedForward(StageExecutor* executor, ForwardInput input,
                                           Clock clock = Clock()) {
  absl::Duration decoding;
  if (input.input.encoded()) {
    const absl::Duration begin = clock();
    STARLING_ASSIGN_OR_RETURN(input.input, DecodeBlob(input.input));
    decoding = clock() - begin;
  }
  STARLING_ASSIGN_OR_RETURN(ForwardOutput output, executor->Forward(input));
  output.decoding = decoding;
  if (output.output.empty() || input.coding.encoding == Encoding::kRaw) return output;
  const absl::Duration begin = clock();
  output.output = EncodeBlob(output.output, input.coding);
  output.encoding = clock() - begin;
  return output;
}

template <typename Clock = NoClock>
absl::StatusOr<BackwardOutput> CodedBackward(StageExecutor* executor, BackwardInput input,
                                             Clock clock = Clock()) {
  absl::Duration decoding;
  if (input.gradient.encoded()) {
    const absl::Duration begin = clock();
    STARLING_ASSIGN_OR_RETURN(input.gradient, DecodeBlob(input.gradient));
    decoding = clock() - begin;
  }
  STARLING_ASSIGN_OR_RETURN(BackwardOutput output, executor->Backward(input));
  output.decoding = decoding;
  if (output.input_gradient.empty() || input.coding.encoding == Encoding::kRaw) return output;
  const absl::Duration begin = clock();
  output.input_gradient = EncodeBlob(output.input_gradient, input.coding);
  output.encoding = clock() - begin;
  return output;
}

}  // namespace starling

#endif  // STARLING_STAGES_CODED_EXECUTOR_H_
