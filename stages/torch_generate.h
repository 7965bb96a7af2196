// Generator: text from a trained model, token by token. No LibTorch in this header.
//
//   STARLING_ASSIGN_OR_RETURN(auto generator, Generator::Create(config.model, state, threads));
//   STARLING_RETURN_IF_ERROR(generator->Begin(prompt, Sampling()));
//   for (...) STARLING_ASSIGN_OR_RETURN(int32_t token, generator->Next());
//
// Runs the whole model over the last `context` tokens for each new one. The same state, prompt and
// sampling give the same text on the same machine. One thread at a time.
#ifndef STARLING_STAGES_TORCH_GENERATE_H_
#define STARLING_STAGES_TORCH_GENERATE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/blob.h"
#include "runtime/config/run_config.h"

namespace starling {

struct Sampling {
  double temperature = 0.8;  // 0: always the likeliest token
  int64_t top_k = 40;        // only the k likeliest tokens; 0: all
  uint64_t seed = 1;
};

class Generator {
 public:
  virtual ~Generator() = default;

  // `parameters` is the flat run of WholeModelLayout(model), f32 [size], or a whole state of it,
  // f32 [kStatePlanes * size]; its bytes are shared, not copied, where aligned.
  //   invalid argument: another size or dtype.
  static absl::StatusOr<std::unique_ptr<Generator>> Create(const ModelConfig& model,
                                                           const Blob& parameters, int threads);

  // Starts over behind a prompt.
  //   invalid argument: it is empty or has a token outside the vocabulary, or the sampling is not
  //   one.
  virtual absl::Status Begin(const std::vector<int32_t>& prompt, const Sampling& sampling) = 0;

  // The next token, which the following ones then build on.
  //   failed precondition: not begun; internal: the model gives no finite number.
  virtual absl::StatusOr<int32_t> Next() = 0;
};

// The token that `draw` in [0, 1) picks from logits. Pure; for Generator and its tests.
int32_t PickToken(const std::vector<float>& logits, const Sampling& sampling, double draw);

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_GENERATE_H_
