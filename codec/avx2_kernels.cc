#include "codec/kernels.h"
#include "runtime/base/encoding.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

// Of every function here: also for those that are inlined into each other.
#define STARLING_AVX2 __attribute__((target("avx2,f16c")))
#define STARLING_AVX2_INLINE STARLING_AVX2 __attribute__((always_inline)) inline

namespace starling::codec {
namespace {

constexpr size_t kLanes = 8;
constexpr size_t kVectors = kCodecBlock / kLanes;

STARLING_AVX2_INLINE __m128i Load128(const std::byte* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}
STARLING_AVX2_INLINE void Store128(std::byte* bytes, __m128i value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), value);
}

// --- 16 bits ---------------------------------------------------------------------------

STARLING_AVX2 void EncodeF16(const float* values, size_t count, float scale, std::byte* out) {
  const __m256 factor = _mm256_set1_ps(scale);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(values + i), factor);
    Store128(out + 2 * i, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  PlainKernels().encode_f16(values + i, count - i, scale, out + 2 * i);
}

STARLING_AVX2 void DecodeF16(const std::byte* bytes, size_t count, float scale, float* values) {
  const __m256 factor = _mm256_set1_ps(scale);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    _mm256_storeu_ps(values + i, _mm256_mul_ps(_mm256_cvtph_ps(Load128(bytes + 2 * i)), factor));
  }
  PlainKernels().decode_f16(bytes + 2 * i, count - i, scale, values + i);
}

STARLING_AVX2 void EncodeBF16(const float* values, size_t count, float scale, std::byte* out) {
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256i one = _mm256_set1_epi32(1);
  const __m256i below_half = _mm256_set1_epi32(0x7fff);
  const __m256i quiet = _mm256_set1_epi32(0x40);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(values + i), factor);
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i upper = _mm256_srli_epi32(bits, 16);
    const __m256i up = _mm256_add_epi32(_mm256_and_si256(upper, one), below_half);
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i halves = _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, quiet), nan);
    Store128(out + 2 * i,
             _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
  }
  PlainKernels().encode_bf16(values + i, count - i, scale, out + 2 * i);
}

STARLING_AVX2 void DecodeBF16(const std::byte* bytes, size_t count, float scale, float* values) {
  const __m256 factor = _mm256_set1_ps(scale);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(Load128(bytes + 2 * i)), 16);
    _mm256_storeu_ps(values + i, _mm256_mul_ps(_mm256_castsi256_ps(bits), factor));
  }
  PlainKernels().decode_bf16(bytes + 2 * i, count - i, scale, values + i);
}

// --- blocks ----------------------------------------------------------------------------

STARLING_AVX2_INLINE uint32_t Greatest(const float* values) {
  const __m256i magnitude = _mm256_set1_epi32(static_cast<int>(kMagnitudeBits));
  __m256i most[4];
  for (__m256i& part : most) part = _mm256_setzero_si256();
  for (size_t v = 0; v < kVectors; ++v) {
    const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(values + kLanes * v));
    most[v % 4] = _mm256_max_epi32(most[v % 4], _mm256_and_si256(bits, magnitude));
  }
  const __m256i all =
      _mm256_max_epi32(_mm256_max_epi32(most[0], most[1]), _mm256_max_epi32(most[2], most[3]));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
}

// The lower and the upper 16 bits of DrawPair for 8 places.
struct Bits {
  __m256i lower;
  __m256i upper;
};
STARLING_AVX2_INLINE Bits Draw(__m256i start, __m256i factor, const uint32_t* places) {
  const __m256i place = _mm256_load_si256(reinterpret_cast<const __m256i*>(places));
  const __m256i x = _mm256_mullo_epi32(_mm256_xor_si256(start, place), factor);
  const __m256i upper = _mm256_srli_epi32(x, 16);
  return {_mm256_and_si256(_mm256_xor_si256(x, upper), _mm256_set1_epi32(0xffff)), upper};
}

STARLING_AVX2_INLINE __m256i RoundDown(__m256i units, __m256i bits) {
  return _mm256_srai_epi32(_mm256_add_epi32(units, bits), kDrawBits);
}

STARLING_AVX2_INLINE __m256i Nearest(const float* values, __m256 factor) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(values), factor));
}

