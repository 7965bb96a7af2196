#include "stages/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr uint64_t kDomain = 0x73616d70ULL;  // "samp"

// The `count` likeliest tokens, in order.
std::vector<int32_t> Likeliest(const std::vector<float>& logits, size_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto middle = order.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(order.begin(), middle, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.resize(count);
  return order;
}

}  // namespace

absl::Status CheckSampling(const Sampling& sampling) {
  if (!(sampling.temperature >= 0.0) || !std::isfinite(sampling.temperature)) {
    return absl::InvalidArgumentError("the temperature must be 0 or a positive number");
  }
  if (sampling.top_k < 0) return absl::InvalidArgumentError("top-k must not be negative");
  if (!(sampling.top_p >= 0.0 && sampling.top_p <= 1.0)) {
    return absl::InvalidArgumentError("top-p must be between 0 and 1");
  }
  return absl::OkStatus();
}

double SamplingDraw(uint64_t seed, uint64_t index) { return ToUnit(MixAll(kDomain, seed, index)); }

int32_t PickToken(const std::vector<float>& logits, const Sampling& sampling, double draw) {
  STARLING_CHECK(!logits.empty());
  if (sampling.temperature == 0.0 || sampling.top_p == 0.0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  size_t count = logits.size();
  if (sampling.top_k > 0) count = std::min(count, static_cast<size_t>(sampling.top_k));
  const std::vector<int32_t> order = Likeliest(logits, count);
  const double highest = logits[static_cast<size_t>(order[0])];
  std::vector<double> weights;
  double total = 0.0;
  for (int32_t token : order) {
    const double logit = logits[static_cast<size_t>(token)];
    weights.push_back(std::exp((logit - highest) / sampling.temperature));
    total += weights.back();
  }
  if (sampling.top_p < 1.0) {
    const double wanted = sampling.top_p * total;
    size_t kept = 1;
    for (total = weights[0]; kept < count && total < wanted; ++kept) total += weights[kept];
    count = kept;
  }
  double left = draw * total;
  for (size_t i = 0; i < count; ++i) {
    left -= weights[i];
    if (left < 0.0) return order[i];
  }
  return order[count - 1];
}

}  // namespace starling
