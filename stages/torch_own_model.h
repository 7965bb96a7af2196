// A stage of layers of the user's own: opened, then bound to the flat parameter buffer. For files
// that see LibTorch only.
#ifndef STARLING_STAGES_TORCH_OWN_MODEL_H_
#define STARLING_STAGES_TORCH_OWN_MODEL_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "stages/own_layers.h"
#include "stages/torch_layer.h"
#include "stages/torch_stage_model.h"

namespace starling {

class OwnStage {
 public:
  // `sources` are those of layers [range.begin, range.end), in order.
  //   invalid argument: a layer is refused (torch_layer.h), the stage has no parameters, or a
  //   linked layer is another than config.own_sha256 says.
  static absl::StatusOr<std::shared_ptr<OwnStage>> Open(const ModelConfig& config, LayerRange range,
                                                        const std::vector<LayerSource>& sources,
                                                        uint64_t seed, const LayerRegistry* linked);

  const StageLayout& layout() const { return layout_; }

  // Moves the layers to the buffer's device and makes their parameters views into it. Once. Throws
  // c10::Error.
  std::unique_ptr<StageModel> Bind(const at::Tensor& flat);

 private:
  OwnStage() = default;

  bool first_ = false, last_ = false;
  int64_t begin_ = 0;                 // number of the first layer
  std::vector<LayerSource> sources_;  // without their bytes
  std::vector<std::unique_ptr<TorchLayer>> layers_;
  StageLayout layout_;
};

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_OWN_MODEL_H_
