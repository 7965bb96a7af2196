#include "stages/torch_generate.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>

#include "runtime/base/status_macros.h"
#include "stages/model_layout.h"
#include "stages/torch_blob.h"
#include "stages/torch_model.h"

namespace starling {
namespace {

constexpr int64_t kPortion = 128;  // tokens computed together: bounds the memory of their scores

class GeneratorImpl : public Generator {
 public:
  GeneratorImpl(const ModelConfig& model, const StageLayout& layout, const at::Tensor& flat,
                int threads)
      : config_(model),
        model_(model, LayerRange{0, model.layers}, layout, flat),
        threads_(threads),
        cache_(model_.MakeCache()) {}

  absl::Status Begin(const std::vector<int32_t>& prompt, const Sampling& sampling) override {
    if (prompt.empty()) return absl::InvalidArgumentError("the prompt is empty");
    for (int32_t token : prompt) {
      if (token < 0 || token >= config_.vocabulary) {
        return absl::InvalidArgumentError("the prompt holds token " + std::to_string(token) +
                                          ", outside the vocabulary of " +
                                          std::to_string(config_.vocabulary));
      }
    }
    STARLING_RETURN_IF_ERROR(CheckSampling(sampling));
    sampling_ = sampling;
    const size_t context = static_cast<size_t>(config_.context);
    text_.assign(prompt.end() - static_cast<std::ptrdiff_t>(std::min(prompt.size(), context)),
                 prompt.end());
    cache_.tokens = 0;
    drawn_ = 0;
    return absl::OkStatus();
  }

  absl::StatusOr<int32_t> Next(const std::function<bool()>& interrupted) override {
    if (text_.empty()) return absl::FailedPreconditionError("generation has not begun");
    STARLING_ASSIGN_OR_RETURN(const std::vector<float> logits,
                              CatchTorch([&] { return LastLogits(interrupted); }));
    for (float logit : logits) {
      if (!std::isfinite(logit)) return absl::InternalError("the model gives no finite number");
    }
    text_.push_back(PickToken(logits, sampling_, SamplingDraw(sampling_.seed, drawn_++)));
    return static_cast<int32_t>(text_.back());
  }

 private:
  // Computes what is new in the text; at least its last token is.
  absl::StatusOr<std::vector<float>> LastLogits(const std::function<bool()>& interrupted) {
    at::set_num_threads(threads_);
    c10::AutoGradMode no_grad(false);
    ForgetWhatDoesNotFit();
    cache_.tokens = std::min(cache_.tokens, static_cast<int64_t>(text_.size()) - 1);
    at::Tensor hidden;
    while (cache_.tokens < static_cast<int64_t>(text_.size())) {
      if (hidden.defined() && interrupted && interrupted()) {
        return absl::CancelledError("interrupted");
      }
      const int64_t count = std::min(kPortion, static_cast<int64_t>(text_.size()) - cache_.tokens);
      hidden = model_.Extend(at::from_blob(text_.data() + cache_.tokens, {1, count},
                                           at::TensorOptions().dtype(at::kLong)),
                             &cache_);
    }
    const at::Tensor logits = model_.Logits(hidden.narrow(1, hidden.size(1) - 1, 1)).contiguous();
    const float* values = logits.data_ptr<float>();
    return std::vector<float>(values, values + config_.vocabulary);
  }

  void ForgetWhatDoesNotFit() {
    if (static_cast<int64_t>(text_.size()) <= config_.context) return;
    text_.erase(text_.begin(), text_.end() - (config_.context + 1) / 2);
    cache_.tokens = 0;
  }

  const ModelConfig config_;
  TorchModel model_;
  const int threads_;
  Sampling sampling_;
  std::vector<int64_t> text_;  // what the model sees, and at most one token more
  TorchModel::Cache cache_;    // of the beginning of text_
  uint64_t drawn_ = 0;
};

}  // namespace

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
