#include "stages/torch_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/nll_loss.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <limits>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "runtime/base/check.h"
#include "stages/torch_ops.h"

namespace starling {
namespace {

// Bounds the tables kept, should inputs have many lengths.
constexpr size_t kTablesKept = 8;

}  // namespace

TorchModel::TorchModel(const ModelConfig& config, LayerRange range, const StageLayout& layout,
                       const at::Tensor& flat, Precision precision)
    : config_(config),
      range_(range),
      flat_(flat),
      options_(flat.options().requires_grad(false)),
      type_(precision == Precision::kBf16 ? at::kBFloat16 : flat.scalar_type()) {
  if (precision == Precision::kBf16) narrow_ = at::zeros_like(flat, options_.dtype(type_));
  std::unordered_map<std::string, at::Tensor> by_name, narrow_by_name;
  for (const TensorSpec& spec : layout.tensors) {
    auto view = [&spec](const at::Tensor& run) {
      return run.narrow(0, spec.offset, spec.count).view(spec.shape);
    };
    at::Tensor leaf = view(flat);
    leaf.set_requires_grad(true);
    parameters_.push_back(leaf);
    by_name.emplace(spec.name, leaf);
    if (narrow_.defined()) narrow_by_name.emplace(spec.name, view(narrow_));
  }
  auto find = [&by_name](const std::string& name) {
    auto found = by_name.find(name);
    return found == by_name.end() ? at::Tensor() : found->second;
  };
  auto linear = [&](const std::string& name) {
    return Linear{find(name + ".weight"), find(name + ".bias"), narrow_by_name[name + ".weight"]};
  };
  embed_ = find("embed.weight");
  position_ = find("position.weight");
  head_ = linear(config.tie_embeddings ? "embed" : "head");
  norm_ = linear("norm");
  for (int64_t index = range.begin; index < range.end; ++index) {
    const std::string prefix = "layers." + std::to_string(index) + ".";
    layers_.push_back(Layer{
        linear(prefix + "norm1"), linear(prefix + "attention.q"), linear(prefix + "attention.k"),
        linear(prefix + "attention.v"), linear(prefix + "attention.o"), linear(prefix + "norm2"),
        linear(prefix + "mlp.gate"), linear(prefix + "mlp.up"), linear(prefix + "mlp.down")});
  }
}

void TorchModel::ParametersChanged() {
  c10::AutoGradMode no_grad(false);
  if (narrow_.defined()) narrow_.copy_(flat_);
}

at::Tensor TorchModel::Product(const Linear& linear, const at::Tensor& x) const {
  if (linear.narrow.defined()) return RoundedProduct(x, linear.weight, linear.bias, linear.narrow);
  const at::Tensor turned = linear.weight.t();
  return linear.bias.defined() ? at::addmm(linear.bias, x, turned) : at::mm(x, turned);
}

at::Tensor TorchModel::Norm(const Linear& norm, const at::Tensor& x) const {
  const at::Tensor normed =
      config_.norm == NormKind::kRmsNorm
          ? RmsNorm(x, norm.weight, config_.norm_epsilon)
          : at::layer_norm(x, {config_.width}, norm.weight, norm.bias, config_.norm_epsilon);
  return normed.to(type_);
}

at::Tensor TorchModel::Attention(const Layer& layer, const at::Tensor& x, int64_t sequences,
                                 const Tables& tables) const {
  const int64_t tokens = x.size(0) / sequences;
  const int64_t head_width = config_.head_width();
  auto heads = [&](const Linear& linear, int64_t count) {
    return Product(linear, x).view({sequences, tokens, count, head_width});
  };
  at::Tensor q = heads(layer.q, config_.heads);
  at::Tensor k = heads(layer.k, config_.key_value_heads());
  const at::Tensor v = heads(layer.v, config_.key_value_heads());
  if (config_.position == PositionKind::kRope) {
    q = Rope(q.to(options_.dtype()), tables.cosine, tables.sine).to(type_);
    k = Rope(k.to(options_.dtype()), tables.cosine, tables.sine).to(type_);
  }
  const caffe2::TypeMeta type = tables.mask.dtype();
  const at::Tensor mixed = CausalAttention(q.to(type), k.to(type), v.to(type), tables.mask);
  return Product(layer.o, mixed.reshape({x.size(0), config_.width}).to(type_));
}

at::Tensor TorchModel::Mlp(const Layer& layer, const at::Tensor& x) const {
  const at::Tensor up = Product(layer.up, x);
  const at::Tensor hidden =
      config_.mlp == MlpKind::kGelu ? at::gelu(up, "tanh") : SwiGlu(Product(layer.gate, x), up);
  return Product(layer.down, hidden);
}

at::Tensor TorchModel::Dropped(const at::Tensor& x, int64_t sequences,
                               const std::optional<DropoutDraw>& draw, int64_t layer,
                               DropoutSite site) const {
  if (!draw.has_value() || config_.dropout == 0.0) return x;
  at::Tensor mask = at::empty(x.sizes(), at::TensorOptions().dtype(at::kFloat));
  FillDropoutMask(DropoutKey{draw->seed, draw->step, draw->first_sequence, layer, site},
                  config_.dropout, x.numel() / sequences,
                  absl::MakeSpan(mask.data_ptr<float>(), static_cast<size_t>(mask.numel())));
  return x * mask.to(options_);
}

at::Tensor TorchModel::Forward(const at::Tensor& input, const std::optional<DropoutDraw>& draw) {
  const int64_t sequences = input.size(0);
  const int64_t tokens = input.size(1);
  const Tables& tables = TablesFor(tokens);
  at::Tensor x;
  if (first_stage()) {
    x = at::embedding(embed_, input);
    if (position_.defined()) x = x + at::embedding(position_, tables.places);
    x = x.reshape({sequences * tokens, config_.width});
    x = Dropped(x, sequences, draw, 0, DropoutSite::kEmbedding);
  } else {
    x = input.reshape({sequences * tokens, config_.width});
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const int64_t index = range_.begin + static_cast<int64_t>(i);
    const at::Tensor attended = Attention(layer, Norm(layer.norm1, x), sequences, tables);
    x = x + Dropped(attended, sequences, draw, index, DropoutSite::kAttention);
    const at::Tensor widened = Mlp(layer, Norm(layer.norm2, x));
    x = x + Dropped(widened, sequences, draw, index, DropoutSite::kMlp);
  }
  return x.view({sequences, tokens, config_.width});
}

at::Tensor TorchModel::Logits(const at::Tensor& hidden) const {
  return Product(head_, Norm(norm_, hidden.reshape({-1, config_.width}))).to(options_.dtype());
}

at::Tensor TorchModel::TokenLosses(const at::Tensor& hidden, const at::Tensor& targets) const {
  const at::Tensor log_probability = at::log_softmax(Logits(hidden), -1);
  return at::nll_loss(log_probability, targets.reshape({-1}), {}, at::Reduction::None);
}

const TorchModel::Tables& TorchModel::TablesFor(int64_t tokens) {
  auto found = tables_.find(tokens);
  if (found != tables_.end()) return found->second;
  c10::AutoGradMode no_grad(false);
  if (tables_.size() >= kTablesKept) tables_.clear();
  Tables tables;
  // On the host attention multiplies bf16 numbers as fp32 ones (torch_ops.cc says why).
  tables.mask = at::full({tokens, tokens}, -std::numeric_limits<double>::infinity(),
                         flat_.is_cpu() ? options_ : options_.dtype(type_));
  tables.mask.triu_(1);
  tables.places = at::arange(tokens, options_.dtype(at::kLong));
  if (config_.position == PositionKind::kRope) {
    std::tie(tables.cosine, tables.sine) = RopeTables(tokens);
  }
  return tables_.emplace(tokens, std::move(tables)).first->second;
}

std::pair<at::Tensor, at::Tensor> TorchModel::RopeTables(int64_t tokens) const {
  const at::TensorOptions wide = at::TensorOptions().dtype(at::kDouble);
  const int64_t half = config_.head_width() / 2;
  const at::Tensor exponents = at::arange(half, wide) / -static_cast<double>(half);
  const at::Tensor angles =
      at::outer(at::arange(tokens, wide), at::pow(config_.rope_theta, exponents)).unsqueeze(1);
  const at::ScalarType type = c10::typeMetaToScalarType(options_.dtype());
  return {angles.cos().to(options_.device(), type), angles.sin().to(options_.device(), type)};
}

TorchModel::Cache TorchModel::MakeCache() const {
  c10::AutoGradMode no_grad(false);
  Cache cache;
  const std::vector<int64_t> shape = {config_.key_value_heads(), config_.context,
                                      config_.head_width()};
  for (size_t i = 0; i < layers_.size(); ++i) {
    cache.keys.push_back(at::empty(shape, options_));
    cache.values.push_back(at::empty(shape, options_));
  }
  if (config_.position == PositionKind::kRope) {
    std::tie(cache.cosine, cache.sine) = RopeTables(config_.context);
  }
  return cache;
}

at::Tensor TorchModel::CachedAttention(const Layer& layer, const at::Tensor& x, size_t index,
                                       const Cache& cache) const {
  const int64_t tokens = x.size(0), all = cache.tokens + tokens;
  auto heads = [&](const Linear& linear, int64_t count) {
    return Product(linear, x).view({1, tokens, count, config_.head_width()});
  };
  at::Tensor q = heads(layer.q, config_.heads);
  at::Tensor k = heads(layer.k, config_.key_value_heads());
  if (config_.position == PositionKind::kRope) {
    const at::Tensor cosine = cache.cosine.narrow(0, cache.tokens, tokens);
    const at::Tensor sine = cache.sine.narrow(0, cache.tokens, tokens);
    q = Rope(q, cosine, sine);
    k = Rope(k, cosine, sine);
  }
  const at::Tensor v = heads(layer.v, config_.key_value_heads());
  cache.keys[index].narrow(1, cache.tokens, tokens).copy_(k[0].transpose(0, 1));
  cache.values[index].narrow(1, cache.tokens, tokens).copy_(v[0].transpose(0, 1));
  const at::Tensor mixed = NewestAttention(q[0], cache.keys[index].narrow(1, 0, all),
                                           cache.values[index].narrow(1, 0, all));
  return Product(layer.o, mixed.reshape({tokens, config_.width}));
}

at::Tensor TorchModel::Extend(const at::Tensor& input, Cache* cache) const {
  c10::AutoGradMode no_grad(false);
  const int64_t tokens = input.size(1);
  STARLING_CHECK_LE(cache->tokens + tokens, config_.context);
  at::Tensor x = first_stage() ? at::embedding(embed_, input) : input;
  x = x.reshape({tokens, config_.width});
  if (position_.defined()) x = x + position_.narrow(0, cache->tokens, tokens);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    x = x + CachedAttention(layer, Norm(layer.norm1, x), i, *cache);
    x = x + Mlp(layer, Norm(layer.norm2, x));
  }
  cache->tokens += tokens;
  return x.view({1, tokens, config_.width});
}

}  // namespace starling
