#include "codec/codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "runtime/base/hash.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr Encoding kAll[] = {Encoding::kRaw, Encoding::kF16, Encoding::kBF16, Encoding::kInt8,
                             Encoding::kInt4};

Blob Numbers(std::vector<int64_t> shape, uint64_t seed) {
  MutableBlob blob = MutableBlob::Uninitialized(DType::kF32, std::move(shape));
  Rng rng(seed);
  for (float& value : blob.As<float>()) value = static_cast<float>(rng.Unit() * 4 - 2);
  return std::move(blob).Freeze();
}

TEST(Codec, SizesAreThoseOfTheFormats) {
  EXPECT_EQ(EncodedBytes(Encoding::kRaw, 1000), 4000u);
  EXPECT_EQ(EncodedBytes(Encoding::kF16, 1000), 2000u);
  EXPECT_EQ(EncodedBytes(Encoding::kBF16, 1000), 2000u);
  EXPECT_EQ(EncodedBytes(Encoding::kInt8, 1000), 1000u + 8 * 4);
  EXPECT_EQ(EncodedBytes(Encoding::kInt4, 1001), 501u + 8 * 4);
  for (const Encoding encoding : kAll) EXPECT_EQ(EncodedBytes(encoding, 0), 0u);
  EXPECT_LE(EncodedBytes(Encoding::kInt8, 1 << 20), 0.26 * 4 * (1 << 20));
}

TEST(Codec, BlobsComeBackInTheirShapeAndCloseToWhatTheyWere) {
  const double bounds[] = {0, 0x1p-10, 0x1p-7, 2 * 0.5001 / 127, 2 * 0.5001 / 7};
  const Blob values = Numbers({3, 7, 50}, 1);
  for (const Encoding encoding : kAll) {
    const Blob sent = EncodeBlob(values, {encoding});
    EXPECT_EQ(sent.size_bytes(), EncodedBytes(encoding, 1050));
    EXPECT_EQ(sent.shape(), values.shape());
    EXPECT_EQ(sent.encoding(), encoding);
    const absl::StatusOr<Blob> back = DecodeBlob(sent);
    ASSERT_TRUE(back.ok()) << back.status();
    ASSERT_EQ(back->shape(), values.shape());
    EXPECT_FALSE(back->encoded());
    double worst = 0;
    for (size_t i = 0; i < 1050; ++i) {
      worst = std::max(worst, std::fabs(static_cast<double>(back->As<float>()[i]) -
                                        static_cast<double>(values.As<float>()[i])));
    }
    EXPECT_LE(worst, bounds[static_cast<int>(encoding)]) << ToString(encoding);
    EXPECT_EQ(worst > 0, encoding != Encoding::kRaw);
  }
}

TEST(Codec, EmptyTensorsKeepTheirShape) {
  for (const Encoding encoding : kAll) {
    const Blob sent = EncodeBlob(Numbers({4, 0, 16}, 1), {encoding});
    EXPECT_TRUE(sent.empty());
    const absl::StatusOr<Blob> back = DecodeBlob(sent);
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->shape(), (std::vector<int64_t>{4, 0, 16}));
  }
}

TEST(Codec, RawIsTheSameBytesWithoutACopy) {
  const Blob values = Numbers({100}, 1);
  EXPECT_EQ(EncodeBlob(values, {}).data(), values.data());
  EXPECT_EQ(DecodeBlob(values)->data(), values.data());
}

TEST(Codec, RawThatIsNotAlignedIsCopied) {
  const Blob values = Numbers({100}, 1);
  std::vector<std::byte> shifted(401);
  std::memcpy(&shifted[1], values.data(), 400);
  const Blob odd(nullptr, &shifted[1], DType::kF32, {100});
  const absl::StatusOr<Blob> back = DecodeBlob(odd);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->As<float>(), values.As<float>());
}

TEST(Codec, BytesOfAnotherSizeAreRefusedAndNothingIsWritten) {
  for (const Encoding encoding : kAll) {
    const size_t right = EncodedBytes(encoding, 300);
    std::vector<std::byte> bytes(right + 200);
    for (const size_t size : {size_t{0}, right - 1, right + 1, right + 132}) {
      std::vector<float> values(300, 42.0f);
      const absl::Status status = Decode(encoding, bytes.data(), size, 0, absl::MakeSpan(values));
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
      EXPECT_EQ(values, std::vector<float>(300, 42.0f));
    }
  }
}

