// StageModel: what the executor asks of the layers it hosts, built-in or the user's own: functions
// over one flat parameter buffer. For files that see LibTorch only.
//
// Not thread-safe: used on the compute thread only. Forward and TokenLosses throw c10::Error, which
// the executor catches; the checks come before them and give invalid argument.
#ifndef STARLING_STAGES_TORCH_STAGE_MODEL_H_
#define STARLING_STAGES_TORCH_STAGE_MODEL_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/blob.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "stages/torch_model.h"

namespace starling {

class StageModel {
 public:
  using DropoutDraw = TorchModel::DropoutDraw;

  virtual ~StageModel() = default;

  // The leaves, views into the flat buffer, in the order of layout.tensors; they require gradients.
  virtual const std::vector<at::Tensor>& parameters() const = 0;
  // The flat buffer has other numbers. What was computed before must not be differentiated after.
  virtual void ParametersChanged() {}
  virtual bool first_stage() const = 0;
  virtual bool last_stage() const = 0;

  virtual absl::Status CheckInput(const Blob& input) const = 0;
  // Last stage.
  virtual absl::Status CheckTargets(const Blob& targets, const Blob& input) const = 0;

  // Integers come as int64, all else as it is in the Blob. A row for each sequence.
  virtual at::Tensor Forward(const at::Tensor& input, const std::optional<DropoutDraw>& draw) = 0;
  // Last stage: the cross entropy of each target in nats, flat; targets are int64.
  virtual at::Tensor TokenLosses(const at::Tensor& output, const at::Tensor& targets) const = 0;
};

// The transformer (torch_model.h).
std::unique_ptr<StageModel> MakeBuiltInModel(const ModelConfig& config, LayerRange range,
                                             const StageLayout& layout, const at::Tensor& flat,
                                             Precision precision);

// "f32 [4, 16]", for messages.
std::string ShapeText(const Blob& blob);

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_STAGE_MODEL_H_
