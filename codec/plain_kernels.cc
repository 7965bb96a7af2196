#include <algorithm>

#include "codec/kernels.h"
#include "runtime/base/encoding.h"

namespace starling::codec {
namespace {

constexpr size_t kHalf = kCodecBlock / 2;

// --- 16 bits ---------------------------------------------------------------------------

uint16_t ToF16(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & kMagnitudeBits;
  if (magnitude > kInfinityBits) {  // NaN: quiet, with what fits of its payload
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more
  if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, which the addition rounds to
    const float rounded = FloatOf(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (BitsOf(rounded) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

float FromF16(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1fu) {
    const uint32_t quiet = mantissa == 0 ? 0 : 0x400000u;
    return FloatOf(sign | kInfinityBits | quiet | (mantissa << 13));
  }
  if (exponent == 0) {
    return FloatOf(sign | BitsOf(static_cast<float>(mantissa) * 0x1p-24f));
  }
  return FloatOf(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t ToBF16(float value) {
  const uint32_t bits = BitsOf(value);
  if ((bits & kMagnitudeBits) > kInfinityBits) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float FromBF16(uint16_t half) { return FloatOf(uint32_t{half} << 16); }

template <uint16_t (*kRound)(float)>
void Encode16(const float* values, size_t count, float scale, std::byte* out) {
  for (size_t i = 0; i < count; ++i) {
    const uint16_t half = kRound(values[i] * scale);
    std::memcpy(out + 2 * i, &half, sizeof(half));
  }
}

template <float (*kWiden)(uint16_t)>
void Decode16(const std::byte* bytes, size_t count, float scale, float* values) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, bytes + 2 * i, sizeof(half));
    values[i] = kWiden(half) * scale;
  }
}

// --- blocks ----------------------------------------------------------------------------

uint32_t GreatestOf(const float* values, size_t count) {
  uint32_t greatest = 0;
  for (size_t i = 0; i < count; ++i) {
    greatest = std::max(greatest, BitsOf(values[i]) & kMagnitudeBits);
  }
  return greatest;
}

// Adding 1.5 * 2^23 leaves the nearest whole number in the lower bits. Up to 2^22.
int32_t Nearest(float value) {
  return static_cast<int32_t>(BitsOf(value + 0x1.8p23f)) - 0x4b400000;
}
// The same up to 2^23: adding 2^23 of the same sign leaves no fraction.
int32_t NearestUnits(float value) {
  const float whole = FloatOf((BitsOf(value) & ~kMagnitudeBits) | BitsOf(0x1p23f));
  return static_cast<int32_t>((value + whole) - whole);
}

// The codes of a block; all 0 where `inverse` is 0.
void Quantize(const float* values, size_t count, float inverse, const uint64_t* key, uint64_t block,
              int32_t* codes) {
  if (inverse == 0.0f) {
    std::fill(codes, codes + count, 0);
  } else if (key == nullptr) {
    for (size_t i = 0; i < count; ++i) codes[i] = Nearest(values[i] * inverse);
  } else {
    const BlockDraw draw = DrawOf(*key, block);
    const float units = inverse * kDrawUnits;
    int32_t bits[kCodecBlock];
    for (size_t j = 0; j < kHalf; ++j) {
      const uint32_t pair = DrawPair(draw, static_cast<uint32_t>(j));
      bits[j] = static_cast<int32_t>(pair & 0xffffu);
      bits[j + kHalf] = static_cast<int32_t>(pair >> kDrawBits);
    }
    for (size_t i = 0; i < count; ++i) {
      codes[i] = (NearestUnits(values[i] * units) + bits[i]) >> kDrawBits;
    }
  }
}

void PutScale(float scale, std::byte* out) { std::memcpy(out, &scale, kScaleBytes); }

// False: not finite, and `values` are all NaN.
bool TakeScale(const std::byte* bytes, size_t count, float* values, float* scale) {
  std::memcpy(scale, bytes, kScaleBytes);
  if (FiniteBits(BitsOf(*scale))) return true;
  std::fill(values, values + count, FloatOf(kNanBits));
  return false;
}

}  // namespace

void EncodeInt8Block(const float* values, size_t count, const uint64_t* key, uint64_t block,
                     std::byte* out) {
  const BlockScale scale = ScaleOf(GreatestOf(values, count), kInt8Levels);
  int32_t codes[kCodecBlock];
  Quantize(values, count, scale.inverse, key, block, codes);
  PutScale(scale.scale, out);
  for (size_t i = 0; i < count; ++i) out[kScaleBytes + i] = static_cast<std::byte>(codes[i]);
}

void DecodeInt8Block(const std::byte* bytes, size_t count, float* values) {
  float scale;
  if (!TakeScale(bytes, count, values, &scale)) return;
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(static_cast<int8_t>(bytes[kScaleBytes + i])) * scale;
  }
}

void EncodeInt4Block(const float* values, size_t count, const uint64_t* key, uint64_t block,
                     std::byte* out) {
  const BlockScale scale = ScaleOf(GreatestOf(values, count), kInt4Levels);
  int32_t codes[kCodecBlock + 1];
  Quantize(values, count, scale.inverse, key, block, codes);
  codes[count] = 0;
  PutScale(scale.scale, out);
  const size_t half = (count + 1) / 2;
  for (size_t j = 0; j < half; ++j) {
    out[kScaleBytes + j] = static_cast<std::byte>((codes[j] & 15) | (codes[j + half] & 15) * 16);
  }
}

void DecodeInt4Block(const std::byte* bytes, size_t count, float* values) {
  float scale;
  if (!TakeScale(bytes, count, values, &scale)) return;
  const size_t half = (count + 1) / 2;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t byte = static_cast<uint32_t>(bytes[kScaleBytes + i % half]);
    const uint32_t nibble = (i < half ? byte : byte >> 4) & 15u;
    values[i] = static_cast<float>(static_cast<int32_t>(nibble ^ 8u) - 8) * scale;
  }
}

namespace {

template <void (*kBlock)(const float*, size_t, const uint64_t*, uint64_t, std::byte*),
          size_t kBlockBytes>
void EncodeBlocks(const float* values, size_t count, const uint64_t* key, std::byte* out) {
  for (size_t begin = 0, block = 0; begin < count; begin += kCodecBlock, ++block) {
    kBlock(values + begin, std::min(kCodecBlock, count - begin), key, block,
           out + block * kBlockBytes);
  }
}

template <void (*kBlock)(const std::byte*, size_t, float*), size_t kBlockBytes>
void DecodeBlocks(const std::byte* bytes, size_t count, float* values) {
  for (size_t begin = 0; begin < count; begin += kCodecBlock, bytes += kBlockBytes) {
    kBlock(bytes, std::min(kCodecBlock, count - begin), values + begin);
  }
}

}  // namespace

const Kernels& PlainKernels() {
  static constexpr Kernels kKernels = {
      "plain",
      Encode16<ToF16>,
      Decode16<FromF16>,
      Encode16<ToBF16>,
      Decode16<FromBF16>,
      EncodeBlocks<EncodeInt8Block, kInt8Bytes>,
      DecodeBlocks<DecodeInt8Block, kInt8Bytes>,
      EncodeBlocks<EncodeInt4Block, kInt4Bytes>,
      DecodeBlocks<DecodeInt4Block, kInt4Bytes>,
  };
  return kKernels;
}

}  // namespace starling::codec
