#include "runtime/data/bigram.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr size_t kBytes = 256;

std::vector<double> UnigramOf(absl::Span<const uint8_t> text) {
  std::vector<double> probability(kBytes, 1);
  for (const uint8_t byte : text) probability[byte] += 1;
  for (double& p : probability) p /= static_cast<double>(text.size() + kBytes);
  return probability;
}

}  // namespace

double UnigramLoss(const Blob& train, const Blob& validation) {
  const std::vector<double> unigram = UnigramOf(train.As<uint8_t>());
  const auto text = validation.As<uint8_t>();
  STARLING_CHECK(!text.empty());
  double loss = 0;
  for (const uint8_t byte : text) loss -= std::log(unigram[byte]);
  return loss / static_cast<double>(text.size());
}

double BigramLoss(const Blob& train, const Blob& validation) {
  const auto fitted = train.As<uint8_t>();
  const std::vector<double> unigram = UnigramOf(fitted);
  std::vector<double> pairs(kBytes * kBytes, 0);
  std::vector<double> firsts(kBytes, 0);
  for (size_t i = 1; i < fitted.size(); ++i) {
    pairs[fitted[i - 1] * kBytes + fitted[i]] += 1;
    firsts[fitted[i - 1]] += 1;
  }
  const auto text = validation.As<uint8_t>();
  STARLING_CHECK_GE(text.size(), size_t{2});
  double loss = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    const double count = pairs[text[i - 1] * kBytes + text[i]];
    loss -= std::log((count + unigram[text[i]]) / (firsts[text[i - 1]] + 1));
  }
  return loss / static_cast<double>(text.size() - 1);
}

}  // namespace starling
