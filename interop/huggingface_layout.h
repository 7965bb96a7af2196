// Which tensors Hugging Face's GPT-2 and Llama have, and how ours make them up.
//
// Both are settings of ModelConfig:
//   GPT2LMHeadModel    LayerNorm, GELU (tanh), learned positions, biases, as many key/value heads
//   as
//                      heads. Its Conv1D keeps matrices as [in, out], and the three of attention's
//                      queries, keys and values as one.
//   LlamaForCausalLM   RMSNorm, SwiGLU, RoPE; biases in all linear layers or in none; grouped
//                      key/value heads. RoPE turns element i of a head with element i + D/2, as
//                      ours does (stages/torch_ops.h), so rows keep their order.
// Either may be tied: then the head is the embedding, and is no tensor. Dropout changes no answer
// of a trained model and fits either.
//
// Pure functions.
#ifndef STARLING_INTEROP_HUGGINGFACE_LAYOUT_H_
#define STARLING_INTEROP_HUGGINGFACE_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/config/run_config.h"

namespace starling {

enum class HuggingFaceKind : uint8_t { kGpt2, kLlama };

const char* ArchitectureOf(HuggingFaceKind kind);  // "GPT2LMHeadModel"

// Failed precondition: it is neither; the message names the setting that does not fit.
absl::StatusOr<HuggingFaceKind> HuggingFaceKindOf(const ModelConfig& model);

// One of our parameters as a part of a tensor of theirs: rows [first_row, first_row + shape[0]).
struct HuggingFacePart {
  std::string name;  // stages/model_layout.h
  std::vector<int64_t> shape;
  int64_t first_row = 0;
};

struct HuggingFaceTensor {
  std::string name;
  std::vector<int64_t> shape;  // as in their files
  // Theirs is [in, out] of our [out, in]: rows of parts are columns of it.
  bool transposed = false;
  std::vector<HuggingFacePart> parts;  // one below the other
};

// All of a model that is of this kind, in the order from tokens to logits. Each parameter of
// WholeModelLayout(model) is a part of exactly one.
std::vector<HuggingFaceTensor> HuggingFaceTensors(const ModelConfig& model, HuggingFaceKind kind);

// Tensors that published files hold beside the parameters: masks and tables of frequencies.
bool IsHuggingFaceBuffer(HuggingFaceKind kind, const std::string& name);

// Where names of GPT-2's tensors may lack this: files of the model without its head.
extern const char kGpt2Prefix[];  // "transformer."

}  // namespace starling

#endif  // STARLING_INTEROP_HUGGINGFACE_LAYOUT_H_
