#include "stages/torch_stage_model.h"

#include <cstring>

#include "runtime/base/status_macros.h"

namespace starling {
namespace {

absl::Status CheckTokens(const char* what, const Blob& blob, const ModelConfig& model) {
  const std::vector<int64_t>& shape = blob.shape();
  if (blob.dtype() != DType::kI32 || shape.size() != 2 || shape[0] < 1 || shape[1] < 1 ||
      shape[1] > model.context) {
    return absl::InvalidArgumentError(std::string(what) + " are " + ShapeText(blob) +
                                      ", not i32 [n, T] with T up to " +
                                      std::to_string(model.context));
  }
  for (int64_t i = 0; i < blob.element_count(); ++i) {
    int32_t token = 0;
    std::memcpy(&token, blob.data() + i * 4, 4);
    if (token < 0 || token >= model.vocabulary) {
      return absl::InvalidArgumentError(std::string(what) + " hold " + std::to_string(token) +
                                        ", outside the vocabulary of " +
                                        std::to_string(model.vocabulary));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHidden(const char* what, const Blob& blob, const ModelConfig& model) {
  const std::vector<int64_t>& shape = blob.shape();
  if (blob.dtype() != DType::kF32 || shape.size() != 3 || shape[0] < 1 || shape[1] < 1 ||
      shape[1] > model.context || shape[2] != model.width) {
    return absl::InvalidArgumentError(std::string(what) + " is " + ShapeText(blob) +
                                      ", not f32 [n, T, " + std::to_string(model.width) +
                                      "] with T up to " + std::to_string(model.context));
  }
  return absl::OkStatus();
}

class BuiltInModel : public StageModel {
 public:
  BuiltInModel(const ModelConfig& config, LayerRange range, const StageLayout& layout,
               const at::Tensor& flat, Precision precision)
      : config_(config), model_(config, range, layout, flat, precision) {}

  const std::vector<at::Tensor>& parameters() const override { return model_.parameters(); }
  void ParametersChanged() override { model_.ParametersChanged(); }
  bool first_stage() const override { return model_.first_stage(); }
  bool last_stage() const override { return model_.last_stage(); }

  absl::Status CheckInput(const Blob& input) const override {
    return first_stage() ? CheckTokens("tokens", input, config_)
                         : CheckHidden("the input", input, config_);
  }

  absl::Status CheckTargets(const Blob& targets, const Blob& input) const override {
    STARLING_RETURN_IF_ERROR(CheckTokens("targets", targets, config_));
    if (targets.shape()[0] != input.shape()[0] || targets.shape()[1] != input.shape()[1]) {
      return absl::InvalidArgumentError("targets are " + ShapeText(targets) + " for " +
                                        ShapeText(input));
    }
    return absl::OkStatus();
  }

  at::Tensor Forward(const at::Tensor& input, const std::optional<DropoutDraw>& draw) override {
    return model_.Forward(input, draw);
  }

  at::Tensor TokenLosses(const at::Tensor& output, const at::Tensor& targets) const override {
    return model_.TokenLosses(output, targets);
  }

 private:
  const ModelConfig config_;
  TorchModel model_;
};

}  // namespace

std::string ShapeText(const Blob& blob) {
  std::string text = std::string(ToString(blob.dtype())) + " [";
  for (size_t i = 0; i < blob.shape().size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(blob.shape()[i]);
  }
  return text + "]";
}

std::unique_ptr<StageModel> MakeBuiltInModel(const ModelConfig& config, LayerRange range,
                                             const StageLayout& layout, const at::Tensor& flat,
                                             Precision precision) {
  return std::make_unique<BuiltInModel>(config, range, layout, flat, precision);
}

}  // namespace starling
