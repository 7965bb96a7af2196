// The loops of the codecs, in versions for what a processor can do. Internal to codec/, its tests
// and its benchmark; the formats are codec.h's.
//
// All versions give the same bits. Only IEEE operations in one written order, without contraction
// (-ffp-contract=off), rounded to nearest, subnormal numbers kept.
#ifndef STARLING_CODEC_KERNELS_H_
#define STARLING_CODEC_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/base/encoding.h"
#include "runtime/base/rng.h"

namespace starling::codec {

// Encoded bytes have any alignment; `key` null: round to nearest.
struct Kernels {
  const char* name;
  void (*encode_f16)(const float* values, size_t count, float scale, std::byte* out);
  void (*decode_f16)(const std::byte* bytes, size_t count, float scale, float* values);
  void (*encode_bf16)(const float* values, size_t count, float scale, std::byte* out);
  void (*decode_bf16)(const std::byte* bytes, size_t count, float scale, float* values);
  void (*encode_int8)(const float* values, size_t count, const uint64_t* key, std::byte* out);
  void (*decode_int8)(const std::byte* bytes, size_t count, float* values);
  void (*encode_int4)(const float* values, size_t count, const uint64_t* key, std::byte* out);
  void (*decode_int4)(const std::byte* bytes, size_t count, float* values);
};

// For every machine.
const Kernels& PlainKernels();
// Null where this processor, or this build's architecture, does not have them.
const Kernels* Avx2Kernels();    // with F16C
const Kernels* Avx512Kernels();  // F, BW, VL
// The fastest that runs here.
const Kernels& BestKernels();
// All that run here, the plain ones first.
std::vector<const Kernels*> AllKernels();

// --- what the versions share -----------------------------------------------------------

constexpr uint32_t kMagnitudeBits = 0x7fffffffu;
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr uint32_t kNanBits = 0x7fc00000u;
constexpr size_t kScaleBytes = 4;
constexpr size_t kInt8Bytes = kScaleBytes + kCodecBlock;  // of a whole block
constexpr size_t kInt4Bytes = kScaleBytes + kCodecBlock / 2;
constexpr float kInt8Levels = 127.0f;
constexpr float kInt4Levels = 7.0f;

inline uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline bool FiniteBits(uint32_t bits) { return (bits & kMagnitudeBits) < kInfinityBits; }

// How a block is scaled.
struct BlockScale {
  float scale = 0;    // as it is sent; NaN: the block is not finite, and its codes are 0
  float inverse = 0;  // numbers times this lie within the levels; 0: all codes are 0
};
// `greatest`: of the magnitudes' bits, compared as integers, in which NaN is above infinity.
inline BlockScale ScaleOf(uint32_t greatest, float levels) {
  if (greatest >= kInfinityBits) return {FloatOf(kNanBits), 0.0f};
  const float magnitude = FloatOf(greatest);
  if (magnitude < 0x1p-100f) return {};
  float scale = magnitude / levels;
  // Nothing finite may decode to an infinity.
  if (magnitude >= 0x1p127f && !FiniteBits(BitsOf(scale * levels))) {
    scale = FloatOf(BitsOf(scale) - 1);
  }
  float inverse = levels / magnitude;
  if (magnitude * inverse > levels) inverse = FloatOf(BitsOf(inverse) - 1);
  return {scale, inverse};
}

// Stochastic rounding: a number in units of 2^-15 of a level, rounded to nearest, plus 15 drawn
// bits, and the upper part of that. Whole levels are kept, and nothing exceeds the levels.
//
// There are 32 bits for each pair (j, j + 64) of places in a block, the lower 15 for the first and
// the upper 15 for the second: two rounds of a multiplicative hash with the block's 64 bits, of
// which vector units can do many at once.
struct BlockDraw {
  uint32_t start = 0;
  uint32_t middle = 0;
};
constexpr int kDrawBits = 15;
constexpr float kDrawUnits = 0x1p15f;
constexpr uint32_t kDrawStep = 0x9e3779b9u;
constexpr uint32_t kDrawFirst = 0x7feb352du;
constexpr uint32_t kDrawSecond = 0x846ca68bu;

inline BlockDraw DrawOf(uint64_t key, uint64_t block) {
  const uint64_t bits = Mix64(key + block * 0x9e3779b97f4a7c15ULL);
  return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}
inline uint32_t DrawPair(const BlockDraw& draw, uint32_t place) {
  uint32_t x = draw.start + place * kDrawStep;
  x ^= x >> 16;
  x *= kDrawFirst;
  x ^= x >> 15;
  x += draw.middle;
  x *= kDrawSecond;
  x ^= x >> 16;
  return x;
}

// One block, whole or the last one, for the vector versions' ends. Not inline: compiled once, for
// every machine.
void EncodeInt8Block(const float* values, size_t count, const uint64_t* key, uint64_t block,
                     std::byte* out);
void DecodeInt8Block(const std::byte* bytes, size_t count, float* values);
void EncodeInt4Block(const float* values, size_t count, const uint64_t* key, uint64_t block,
                     std::byte* out);
void DecodeInt4Block(const std::byte* bytes, size_t count, float* values);

}  // namespace starling::codec

#endif  // STARLING_CODEC_KERNELS_H_
