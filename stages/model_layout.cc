#include "stages/model_layout.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr double kInitStd = 0.02;

class LayoutBuilder {
 public:
  explicit LayoutBuilder(const ModelConfig& config)
      : config_(config),
        residual_std_(kInitStd / std::sqrt(2.0 * static_cast<double>(config.layers))) {}

  TensorSpec& AddMatrix(const std::string& name, int64_t rows, int64_t columns,
                        double std = kInitStd) {
    TensorSpec spec;
    spec.name = name;
    spec.shape = {rows, columns};
    spec.decay = true;
    spec.init = InitKind::kNormal;
    spec.init_std = static_cast<float>(std);
    tensors_.push_back(std::move(spec));
    return tensors_.back();
  }

  void AddNorm(const std::string& name) {
    AddVector(name + ".weight", config_.width, InitKind::kOnes);
    if (config_.bias && config_.norm == NormKind::kLayerNorm) {
      AddVector(name + ".bias", config_.width, InitKind::kZeros);
    }
  }

  void AddLayer(int64_t layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const int64_t width = config_.width;
    const int64_t key_value_width = config_.key_value_heads() * config_.head_width();
    AddNorm(prefix + "norm1");
    AddLinear(prefix + "attention.q", width, width, kInitStd);
    AddLinear(prefix + "attention.k", key_value_width, width, kInitStd);
    AddLinear(prefix + "attention.v", key_value_width, width, kInitStd);
    AddLinear(prefix + "attention.o", width, width, residual_std_);
    AddNorm(prefix + "norm2");
    const int64_t hidden = config_.mlp_hidden();
    if (config_.mlp == MlpKind::kSwiGlu) AddLinear(prefix + "mlp.gate", hidden, width, kInitStd);
    AddLinear(prefix + "mlp.up", hidden, width, kInitStd);
    AddLinear(prefix + "mlp.down", width, hidden, residual_std_);
  }

  StageLayout Finish() { return MakeLayout(std::move(tensors_)); }

 private:
  void AddVector(const std::string& name, int64_t count, InitKind init) {
    TensorSpec spec;
    spec.name = name;
    spec.shape = {count};
    spec.init = init;
    tensors_.push_back(std::move(spec));
  }

  void AddLinear(const std::string& name, int64_t out, int64_t in, double std) {
    AddMatrix(name + ".weight", out, in, std);
    if (config_.bias) AddVector(name + ".bias", out, InitKind::kZeros);
  }

  const ModelConfig& config_;
  const double residual_std_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace

StageLayout ModelStageLayout(const ModelConfig& config, LayerRange range) {
  STARLING_CHECK(!config.own());
  STARLING_CHECK_LE(0, range.begin);
  STARLING_CHECK_LT(range.begin, range.end);
  STARLING_CHECK_LE(range.end, config.layers);
  LayoutBuilder builder(config);
  const bool first = range.begin == 0;
  const bool last = range.end == config.layers;
  if (first) {
    TensorSpec& embed = builder.AddMatrix("embed.weight", config.vocabulary, config.width);
    if (config.tie_embeddings && !last) embed.tie = 0;
    if (config.position == PositionKind::kLearned) {
      builder.AddMatrix("position.weight", config.context, config.width);
    }
  }
  for (int64_t layer = range.begin; layer < range.end; ++layer) builder.AddLayer(layer);
  if (last) builder.AddNorm("norm");
  if (last && !config.tie_embeddings) {
    builder.AddMatrix("head.weight", config.vocabulary, config.width);
  } else if (last && !first) {
    TensorSpec& head = builder.AddMatrix("embed.weight", config.vocabulary, config.width);
    head.tie = 0;
    head.stored = false;
  }
  return builder.Finish();
}

StageLayout WholeModelLayout(const ModelConfig& config) {
  return ModelStageLayout(config, LayerRange{0, config.layers});
}

}  // namespace starling