// 32 numbers within a byte's signed range; InOrder() mends their order.
STARLING_AVX2_INLINE __m256i PackBytes(const __m256i* numbers) {
  return _mm256_packs_epi16(_mm256_packs_epi32(numbers[0], numbers[1]),
                            _mm256_packs_epi32(numbers[2], numbers[3]));
}
STARLING_AVX2_INLINE __m256i InOrder(__m256i codes) {
  return _mm256_permutevar8x32_epi32(codes, _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0));
}

// The codes of a whole block, 32 at a time, in the order of PackBytes.
constexpr size_t kQuarters = 4;
template <bool kStochastic>
STARLING_AVX2_INLINE void Quantize(const float* values, float inverse, const uint64_t* key,
                                   uint64_t block, __m256i* codes) {
  if constexpr (!kStochastic) {
    const __m256 factor = _mm256_set1_ps(inverse);
    for (size_t q = 0; q < kQuarters; ++q) {
      __m256i numbers[4];
      for (size_t i = 0; i < 4; ++i) numbers[i] = Nearest(values + kLanes * (4 * q + i), factor);
      codes[q] = PackBytes(numbers);
    }
  } else {
    static_assert(kDrawBits == 16);
    const BlockDraw draw = DrawOf(*key, block);
    const __m256i start = _mm256_set1_epi32(static_cast<int>(draw.start));
    const __m256i factor = _mm256_set1_epi32(static_cast<int>(draw.factor));
    const __m256 units = _mm256_set1_ps(inverse * kDrawUnits);
    for (size_t q = 0; q < kQuarters / 2; ++q) {
      __m256i first[4];
      __m256i second[4];
      for (size_t i = 0; i < 4; ++i) {
        const size_t v = 4 * q + i;
        const Bits bits = Draw(start, factor, kDrawPlaces.data() + kLanes * v);
        first[i] = RoundDown(Nearest(values + kLanes * v, units), bits.lower);
        second[i] = RoundDown(Nearest(values + kLanes * (v + kVectors / 2), units), bits.upper);
      }
      codes[q] = PackBytes(first);
      codes[q + kQuarters / 2] = PackBytes(second);
    }
  }
}

// All whole blocks: their scales, and kPut with the codes and where they belong. Scales are found
// for some blocks at once: each takes long, but keeps few units busy.
constexpr size_t kScales = 16;
template <bool kStochastic, size_t kBlockBytes, void (*kPut)(const __m256i*, std::byte*)>
STARLING_AVX2_INLINE void EncodeBlocks(const float* values, size_t blocks, float levels,
                                       const uint64_t* key, std::byte* out) {
  BlockScale scales[kScales];
  for (size_t block = 0; block < blocks; ++block) {
    if (block % kScales == 0) {
      const size_t count = blocks - block < kScales ? blocks - block : kScales;
      for (size_t i = 0; i < count; ++i) {
        scales[i] = ScaleOf(Greatest(values + kCodecBlock * i), levels);
      }
    }
    const BlockScale& scale = scales[block % kScales];
    std::memcpy(out, &scale.scale, kScaleBytes);
    __m256i codes[kQuarters];
    for (__m256i& quarter : codes) quarter = _mm256_setzero_si256();
    if (__builtin_expect(scale.inverse != 0.0f, 1)) {
      Quantize<kStochastic>(values, scale.inverse, key, block, codes);
    }
    kPut(codes, out + kScaleBytes);
    values += kCodecBlock;
    out += kBlockBytes;
  }
}

STARLING_AVX2_INLINE void Store256(std::byte* out, __m256i codes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), InOrder(codes));
}

STARLING_AVX2_INLINE void PutInt8(const __m256i* codes, std::byte* out) {
  for (size_t q = 0; q < kQuarters; ++q) Store256(out + 4 * kLanes * q, codes[q]);
}

STARLING_AVX2 void EncodeInt8(const float* values, size_t count, const uint64_t* key,
                              std::byte* out) {
  const size_t blocks = count / kCodecBlock;
  if (key == nullptr) {
    EncodeBlocks<false, kInt8Bytes, PutInt8>(values, blocks, kInt8Levels, key, out);
  } else {
    EncodeBlocks<true, kInt8Bytes, PutInt8>(values, blocks, kInt8Levels, key, out);
  }
  const size_t rest = count % kCodecBlock;
  if (rest > 0) {
    EncodeInt8Block(values + count - rest, rest, key, blocks, out + blocks * kInt8Bytes);
  }
}