TEST(Codec, TokensAreNotDecoded) {
  const Blob tokens = MutableBlob::Zeros(DType::kI32, {2, 8}).Freeze();
  EXPECT_TRUE(absl::IsInvalidArgument(DecodeBlob(tokens).status()));
}

TEST(Codec, WhatIsNotFiniteIsNotFiniteAfterwards) {
  for (const Encoding encoding : kAll) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      for (const size_t at : {0u, 127u, 128u, 299u}) {
        for (const Rounding rounding : {Rounding::kNearest, Rounding::kStochastic}) {
          std::vector<float> values(300, 1.0f);
          values[at] = bad;
          const auto back = DecodeBlob(EncodeBlob(Blob::OfFloats(values), {encoding, rounding, 9}));
          EXPECT_FALSE(std::isfinite(back->As<float>()[at])) << ToString(encoding);
          // Other blocks are not touched.
          EXPECT_NEAR(back->As<float>()[(at + 150) % 300], 1.0f, 1e-6f) << ToString(encoding);
        }
      }
    }
  }
}

TEST(Codec, ScalingByAPowerOfTwoKeepsSmallGradientsInHalfPrecision) {
  std::vector<float> sums;
  for (int i = 0; i < 200; ++i) sums.push_back(70000.0f + static_cast<float>(i) * 1000);
  const Blob values = Blob::OfFloats(sums);
  const Blob overflow = *DecodeBlob(EncodeBlob(values, {Encoding::kF16}));
  EXPECT_TRUE(std::isinf(overflow.As<float>()[0]));
  Coding coding{Encoding::kF16};
  coding.scale_exponent = -12;
  const Blob back = *DecodeBlob(EncodeBlob(values, coding), -12);
  for (size_t i = 0; i < sums.size(); ++i) {
    EXPECT_NEAR(back.As<float>()[i] / sums[i], 1.0f, 0x1p-11f);
  }
}

TEST(Codec, OneKeyGivesOneResultInWhateverThread) {
  const Blob values = Numbers({20000}, 5);
  const Coding coding{Encoding::kInt4, Rounding::kStochastic, 77};
  const Blob here = EncodeBlob(values, coding);
  const Hash128 want = HashBytes(here.data(), here.size_bytes());
  std::vector<Hash128> got(4);
  std::vector<std::thread> threads;
  for (Hash128& hash : got) {
    threads.emplace_back([&] {
      const Blob there = EncodeBlob(values, coding);
      hash = HashBytes(there.data(), there.size_bytes());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Hash128& hash : got) EXPECT_EQ(hash, want);
  const Blob other = EncodeBlob(values, {Encoding::kInt4, Rounding::kStochastic, 78});
  EXPECT_NE(HashBytes(other.data(), other.size_bytes()), want);
}

// The formats do not change without notice: what these numbers become on every machine.
TEST(Codec, GoldenHashes) {
  const Blob values = Numbers({1000}, 42);
  const auto hash = [&](const Coding& coding) {
    const Blob sent = EncodeBlob(values, coding);
    return ToHex(HashBytes(sent.data(), sent.size_bytes()));
  };
  EXPECT_EQ(hash({Encoding::kF16}), "a2896a95f5d9049db7749e821f09b1b1");
  EXPECT_EQ(hash({Encoding::kBF16}), "881105f8254b69b477855ed54126e347");
  EXPECT_EQ(hash({Encoding::kInt8}), "18218869876340ceac33c1aad08bd308");
  EXPECT_EQ(hash({Encoding::kInt4}), "0132880f145f7e48500749f85262dcfa");
  EXPECT_EQ(hash({Encoding::kInt8, Rounding::kStochastic, 1}), "eddb8e1d3283eae20f4263a6ea98f4bd");
  EXPECT_EQ(hash({Encoding::kInt4, Rounding::kStochastic, 1}), "2a6e441a02f2176999f32ea999825012");
}

}  // namespace
}  // namespace starling
