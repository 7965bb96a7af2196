// Every version of the loops against a reference written here from the formats' description: bit
// for bit, at all lengths up to some blocks, at every alignment, with everything a float can be.
#include "codec/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/base/encoding.h"
#include "runtime/base/rng.h"

namespace starling::codec {
namespace {

using Bytes = std::vector<std::byte>;
using Floats = std::vector<float>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kMost = 1025;
// Beyond: blocks whose scales are found together, twice and three times, and what is left.
constexpr size_t kMore[] = {16 * 128, 16 * 128 + 5, 17 * 128, 32 * 128, 33 * 128 + 77};

// --- the reference ---------------------------------------------------------------------

uint16_t ReferenceF16(float value) {
  const uint32_t bits = BitsOf(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00u | ((bits >> 13) & 0x3ffu));
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude >= 65520) return static_cast<uint16_t>(sign | 0x7c00u);
  const int exponent = std::max(magnitude == 0 ? -14 : std::ilogb(magnitude), -14);
  // In units of the last place; a carry runs into the exponent as it should.
  const double units = std::nearbyint(std::ldexp(magnitude, 10 - exponent));
  return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + static_cast<int>(units));
}

float ReferenceFromF16(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const uint32_t sign = half & 0x8000u ? 0x80000000u : 0;
  if (exponent == 31 && mantissa != 0) {
    return FloatOf(sign | 0x7fc00000u | static_cast<uint32_t>(mantissa) << 13);
  }
  double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) magnitude = std::numeric_limits<double>::infinity();
  return sign != 0 ? -static_cast<float>(magnitude) : static_cast<float>(magnitude);
}

