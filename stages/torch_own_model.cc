#include "stages/torch_own_model.h"

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/nll_loss.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

class OwnModel : public StageModel {
 public:
  OwnModel(bool first, bool last, std::vector<LayerSource> sources,
           std::vector<std::unique_ptr<TorchLayer>> layers, std::vector<at::Tensor> parameters)
      : first_(first),
        last_(last),
        sources_(std::move(sources)),
        layers_(std::move(layers)),
        parameters_(std::move(parameters)) {}

  const std::vector<at::Tensor>& parameters() const override { return parameters_; }
  bool first_stage() const override { return first_; }
  bool last_stage() const override { return last_; }

  // What the layers take is known to them alone: they throw if it does not fit.
  absl::Status CheckInput(const Blob& input) const override {
    const bool may_be_integers =
        first_ && (input.dtype() == DType::kI32 || input.dtype() == DType::kU8);
    if ((input.dtype() == DType::kF32 || may_be_integers) && !input.shape().empty() &&
        input.element_count() > 0) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat("the input is ", ShapeText(input), ", not ",
                                                   first_ ? "f32, u8 or i32" : "f32",
                                                   " with a row for each sequence"));
  }

  absl::Status CheckTargets(const Blob& targets, const Blob& input) const override {
    if (targets.dtype() == DType::kI32 && !targets.shape().empty() &&
        targets.shape()[0] == input.shape()[0]) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("targets are ", ShapeText(targets), " for ", ShapeText(input)));
  }

  at::Tensor Forward(const at::Tensor& input, const std::optional<DropoutDraw>& draw) override {
    at::Tensor x = input;
    for (size_t i = 0; i < layers_.size(); ++i) {
      try {
        x = layers_[i]->Forward(x);
      } catch (const std::bad_alloc&) {
        throw;
      } catch (const c10::Error& error) {
        TORCH_CHECK(false, sources_[i].Where(), ": ", error.what_without_backtrace());
      } catch (const std::exception& error) {
        TORCH_CHECK(false, sources_[i].Where(), ": ", error.what());
      }
      TORCH_CHECK(x.scalar_type() == at::kFloat && x.dim() >= 1 && x.size(0) == input.size(0),
                  sources_[i].Where(), ": its output has not a float32 row for each sequence");
    }
    return x;
  }

  at::Tensor TokenLosses(const at::Tensor& output, const at::Tensor& targets) const override {
    TORCH_CHECK(output.dim() == targets.dim() + 1 &&
                    output.sizes().slice(0, static_cast<size_t>(targets.dim())) == targets.sizes(),
                "targets of shape ", targets.sizes(), " do not fit an output of shape ",
                output.sizes());
    const int64_t classes = output.size(-1);
    TORCH_CHECK(targets.min().item<int64_t>() >= 0 && targets.max().item<int64_t>() < classes,
                "a target is not from 0 to ", classes - 1);
    return at::nll_loss(at::log_softmax(output.reshape({-1, classes}), -1), targets.reshape({-1}),
                        {}, at::Reduction::None);
  }

 private:
  const bool first_, last_;
  const std::vector<LayerSource> sources_;
  const std::vector<std::unique_ptr<TorchLayer>> layers_;
  const std::vector<at::Tensor> parameters_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<OwnStage>> OwnStage::Open(const ModelConfig& config,
                                                         LayerRange range,
                                                         const std::vector<LayerSource>& sources,
                                                         uint64_t seed,
                                                         const LayerRegistry* linked) {
  STARLING_CHECK_EQ(static_cast<int64_t>(sources.size()), range.end - range.begin);
  auto stage = std::shared_ptr<OwnStage>(new OwnStage);
  stage->first_ = range.begin == 0;
  stage->last_ = range.end == config.layers;
  std::vector<TensorSpec> all;
  for (const LayerSource& source : sources) {
    STARLING_ASSIGN_OR_RETURN(std::unique_ptr<TorchLayer> layer,
                              OpenTorchLayer(source, seed, linked));
    const std::vector<TensorSpec> tensors = TensorsOf(*layer, source.number);
    const bool linked = source.path.empty();
    if (linked && !config.own_sha256.empty() &&
        LinkedLayerSha256(source.name, tensors) !=
            config.own_sha256[static_cast<size_t>(source.number)]) {
      return absl::InvalidArgumentError(
          absl::StrCat(source.Where(),
                       ": the one linked into this program has other parameters than the run's"));
    }
    all.insert(all.end(), tensors.begin(), tensors.end());
    stage->layers_.push_back(std::move(layer));
    stage->sources_.push_back(source);
    stage->sources_.back().bytes = Blob();
  }
  if (all.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("model.layers: layers ", range.begin, " to ",
                                                   range.end - 1, " have no parameters"));
  }
  stage->layout_ = MakeLayout(std::move(all));
  return stage;
}

std::unique_ptr<StageModel> OwnStage::Bind(const at::Tensor& flat) {
  c10::AutoGradMode no_gradients(false);
  std::map<std::string, at::Tensor> leaves;
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i]->MoveTo(flat.device());
    for (const auto& [name, tensor] : layers_[i]->Parameters()) {
      leaves[OwnTensor(sources_[i].number, name, {}).name] = tensor;
    }
  }
  std::vector<at::Tensor> parameters;
  for (const TensorSpec& spec : layout_.tensors) {
    at::Tensor leaf = leaves.at(spec.name);
    leaf.set_data(flat.narrow(0, spec.offset, spec.count).view(spec.shape));
    parameters.push_back(std::move(leaf));
  }
  return std::make_unique<OwnModel>(first_, last_, std::move(sources_), std::move(layers_),
                                    std::move(parameters));
}

}  // namespace starling