STARLING_AVX2 void DecodeInt8(const std::byte* bytes, size_t count, float* values) {
  const size_t blocks = count / kCodecBlock;
  for (size_t block = 0; block < blocks; ++block) {
    float scale;
    std::memcpy(&scale, bytes, kScaleBytes);
    if (__builtin_expect(FiniteBits(BitsOf(scale)), 1)) {
      const __m256 factor = _mm256_set1_ps(scale);
      for (size_t v = 0; v < kVectors; ++v) {
        const __m256i codes = _mm256_cvtepi8_epi32(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + kScaleBytes + kLanes * v)));
        _mm256_storeu_ps(values + kLanes * v, _mm256_mul_ps(_mm256_cvtepi32_ps(codes), factor));
      }
    } else {
      DecodeInt8Block(bytes, kCodecBlock, values);
    }
    bytes += kInt8Bytes;
    values += kCodecBlock;
  }
  if (count % kCodecBlock > 0) DecodeInt8Block(bytes, count % kCodecBlock, values);
}

STARLING_AVX2_INLINE void PutInt4(const __m256i* codes, std::byte* out) {
  const __m256i lower = _mm256_set1_epi8(15);
  for (size_t q = 0; q < kQuarters / 2; ++q) {
    const __m256i first = _mm256_and_si256(codes[q], lower);
    const __m256i second = _mm256_and_si256(codes[q + kQuarters / 2], lower);
    Store256(out + 4 * kLanes * q, _mm256_or_si256(first, _mm256_slli_epi16(second, 4)));
  }
}

STARLING_AVX2 void EncodeInt4(const float* values, size_t count, const uint64_t* key,
                              std::byte* out) {
  const size_t blocks = count / kCodecBlock;
  if (key == nullptr) {
    EncodeBlocks<false, kInt4Bytes, PutInt4>(values, blocks, kInt4Levels, key, out);
  } else {
    EncodeBlocks<true, kInt4Bytes, PutInt4>(values, blocks, kInt4Levels, key, out);
  }
  const size_t rest = count % kCodecBlock;
  if (rest > 0) {
    EncodeInt4Block(values + count - rest, rest, key, blocks, out + blocks * kInt4Bytes);
  }
}

// Eight codes, in the lower four bits of 16 or 8 bytes in a row, as numbers.
STARLING_AVX2_INLINE __m256 Scaled(__m128i codes, __m256 factor) {
  return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), factor);
}

STARLING_AVX2_INLINE void DecodeInt4Half(__m128i nibbles, __m256 factor, float* values) {
  const __m128i signs = _mm_set1_epi8(8);
  const __m128i codes = _mm_sub_epi8(_mm_xor_si128(nibbles, signs), signs);
  _mm256_storeu_ps(values, Scaled(codes, factor));
  _mm256_storeu_ps(values + kLanes, Scaled(_mm_srli_si128(codes, 8), factor));
}

STARLING_AVX2 void DecodeInt4(const std::byte* bytes, size_t count, float* values) {
  const __m128i lower = _mm_set1_epi8(15);
  const size_t blocks = count / kCodecBlock;
  for (size_t block = 0; block < blocks; ++block) {
    float scale;
    std::memcpy(&scale, bytes, kScaleBytes);
    if (__builtin_expect(FiniteBits(BitsOf(scale)), 1)) {
      const __m256 factor = _mm256_set1_ps(scale);
      for (size_t j = 0; j < kCodecBlock / 2; j += 2 * kLanes) {
        const __m128i pairs = Load128(bytes + kScaleBytes + j);
        DecodeInt4Half(_mm_and_si128(pairs, lower), factor, values + j);
        DecodeInt4Half(_mm_and_si128(_mm_srli_epi16(pairs, 4), lower), factor,
                       values + kCodecBlock / 2 + j);
      }
    } else {
      DecodeInt4Block(bytes, kCodecBlock, values);
    }
    bytes += kInt4Bytes;
    values += kCodecBlock;
  }
  if (count % kCodecBlock > 0) DecodeInt4Block(bytes, count % kCodecBlock, values);
}

// No name for it in __builtin_cpu_supports() of clang 14.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

const Kernels* Avx2Kernels() {
  static constexpr Kernels kKernels = {"avx2",     EncodeF16,  DecodeF16,  EncodeBF16, DecodeBF16,
                                       EncodeInt8, DecodeInt8, EncodeInt4, DecodeInt4};
  static const bool runs = __builtin_cpu_supports("avx2") && HasF16c();
  return runs ? &kKernels : nullptr;
}

}  // namespace starling::codec

#else

namespace starling::codec {
const Kernels* Avx2Kernels() { return nullptr; }
}  // namespace starling::codec

#endif
