// TorchModel: a slice of a decoder-only transformer as functions over one flat parameter buffer.
//
// Pre-norm blocks, x + attention(norm1(x)) and x + mlp(norm2(x)), with the choices of ModelConfig:
// GPT-2 and Llama are settings of it. Every parameter is a leaf tensor that is a view into the flat
// buffer, so an update of the buffer is an update of the model. The forward is a pure function of
// (parameters, input, dropout key).
//
// Not thread-safe: used on the compute thread only. Errors: throws c10::Error; the executor
// catches.
#ifndef STARLING_STAGES_TORCH_MODEL_H_
#define STARLING_STAGES_TORCH_MODEL_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "stages/dropout.h"

namespace starling {

class TorchModel {
 public:
  // What keys this microbatch's dropout.
  struct DropoutDraw {
    uint64_t seed = 0;
    Step step{0};
    uint64_t first_sequence = 0;
  };

  // `flat` is [layout.size] in fp32 or fp64, on the device to run on; layout is that of
  // ModelStageLayout(config, range).
  TorchModel(const ModelConfig& config, LayerRange range, const StageLayout& layout,
             const at::Tensor& flat, Precision precision = Precision::kFp32);

  // To be called when the flat buffer has other numbers. What was computed before must not be
  // differentiated after.
  void ParametersChanged();

  // The leaves, in the order of layout.tensors; they require gradients.
  const std::vector<at::Tensor>& parameters() const { return parameters_; }

  bool first_stage() const { return range_.begin == 0; }
  bool last_stage() const { return range_.end == config_.layers; }

  // First stage: int64 [n, T] tokens; others: [n, T, width]. Gives [n, T, width] before the final
  // norm. No dropout without a draw.
  at::Tensor Forward(const at::Tensor& input, const std::optional<DropoutDraw>& draw);

  // What a sequence that grows keeps of its tokens, so that none is computed twice: keys (rotated,
  // with RoPE) and values of every layer of the slice.
  struct Cache {
    std::vector<at::Tensor> keys, values;  // per layer [kv_heads, context, D]
    at::Tensor cosine, sine;               // [context, 1, D/2], with RoPE
    int64_t tokens = 0;                    // rows in use; 0 forgets the sequence
  };
  Cache MakeCache() const;

  // What Forward gives for the last t tokens of a sequence, of which the cache holds all others:
  // int64 [1, t] or [1, t, width] to [1, t, width]; the cache then holds these too. They must fit
  // into the context. No dropout, no gradient.
  at::Tensor Extend(const at::Tensor& input, Cache* cache) const;

  // Last stage: final norm and head. [n, T, width] -> [n * T, vocabulary].
  at::Tensor Logits(const at::Tensor& hidden) const;

  // Last stage: cross entropy of each token in nats, [n * T]; targets are int64 [n, T].
  at::Tensor TokenLosses(const at::Tensor& hidden, const at::Tensor& targets) const;

 private:
  struct Linear {
    at::Tensor weight, bias;  // bias may be undefined
    at::Tensor narrow;        // in bf16: the weight, rounded
  };
  struct Layer {
    Linear norm1, q, k, v, o, norm2, gate, up, down;
  };
  // What depends on the number of tokens only.
  struct Tables {
    at::Tensor mask;          // [T, T], 0 or minus infinity; of the type that attention computes in
    at::Tensor cosine, sine;  // [T, 1, D/2], with RoPE
    at::Tensor places;        // int64 [T]
  };

  // x [rows, in] times the weight [out, in] transposed. In bf16 both ends are.
  at::Tensor Product(const Linear& linear, const at::Tensor& x) const;
  // As the products take it.
  at::Tensor Norm(const Linear& norm, const at::Tensor& x) const;
  at::Tensor Attention(const Layer& layer, const at::Tensor& x, int64_t sequences,
                       const Tables& tables) const;
  // Of the newest rows x, behind what the cache holds for this layer.
  at::Tensor CachedAttention(const Layer& layer, const at::Tensor& x, size_t index,
                             const Cache& cache) const;
  at::Tensor Mlp(const Layer& layer, const at::Tensor& x) const;
  at::Tensor Dropped(const at::Tensor& x, int64_t sequences, const std::optional<DropoutDraw>& draw,
                     int64_t layer, DropoutSite site) const;
  const Tables& TablesFor(int64_t tokens);
  // Cosine and sine of the first `tokens` places, [tokens, 1, D/2].
  std::pair<at::Tensor, at::Tensor> RopeTables(int64_t tokens) const;

  const ModelConfig config_;
  const LayerRange range_;
  const at::Tensor flat_;
  const at::TensorOptions options_;  // of the parameters
  const at::ScalarType type_;        // of the products
  std::vector<at::Tensor> parameters_;
  at::Tensor narrow_;  // flat_ in type_, where they differ
  at::Tensor embed_, position_;
  Linear head_, norm_;
  std::vector<Layer> layers_;
  std::map<int64_t, Tables> tables_;  // by T; training and evaluation use a few lengths only
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_MODEL_H_
