// Which tensors a slice of the model has, and where they lie.
//
// Tensors are named by parameter, the same however the model is cut:
//   embed.weight [vocabulary, width]        on the stage with layer 0
//   position.weight [context, width]        there too, with learned positions
//   layers.N.norm1.weight (.bias) [width]
//   layers.N.attention.{q,k,v,o}.weight (.bias)
//   layers.N.norm2.weight (.bias) [width]
//   layers.N.mlp.{up,down}.weight (.bias)   and mlp.gate with SwiGLU
//   norm.weight (.bias) [width]             on the stage with the last layer
//   head.weight [vocabulary, width]         there too, unless it is tied to embed.weight
// A head that is tied (ModelConfig::tie_embeddings) is embed.weight. Where the model is cut, the
// last stage has a tensor of that name too, in tie 0 with the first one's, which stores it.
// Linear weights are [out, in] as LibTorch and Hugging Face have them. Biases exist where
// ModelConfig::bias says so; RMSNorm never has one.
//
// Version 0: matrices are normal with deviation 0.02, those that write to the residual stream
// (attention.o, mlp.down) with 0.02 / sqrt(2 * layers) as in GPT-2; norms one, biases zero. Weight
// decay applies to everything with two dimensions, embeddings too, again as in GPT-2.
#ifndef STARLING_STAGES_MODEL_LAYOUT_H_
#define STARLING_STAGES_MODEL_LAYOUT_H_

#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"

namespace starling {

// The layout of built-in layers [range.begin, range.end) (of others: own_layers.h). The range must
// lie within the model and not be empty: configurations are validated where they are read.
StageLayout ModelStageLayout(const ModelConfig& config, LayerRange range);

// The whole model as one stage.
StageLayout WholeModelLayout(const ModelConfig& config);

}  // namespace starling

#endif  // STARLING_STAGES_MODEL_LAYOUT_H_