uint16_t ReferenceBF16(float value) {
  const uint32_t bits = BitsOf(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  const uint32_t below = bits & 0xffffu;
  const uint32_t kept = bits >> 16;
  const bool up = below > 0x8000u || (below == 0x8000u && kept % 2 == 1);
  return static_cast<uint16_t>(kept + (up ? 1 : 0));
}

Bytes Reference16(const Floats& values, float scale, uint16_t (*round)(float)) {
  Bytes out(2 * values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = round(values[i] * scale);
    std::memcpy(&out[2 * i], &half, 2);
  }
  return out;
}

int ReferenceCode(float value, float greatest, int levels, uint32_t place, const BlockDraw* draw) {
  if (greatest < 0x1p-100f || !std::isfinite(greatest)) return 0;
  float inverse = static_cast<float>(levels) / greatest;
  if (greatest * inverse > static_cast<float>(levels)) inverse = std::nextafter(inverse, 0.0f);
  const float scaled = value * inverse;
  if (draw == nullptr) return static_cast<int>(std::nearbyint(scaled));
  const uint32_t pair = DrawPair(*draw, place % 64);
  const uint32_t bits = place < 64 ? pair % 65536 : pair / 65536;
  const double units = std::nearbyint(static_cast<double>(value * (inverse * 65536)));
  const int code = static_cast<int>(std::floor((units + bits) / 65536));
  EXPECT_LE(std::abs(code), levels);
  return code;
}

// Blocks of int8 (levels 127) or int4 (levels 7).
Bytes ReferenceBlocks(const Floats& values, int levels, const uint64_t* key) {
  Bytes out;
  for (size_t begin = 0; begin < values.size(); begin += 128) {
    const size_t count = std::min<size_t>(128, values.size() - begin);
    float greatest = 0;
    for (size_t i = 0; i < count; ++i) {
      const float value = values[begin + i];
      if (!std::isfinite(value)) greatest = kNan;
      if (std::isfinite(greatest)) greatest = std::max(greatest, std::fabs(value));
    }
    float scale = std::isfinite(greatest) ? greatest / static_cast<float>(levels) : kNan;
    if (greatest < 0x1p-100f) scale = 0;
    if (std::isfinite(scale) && std::isinf(scale * static_cast<float>(levels))) {
      scale = std::nextafter(scale, 0.0f);
    }
    const BlockDraw draw = key == nullptr ? BlockDraw{} : DrawOf(*key, begin / 128);
    std::vector<int> codes;
    for (size_t i = 0; i < count; ++i) {
      codes.push_back(ReferenceCode(values[begin + i], greatest, levels, static_cast<uint32_t>(i),
                                    key == nullptr ? nullptr : &draw));
    }
    for (size_t b = 0; b < 4; ++b) out.push_back(static_cast<std::byte>(BitsOf(scale) >> (8 * b)));
    const size_t half = (count + 1) / 2;
    for (size_t i = 0; i < (levels == 127 ? count : half); ++i) {
      const int upper = i + half < count ? codes[i + half] : 0;
      const int code = levels == 127 ? codes[i] : (codes[i] & 15) + 16 * (upper & 15);
      out.push_back(static_cast<std::byte>(code & 255));
    }
  }
  return out;
}

// --- numbers ---------------------------------------------------------------------------

// Of one kind per block, with what is special strewn over some.
Floats Numbers(size_t count, uint64_t seed) {
  constexpr float kMagnitudes[] = {1.0f,   1e-6f,    3e4f, 1e30f, 3.4e38f,  1e-37f,
                                   1e-42f, 0x1p-99f, 7.0f, 0.0f,  0x1p-14f, 0x1p-24f};
  const float specials[] = {
      kNan,      -kNan,     kInf,         -kInf,    FloatOf(0x7f800001), FloatOf(0xffa00123),
      0.0f,      -0.0f,     65504.0f,     65520.0f, -65519.99f,          1e-45f,
      0x1p-149f, 0x1p-126f, 3.4028235e38f};
  Rng rng(seed);
  Floats values(count);
  float magnitude = 1;
  bool special = false;
  for (size_t i = 0; i < count; ++i) {
    if (i % 128 == 0) {
      magnitude = kMagnitudes[rng.Below(std::size(kMagnitudes))];
      special = rng.Chance(0.2);
    }
    values[i] = static_cast<float>((2 * rng.Unit() - 1) * static_cast<double>(magnitude));
    // Ties, among others.
    if (rng.Chance(0.2)) values[i] = std::round(values[i] * 2) / 2;
    if (special && rng.Chance(0.05)) values[i] = specials[rng.Below(std::size(specials))];
  }
  return values;
}

// --- calling them ----------------------------------------------------------------------

// Encodes from and to odd places, and checks that nothing beside was touched.
template <typename Call>
Bytes EncodeAt(const Floats& values, size_t bytes, size_t shift, Call call) {
  Floats in(values.size() + 16);
  std::copy(values.begin(), values.end(), in.begin() + static_cast<long>(shift % 16));
  Bytes out(bytes + 128, std::byte{0xa5});
  call(in.data() + shift % 16, out.data() + shift);
  for (size_t i = 0; i < out.size(); ++i) {
    if (i >= shift && i < shift + bytes) continue;
    EXPECT_EQ(out[i], std::byte{0xa5}) << "written outside, at " << i << " of " << bytes;
  }
  return Bytes(out.begin() + static_cast<long>(shift),
               out.begin() + static_cast<long>(shift + bytes));
}

template <typename Call>
Floats DecodeAt(const Bytes& bytes, size_t count, size_t shift, Call call) {
  Bytes in(bytes.size() + 64);
  std::copy(bytes.begin(), bytes.end(), in.begin() + static_cast<long>(shift));
  Floats out(count + 32, 42.0f);
  const size_t begin = shift % 16;
  call(in.data() + shift, out.data() + begin);
  for (size_t i = 0; i < out.size(); ++i) {
    if (i >= begin && i < begin + count) continue;
    EXPECT_EQ(out[i], 42.0f) << "written outside, at " << i;
  }
  return Floats(out.begin() + static_cast<long>(begin),
                out.begin() + static_cast<long>(begin + count));
}

std::vector<uint32_t> Bits(const Floats& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(BitsOf(value));
  return bits;
}

class KernelsTest : public testing::TestWithParam<const Kernels*> {};

INSTANTIATE_TEST_SUITE_P(All, KernelsTest, testing::ValuesIn(AllKernels()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST_P(KernelsTest, SixteenBitsAreTheReferencesAtEveryLength) {
  const Kernels& kernels = *GetParam();
  const float scales[] = {1.0f, 0x1p-12f, 0x1p20f};
  for (size_t count = 0; count <= kMost; ++count) {
    const Floats values = Numbers(count, count);
    const float scale = scales[count % 3];
    const size_t shift = count % 64;
    const Bytes f16 = EncodeAt(values, 2 * count, shift, [&](const float* in, std::byte* out) {
      kernels.encode_f16(in, count, scale, out);
    });
    ASSERT_EQ(f16, Reference16(values, scale, ReferenceF16)) << count;
    const Bytes bf16 = EncodeAt(values, 2 * count, shift, [&](const float* in, std::byte* out) {
      kernels.encode_bf16(in, count, scale, out);
    });
    ASSERT_EQ(bf16, Reference16(values, scale, ReferenceBF16)) << count;
  }
}

TEST_P(KernelsTest, AllSixteenBitPatternsDecodeAsTheyShould) {
  const Kernels& kernels = *GetParam();
  Bytes bytes(2 * 65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    bytes[2 * i] = static_cast<std::byte>(i & 255);
    bytes[2 * i + 1] = static_cast<std::byte>(i >> 8);
  }
  for (const float scale : {1.0f, 0x1p12f, 0x1p-20f}) {
    Floats f16(65536), bf16(65536), f16_want(65536), bf16_want(65536);
    kernels.decode_f16(bytes.data(), 65536, scale, f16.data());
    kernels.decode_bf16(bytes.data(), 65536, scale, bf16.data());
    for (uint32_t i = 0; i < 65536; ++i) {
      f16_want[i] = ReferenceFromF16(static_cast<uint16_t>(i)) * scale;
      bf16_want[i] = FloatOf(i << 16) * scale;
    }
    EXPECT_EQ(Bits(f16), Bits(f16_want));
    EXPECT_EQ(Bits(bf16), Bits(bf16_want));
  }
}

TEST_P(KernelsTest, SixteenBitNumbersSurviveTheWayBack) {
  const Kernels& kernels = *GetParam();
  Bytes bytes, f16(2 * 65536), bf16(2 * 65536);
  for (uint32_t i = 0; i < 65536; ++i) {
    bytes.push_back(static_cast<std::byte>(i & 255));
    bytes.push_back(static_cast<std::byte>(i >> 8));
  }
  Floats values(65536);
  kernels.decode_f16(bytes.data(), 65536, 1, values.data());
  kernels.encode_f16(values.data(), 65536, 1, f16.data());
  kernels.decode_bf16(bytes.data(), 65536, 1, values.data());
  kernels.encode_bf16(values.data(), 65536, 1, bf16.data());
  for (uint32_t i = 0; i < 65536; ++i) {
    uint16_t half, brain;
    std::memcpy(&half, &f16[2 * i], 2);
    std::memcpy(&brain, &bf16[2 * i], 2);
    const bool f16_nan = (i & 0x7c00u) == 0x7c00u && (i & 0x3ffu) != 0;
    const bool bf16_nan = (i & 0x7f80u) == 0x7f80u && (i & 0x7fu) != 0;
    ASSERT_EQ(half, f16_nan ? i | 0x200u : i);
    ASSERT_EQ(brain, bf16_nan ? i | 0x40u : i);
  }
}

TEST_P(KernelsTest, BlocksAreTheReferencesAtEveryLengthAndRounding) {
  const Kernels& kernels = *GetParam();
  std::vector<size_t> counts(kMost + 1);
  std::iota(counts.begin(), counts.end(), 0);
  counts.insert(counts.end(), std::begin(kMore), std::end(kMore));
  for (const size_t count : counts) {
    const Floats values = Numbers(count, count + 10000);
    const uint64_t key = Mix64(count);
    const size_t shift = (count * 7) % 64;
    for (const uint64_t* k : {static_cast<const uint64_t*>(nullptr), &key}) {
      const Bytes int8 = EncodeAt(
          values, EncodedBytes(Encoding::kInt8, count), shift,
          [&](const float* in, std::byte* out) { kernels.encode_int8(in, count, k, out); });
      ASSERT_EQ(int8, ReferenceBlocks(values, 127, k)) << count;
      const Bytes int4 = EncodeAt(
          values, EncodedBytes(Encoding::kInt4, count), shift,
          [&](const float* in, std::byte* out) { kernels.encode_int4(in, count, k, out); });
      ASSERT_EQ(int4, ReferenceBlocks(values, 7, k)) << count;
    }
  }
}

// Any bytes decode, those of a hostile sender too, and to the same bits everywhere.
TEST_P(KernelsTest, RandomBytesDecodeAsThePlainLoopsDo) {
  const Kernels& kernels = *GetParam();
  Rng rng(7);
  for (size_t count = 0; count <= kMost; ++count) {
    for (const Encoding encoding : {Encoding::kInt8, Encoding::kInt4}) {
      Bytes bytes(EncodedBytes(encoding, count));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.Below(256));
      const size_t block_bytes = EncodedBytes(encoding, 128);
      for (size_t at = 0; at + 4 <= bytes.size(); at += block_bytes) {
        const float scales[] = {1.0f, kInf, kNan, 0.0f, -2.0f, 1e38f, 1e-45f};
        if (rng.Chance(0.5)) std::memcpy(&bytes[at], &scales[rng.Below(std::size(scales))], 4);
      }
      const auto decode = [&](const Kernels& with) {
        return DecodeAt(bytes, count, count % 64, [&](const std::byte* in, float* out) {
          (encoding == Encoding::kInt8 ? with.decode_int8 : with.decode_int4)(in, count, out);
        });
      };
      ASSERT_EQ(Bits(decode(kernels)), Bits(decode(PlainKernels()))) << count;
    }
  }
}

TEST_P(KernelsTest, BlocksDecodeWithinTheirBounds) {
  const Kernels& kernels = *GetParam();
  for (size_t count = 1; count <= kMost; ++count) {
    const Floats values = Numbers(count, count + 20000);
    for (const bool stochastic : {false, true}) {
      for (const int levels : {127, 7}) {
        const uint64_t key = count;
        const Bytes bytes = ReferenceBlocks(values, levels, stochastic ? &key : nullptr);
        Floats back(count);
        (levels == 127 ? kernels.decode_int8 : kernels.decode_int4)(bytes.data(), count,
                                                                    back.data());
        for (size_t begin = 0; begin < count; begin += 128) {
          const size_t end = std::min(count, begin + 128);
          double greatest = 0;
          bool finite = true;
          for (size_t i = begin; i < end; ++i) {
            finite = finite && std::isfinite(values[i]);
            greatest = std::max(greatest, std::fabs(static_cast<double>(values[i])));
          }
          const double share = stochastic ? 1.0001 : 0.5001;
          const double bound = greatest < 0x1p-100 ? 0x1p-100 : share * greatest / levels;
          for (size_t i = begin; i < end; ++i) {
            if (!finite) {
              ASSERT_TRUE(std::isnan(back[i])) << "a non-finite block became " << back[i];
              continue;
            }
            ASSERT_LE(std::fabs(static_cast<double>(values[i]) - static_cast<double>(back[i])),
                      bound)
                << values[i] << " became " << back[i] << " in a block up to " << greatest;
          }
        }
      }
    }
  }
}

// Whatever the greatest magnitude is, the block decodes to finite numbers, the greatest one itself
// to within a rounding.
TEST_P(KernelsTest, TheLargestFiniteNumbersStayFinite) {
  const Kernels& kernels = *GetParam();
  Rng rng(3);
  for (int i = 0; i < 20000; ++i) {
    Floats values(128, 0.0f), back(128);
    values[5] =
        i == 0 ? 3.4028235e38f : FloatOf(0x7f7fffffu - static_cast<uint32_t>(rng.Below(1 << 23)));
    Bytes bytes(EncodedBytes(Encoding::kInt8, 128));
    kernels.encode_int8(values.data(), 128, nullptr, bytes.data());
    kernels.decode_int8(bytes.data(), 128, back.data());
    ASSERT_NEAR(back[5] / values[5], 1.0f, 1e-6f);
    kernels.encode_int4(values.data(), 128, nullptr, bytes.data());
    kernels.decode_int4(bytes.data(), 128, back.data());
    ASSERT_NEAR(back[5] / values[5], 1.0f, 1e-6f);
  }
}

// Its mean over many keys is the number itself; nearest would give 0 throughout.
TEST_P(KernelsTest, StochasticRoundingIsRightOnTheAverage) {
  const Kernels& kernels = *GetParam();
  constexpr int kKeys = 4000;
  Floats values(128, 0.3f / 127);
  values[127] = 1;
  values[100] = -0.3f / 127;
  std::vector<double> sums(128), drawn(128);
  Bytes bytes(EncodedBytes(Encoding::kInt8, 128));
  Floats back(128);
  for (uint64_t key = 0; key < kKeys; ++key) {
    kernels.encode_int8(values.data(), 128, &key, bytes.data());
    kernels.decode_int8(bytes.data(), 128, back.data());
    for (size_t i = 0; i < 128; ++i) sums[i] += static_cast<double>(back[i]);
  }
  double all = 0;
  for (size_t i = 0; i < 127; ++i) {
    const double mean = sums[i] / kKeys * 127;
    // Five standard deviations of a coin of 0.3.
    EXPECT_NEAR(mean, i == 100 ? -0.3 : 0.3, 5 * std::sqrt(0.21 / kKeys)) << i;
    all += i == 100 ? -mean : mean;
  }
  EXPECT_NEAR(all / 127, 0.3, 5 * std::sqrt(0.21 / kKeys / 127));
  EXPECT_NEAR(sums[127] / kKeys, 1, 1e-6);
}

// --- the draws of stochastic rounding, which are the same in all versions ----------------

// Which of `blocks` blocks' elements were rounded up, where all but the last of a block are
// `fraction` of a level: a row of bits for each place in a block.
std::vector<std::vector<bool>> RoundedUp(size_t blocks, float fraction, uint64_t key) {
  Floats values(128 * blocks, fraction / 127);
  for (size_t b = 0; b < blocks; ++b) values[128 * b + 127] = 1;
  Bytes bytes(EncodedBytes(Encoding::kInt8, values.size()));
  BestKernels().encode_int8(values.data(), values.size(), &key, bytes.data());
  std::vector<std::vector<bool>> rows(127, std::vector<bool>(blocks));
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t i = 0; i < 127; ++i) rows[i][b] = bytes[132 * b + 4 + i] == std::byte{1};
  }
  return rows;
}

