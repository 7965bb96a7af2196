// The loops of the codecs, in versions for what a processor can do. Internal to codec/, its tests
// and its benchmark; the formats are codec.h's.
//
// All versions give the same bits. Only IEEE operations in one written order, without contraction
// (-ffp-contract=off), rounded to nearest, subnormal numbers kept.
#ifndef STARLING_CODEC_KERNELS_H_
#define STARLING_CODEC_KERNELS_H_

#include <array>
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
  // For some numbers and not for others: no branch.
  inverse = FloatOf(BitsOf(inverse) - static_cast<uint32_t>(magnitude * inverse > levels));
  return {scale, inverse};
}

// Stochastic rounding: a number in units of 2^-16 of a level, rounded to nearest, plus 16 drawn
// bits, and the upper part of that. Whole levels are kept, and nothing exceeds the levels. The
// expectation is the number to within 2^-17 of a level, and what fp32 rounds on the way.
//
// The generator: 64 bits for each block, from its number and the key (Mix64), and from these 32 for
// each pair (j, j + 64) of places, the lower 16 for the first and the upper 16 for the second. A
// pair's bits are the block's lower word xor a constant of the place, times the block's upper word
// made odd, folded. Since the multiplier is itself drawn, two places are as good as independent by
// construction (multiplicative universal hashing), where one multiplication by a fixed number would
// leave much to be seen; the xor keeps places from lying on lines. It takes one multiplication and
// three simple operations for two elements, and vector units do many at once.
struct BlockDraw {
  uint32_t start = 0;
  uint32_t factor = 1;  // odd
};
constexpr int kDrawBits = 16;
constexpr float kDrawUnits = 0x1p16f;

constexpr std::array<uint32_t, kCodecBlock / 2> DrawPlaces() {
  std::array<uint32_t, kCodecBlock / 2> places = {};
  for (size_t j = 0; j < places.size(); ++j) places[j] = static_cast<uint32_t>(Mix64(j));
  return places;
}
alignas(64) inline constexpr std::array<uint32_t, kCodecBlock / 2> kDrawPlaces = DrawPlaces();

inline BlockDraw DrawOf(uint64_t key, uint64_t block) {
  const uint64_t bits = Mix64(key + block * 0x9e3779b97f4a7c15ULL);
  return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32) | 1u};
}
inline uint32_t DrawPair(const BlockDraw& draw, uint32_t place) {
  const uint32_t x = (draw.start ^ kDrawPlaces[place]) * draw.factor;
  return x ^ (x >> 16);
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
