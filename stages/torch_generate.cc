#include "stages/torch_generate.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <thread>
#include <utility>

#include "runtime/base/rng.h"
#include "runtime/base/status_macros.h"
#include "stages/model_layout.h"
#include "stages/torch_blob.h"
#include "stages/torch_model.h"

namespace starling {
namespace {

constexpr uint64_t kDomain = 0x73616d70ULL;  // "samp"

class GeneratorImpl : public Generator {
 public:
  GeneratorImpl(const ModelConfig& model, const StageLayout& layout, const at::Tensor& flat,
                int threads)
      : config_(model),
        model_(model, LayerRange{0, model.layers}, layout, flat),
        threads_(threads) {}

  absl::Status Begin(const std::vector<int32_t>& prompt, const Sampling& sampling) override {
    if (prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
    for (int32_t token : prompt) {
      if (token < 0 || token >= config_.vocabulary) {
        return absl::InvalidArgumentError("the prompt holds token " + std::to_string(token) +
                                          ", outside the vocabulary of " +
                                          std::to_string(config_.vocabulary));
      }
    }
    if (!(sampling.temperature >= 0.0) || sampling.top_k < 0) {
      return absl::InvalidArgumentError("temperature and top-k must not be negative");
    }
    sampling_ = sampling;
    text_.assign(prompt.begin(), prompt.end());
    drawn_ = 0;
    return absl::OkStatus();
  }

  absl::StatusOr<int32_t> Next() override {
    if (text_.empty()) return absl::FailedPreconditionError("generation has not begun");
    STARLING_ASSIGN_OR_RETURN(
        const std::vector<float> logits,
        CatchTorch([&]() -> absl::StatusOr<std::vector<float>> { return LastLogits(); }));
    for (float logit : logits) {
      if (!std::isfinite(logit)) return absl::InternalError("the model gives no finite number");
    }
    const double draw = ToUnit(MixAll(kDomain, sampling_.seed, drawn_++));
    text_.push_back(PickToken(logits, sampling_, draw));
    return static_cast<int32_t>(text_.back());
  }

 private:
  std::vector<float> LastLogits() {
    at::set_num_threads(threads_);
    c10::AutoGradMode no_grad(false);
    if (static_cast<int64_t>(text_.size()) > config_.context) {
      text_.erase(text_.begin(), text_.end() - config_.context);
    }
    const int64_t tokens = static_cast<int64_t>(text_.size());
    const at::Tensor input =
        at::from_blob(text_.data(), {1, tokens}, at::TensorOptions().dtype(at::kLong));
    const at::Tensor hidden = model_.Forward(input, {});
    const at::Tensor logits = model_.Logits(hidden.narrow(1, tokens - 1, 1)).contiguous();
    const float* values = logits.data_ptr<float>();
    return std::vector<float>(values, values + config_.vocabulary);
  }

  const ModelConfig config_;
  TorchModel model_;
  const int threads_;
  Sampling sampling_;
  std::vector<int64_t> text_;  // the last tokens, at most a context and one
  uint64_t drawn_ = 0;
};

}  // namespace

int32_t PickToken(const std::vector<float>& logits, const Sampling& sampling, double draw) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  // Equal logits in order of their tokens, so that the choice is one on every machine.
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  if (sampling.temperature == 0.0) return order[0];
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < order.size()) {
    order.resize(static_cast<size_t>(sampling.top_k));
  }
  const double highest = logits[static_cast<size_t>(order[0])];
  std::vector<double> weights;
  double total = 0.0;
  for (int32_t token : order) {
    const double logit = logits[static_cast<size_t>(token)];
    weights.push_back(std::exp((logit - highest) / sampling.temperature));
    total += weights.back();
  }
  double left = draw * total;
  for (size_t i = 0; i < order.size(); ++i) {
    left -= weights[i];
    if (left < 0.0) return order[i];
  }
  return order.back();
}

absl::StatusOr<std::unique_ptr<Generator>> Generator::Create(const ModelConfig& model,
                                                             const Blob& parameters, int threads) {
  const StageLayout layout = WholeModelLayout(model);
  const int64_t count = parameters.element_count();
  if (parameters.dtype() != DType::kF32 ||
      (count != layout.size && count != kStatePlanes * layout.size)) {
    return absl::InvalidArgumentError("the model has " + std::to_string(layout.size) +
                                      " parameters, padding included; given are " +
                                      std::to_string(count) + " " + ToString(parameters.dtype()));
  }
  return CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Generator>> {
    const at::Tensor flat = TensorOver(parameters).reshape({-1}).narrow(0, 0, layout.size);
    return std::make_unique<GeneratorImpl>(model, layout, flat, threads);
  });
}

}  // namespace starling
