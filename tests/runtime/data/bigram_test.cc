#include "runtime/data/bigram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "runtime/base/rng.h"

namespace starling {
namespace {

TEST(Bigram, UniformNoiseCostsLog256) {
  std::string noise;
  Rng rng(1);
  for (int i = 0; i < 400000; ++i) noise.push_back(static_cast<char>(rng.Below(256)));
  const Blob train = Blob::OfString(noise.substr(0, 300000));
  const Blob validation = Blob::OfString(noise.substr(300000));
  EXPECT_NEAR(UnigramLoss(train, validation), std::log(256), 0.01);
  EXPECT_GT(BigramLoss(train, validation), std::log(256));
}

TEST(Bigram, AlternatingBytesAreForeseenByPairsAlone) {
  std::string text;
  for (int i = 0; i < 50000; ++i) text += "ab";
  const Blob blob = Blob::OfString(text);
  EXPECT_NEAR(UnigramLoss(blob, blob), std::log(2), 0.01);
  EXPECT_NEAR(BigramLoss(blob, blob), 0, 0.001);
}

TEST(Bigram, CountsAreAsWrittenDown) {
  const Blob train = Blob::OfString("aab");
  // Unigram: a 3/259, b 2/259, others 1/259. Pairs from a: aa once, ab once.
  const double a = 3.0 / 259;
  EXPECT_NEAR(UnigramLoss(train, Blob::OfString("ac")), -(std::log(a) + std::log(1.0 / 259)) / 2,
              1e-12);
  EXPECT_NEAR(BigramLoss(train, Blob::OfString("aa")), -std::log((1 + a) / 3), 1e-12);
}

TEST(Bigram, UnseenBytesStillCostAFiniteLoss) {
  EXPECT_TRUE(std::isfinite(BigramLoss(Blob::OfString("aaaa"), Blob::OfString("xyz"))));
}

}  // namespace
}  // namespace starling