// Deviations of what two rows have in common from what independent ones would, in standard
// deviations; the second is taken `lag` blocks later.
double Dependence(const std::vector<bool>& a, const std::vector<bool>& b, size_t lag,
                  double chance) {
  const size_t count = a.size() - lag;
  double both = 0;
  for (size_t i = 0; i < count; ++i) both += a[i] && b[i + lag] ? 1 : 0;
  double of_a = 0, of_b = 0;
  for (size_t i = 0; i < count; ++i) of_a += a[i] ? 1 : 0;
  for (size_t i = 0; i < count; ++i) of_b += b[i + lag] ? 1 : 0;
  const double n = static_cast<double>(count);
  return (both - of_a * of_b / n) / (std::sqrt(n) * chance * (1 - chance));
}

TEST(StochasticRounding, ElementsAreRoundedIndependently) {
  constexpr size_t kBlocks = 2000;
  for (const float fraction : {0.5f, 0.3f}) {
    const auto p = static_cast<double>(fraction);
    const auto rows = RoundedUp(kBlocks, fraction, 11);
    const auto others = RoundedUp(kBlocks, fraction, 12);
    double squares = 0;
    for (size_t i = 0; i < 127; ++i) {
      for (size_t j = 0; j < i; ++j) {
        const double z = Dependence(rows[i], rows[j], 0, p);
        EXPECT_LT(std::fabs(z), 5.5) << "places " << j << " and " << i;
        squares += z * z;
      }
      EXPECT_LT(std::fabs(Dependence(rows[i], rows[i], 1, p)), 5) << "the next block, " << i;
      EXPECT_LT(std::fabs(Dependence(rows[i], others[i], 0, p)), 5) << "the next key, " << i;
    }
    EXPECT_NEAR(squares / (127 * 126 / 2), 1, 0.08);
    // Neither do they lean together: the number rounded up in a block is a binomial's, to the
    // fourth moment.
    double second = 0, fourth = 0;
    for (size_t b = 0; b < kBlocks; ++b) {
      double sum = -127 * p;
      for (const auto& row : rows) sum += row[b] ? 1 : 0;
      second += sum * sum / kBlocks;
      fourth += sum * sum * sum * sum / kBlocks;
    }
    const double variance = 127 * p * (1 - p);
    EXPECT_NEAR(second / variance, 1, 5 * std::sqrt(2.0 / kBlocks));
    EXPECT_NEAR(fourth / (variance * variance), 3, 5 * std::sqrt(96.0 / kBlocks));
  }
}

// Far below a level, too: 2^-10 and 2^-14 of one.
TEST(StochasticRounding, SmallNumbersAreKeptOnTheAverage) {
  constexpr size_t kBlocks = 20000;
  for (const float fraction : {0x1p-10f, 0x1p-14f, 1 - 0x1p-10f}) {
    double ups = 0;
    for (const auto& row : RoundedUp(kBlocks, fraction, 13)) {
      for (const bool up : row) ups += up ? 1 : 0;
    }
    const double p = static_cast<double>(fraction);
    const double count = 127.0 * kBlocks;
    EXPECT_NEAR(ups, p * count, 5 * std::sqrt(p * (1 - p) * count) + count * 0x1p-17);
  }
}

}  // namespace
}  // namespace starling::codec
