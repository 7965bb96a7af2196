// Generator: text from a trained model, token by token. No LibTorch in this header.
//
//   STARLING_ASSIGN_OR_RETURN(auto generator, Generator::Create(config.model, state, threads));
//   STARLING_RETURN_IF_ERROR(generator->Begin(prompt, Sampling()));
//   for (...) STARLING_ASSIGN_OR_RETURN(int32_t token, generator->Next());
//
// Keeps keys and values, so that a new token costs one token's computation. When the text outgrows
// the model's context, its older half is forgotten and the newer computed again from its first
// place: positions, learned ones and the rotated keys of RoPE, do not move with the text. So a
// token sees between half a context and a whole one, and costs on the average two at most.
//
// The same state, prompt, sampling and number of threads give the same text on the same machine.
// One thread at a time.
#ifndef STARLING_STAGES_TORCH_GENERATE_H_
#define STARLING_STAGES_TORCH_GENERATE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/config/run_config.h"
#include "stages/sampling.h"

namespace starling {

class Generator {
 public:
  virtual ~Generator() = default;

  // `parameters` is the flat run of WholeModelLayout(model), f32 [size], or a whole state of it,
  // f32 [kStatePlanes * size]; its bytes are shared, not copied, where aligned.
  //   invalid argument: another size or dtype.
  static absl::StatusOr<std::unique_ptr<Generator>> Create(const ModelConfig& model,
                                                           const Blob& parameters, int threads);

  // Starts over behind a prompt, of which the last `context` tokens count.
  //   invalid argument: it is empty or has a token outside the vocabulary, or the sampling is not
  //   one.
  virtual absl::Status Begin(const std::vector<int32_t>& prompt, const Sampling& sampling) = 0;

  // The next token, which the following ones then build on. `interrupted`, if any, is asked between
  // the portions in which a prompt is computed.
  //   failed precondition: not begun; internal: the model gives no finite number; resource
  //   exhausted: no memory; cancelled: interrupted, and may be called again.
  virtual absl::StatusOr<int32_t> Next(const std::function<bool()>& interrupted) = 0;
  absl::StatusOr<int32_t> Next() { return Next(nullptr); }
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_GENERATE_H_
