#include "codec/kernels.h"
#include "runtime/base/encoding.h"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// Of g++ 12's own intrinsics, which begin with undefined registers on purpose (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

// Of every function here: also for those that are inlined into each other.
#define STARLING_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,f16c")))
#define STARLING_AVX512_INLINE STARLING_AVX512 __attribute__((always_inline)) inline

namespace starling::codec {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kVectors = kCodecBlock / kLanes;  // a block is held in registers

// --- 16 bits ---------------------------------------------------------------------------

STARLING_AVX512 void EncodeF16(const float* values, size_t count, float scale, std::byte* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(values + i), factor);
    const __m256i halves = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * i), halves);
  }
  PlainKernels().encode_f16(values + i, count - i, scale, out + 2 * i);
}

STARLING_AVX512 void DecodeF16(const std::byte* bytes, size_t count, float scale, float* values) {
  const __m512 factor = _mm512_set1_ps(scale);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 2 * i));
    _mm512_storeu_ps(values + i, _mm512_mul_ps(_mm512_cvtph_ps(halves), factor));
  }
  PlainKernels().decode_f16(bytes + 2 * i, count - i, scale, values + i);
}

STARLING_AVX512 void EncodeBF16(const float* values, size_t count, float scale, std::byte* out) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __m512i one = _mm512_set1_epi32(1);
  const __m512i below_half = _mm512_set1_epi32(0x7fff);
  const __m512i quiet = _mm512_set1_epi32(0x40);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(values + i), factor);
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i upper = _mm512_srli_epi32(bits, 16);
    const __m512i up = _mm512_add_epi32(_mm512_and_si512(upper, one), below_half);
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, up), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i halves = _mm512_mask_or_epi32(rounded, nan, upper, quiet);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * i), _mm512_cvtepi32_epi16(halves));
  }
  PlainKernels().encode_bf16(values + i, count - i, scale, out + 2 * i);
}

STARLING_AVX512 void DecodeBF16(const std::byte* bytes, size_t count, float scale, float* values) {
  const __m512 factor = _mm512_set1_ps(scale);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 2 * i));
    const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    _mm512_storeu_ps(values + i, _mm512_mul_ps(_mm512_castsi512_ps(bits), factor));
  }
  PlainKernels().decode_bf16(bytes + 2 * i, count - i, scale, values + i);
}

// --- blocks ----------------------------------------------------------------------------

STARLING_AVX512_INLINE uint32_t Greatest(const float* values) {
  const __m512i magnitude = _mm512_set1_epi32(static_cast<int>(kMagnitudeBits));
  __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (size_t v = 0; v < kVectors; ++v) {
    const __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(values + kLanes * v));
    most[v % 2] = _mm512_max_epi32(most[v % 2], _mm512_and_si512(bits, magnitude));
  }
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(most[0], most[1])));
}

STARLING_AVX512_INLINE __m512i Nearest(const float* values, __m512 factor) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values), factor));
}

// The lower and the upper 16 bits of DrawPair for 16 places.
struct Bits {
  __m512i lower;
  __m512i upper;
};
STARLING_AVX512_INLINE Bits Draw(__m512i start, __m512i factor, const uint32_t* places) {
  const __m512i x = _mm512_mullo_epi32(_mm512_xor_si512(start, _mm512_load_si512(places)), factor);
  const __m512i upper = _mm512_srli_epi32(x, 16);
  // (x ^ upper) & 0xffff
  return {_mm512_ternarylogic_epi32(x, upper, _mm512_set1_epi32(0xffff), 0x28), upper};
}

// The upper halves of 32 numbers, in the order that _mm512_packs_epi32 has.
STARLING_AVX512_INLINE __m512i UpperHalves(__m512i first, __m512i second) {
  const __m512i from = _mm512_set_epi32(0x3f003d, 0x3b0039, 0x1f001d, 0x1b0019, 0x370035, 0x330031,
                                        0x170015, 0x130011, 0x2f002d, 0x2b0029, 0xf000d, 0xb0009,
                                        0x270025, 0x230021, 0x70005, 0x30001);
  return _mm512_permutex2var_epi16(first, from, second);
}

// The codes of a whole block, as 64 bytes each of its first and second half, in the order of
// _mm512_packs_epi32 and _mm512_packs_epi16; InOrder() mends it.
template <bool kStochastic>
STARLING_AVX512_INLINE void Quantize(const float* values, float inverse, const uint64_t* key,
                                     uint64_t block, __m512i* codes) {
  constexpr size_t kHalf = kVectors / 2;
  __m512i words[kHalf];
  if constexpr (!kStochastic) {
    const __m512 factor = _mm512_set1_ps(inverse);
    for (size_t w = 0; w < kHalf; ++w) {
      words[w] = _mm512_packs_epi32(Nearest(values + kLanes * 2 * w, factor),
                                    Nearest(values + kLanes * (2 * w + 1), factor));
    }
  } else {
    static_assert(kDrawBits == 16);
    const BlockDraw draw = DrawOf(*key, block);
    const __m512i start = _mm512_set1_epi32(static_cast<int>(draw.start));
    const __m512i factor = _mm512_set1_epi32(static_cast<int>(draw.factor));
    const __m512 units = _mm512_set1_ps(inverse * kDrawUnits);
    __m512i sums[kVectors];
    for (size_t v = 0; v < kHalf; ++v) {
      const Bits bits = Draw(start, factor, kDrawPlaces.data() + kLanes * v);
      const size_t w = v + kHalf;
      sums[v] = _mm512_add_epi32(Nearest(values + kLanes * v, units), bits.lower);
      sums[w] = _mm512_add_epi32(Nearest(values + kLanes * w, units), bits.upper);
    }
    for (size_t w = 0; w < kHalf; ++w) words[w] = UpperHalves(sums[2 * w], sums[2 * w + 1]);
  }
  codes[0] = _mm512_packs_epi16(words[0], words[1]);
  codes[1] = _mm512_packs_epi16(words[2], words[3]);
}

STARLING_AVX512_INLINE __m512i InOrder(__m512i codes) {
  return _mm512_permutexvar_epi32(
      _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), codes);
}

// All whole blocks: their scales, and kPut with the codes and where they belong. Scales are found
// for some blocks at once: each takes long, but keeps few units busy.
constexpr size_t kScales = 16;
template <bool kStochastic, size_t kBlockBytes, void (*kPut)(const __m512i*, std::byte*)>
STARLING_AVX512_INLINE void EncodeBlocks(const float* values, size_t blocks, float levels,
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
    __m512i codes[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (__builtin_expect(scale.inverse != 0.0f, 1)) {
      Quantize<kStochastic>(values, scale.inverse, key, block, codes);
    }
    kPut(codes, out + kScaleBytes);
    values += kCodecBlock;
    out += kBlockBytes;
  }
}

STARLING_AVX512_INLINE void PutInt8(const __m512i* codes, std::byte* out) {
  _mm512_storeu_si512(out, InOrder(codes[0]));
  _mm512_storeu_si512(out + kCodecBlock / 2, InOrder(codes[1]));
}

STARLING_AVX512 void EncodeInt8(const float* values, size_t count, const uint64_t* key,
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

STARLING_AVX512 void DecodeInt8(const std::byte* bytes, size_t count, float* values) {
  const size_t blocks = count / kCodecBlock;
  for (size_t block = 0; block < blocks; ++block) {
    float scale;
    std::memcpy(&scale, bytes, kScaleBytes);
    if (__builtin_expect(FiniteBits(BitsOf(scale)), 1)) {
      const __m512 factor = _mm512_set1_ps(scale);
      for (size_t v = 0; v < kVectors; ++v) {
        const __m512i codes = _mm512_cvtepi8_epi32(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + kScaleBytes + kLanes * v)));
        _mm512_storeu_ps(values + kLanes * v, _mm512_mul_ps(_mm512_cvtepi32_ps(codes), factor));
      }
    } else {
      DecodeInt8Block(bytes, kCodecBlock, values);
    }
    bytes += kInt8Bytes;
    values += kCodecBlock;
  }
  if (count % kCodecBlock > 0) DecodeInt8Block(bytes, count % kCodecBlock, values);
}

STARLING_AVX512_INLINE void PutInt4(const __m512i* codes, std::byte* out) {
  // Of each byte the lower four bits from the first half, the others from the second.
  const __m512i lower = _mm512_set1_epi8(15);
  const __m512i second = _mm512_slli_epi16(codes[1], 4);
  _mm512_storeu_si512(out, InOrder(_mm512_ternarylogic_epi32(lower, codes[0], second, 0xca)));
}

STARLING_AVX512 void EncodeInt4(const float* values, size_t count, const uint64_t* key,
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

STARLING_AVX512 void DecodeInt4(const std::byte* bytes, size_t count, float* values) {
  const __m512 whole = _mm512_set_ps(-1, -2, -3, -4, -5, -6, -7, -8, 7, 6, 5, 4, 3, 2, 1, 0);
  const size_t blocks = count / kCodecBlock;
  for (size_t block = 0; block < blocks; ++block) {
    float scale;
    std::memcpy(&scale, bytes, kScaleBytes);
    if (__builtin_expect(FiniteBits(BitsOf(scale)), 1)) {
      // What each code stands for; the lookup reads the lower four bits of its index.
      const __m512 table = _mm512_mul_ps(whole, _mm512_set1_ps(scale));
      for (size_t v = 0; v < kVectors / 2; ++v) {
        const __m512i pairs = _mm512_cvtepu8_epi32(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + kScaleBytes + kLanes * v)));
        _mm512_storeu_ps(values + kLanes * v, _mm512_permutexvar_ps(pairs, table));
        _mm512_storeu_ps(values + kCodecBlock / 2 + kLanes * v,
                         _mm512_permutexvar_ps(_mm512_srli_epi32(pairs, 4), table));
      }
    } else {
      DecodeInt4Block(bytes, kCodecBlock, values);
    }
    bytes += kInt4Bytes;
    values += kCodecBlock;
  }
  if (count % kCodecBlock > 0) DecodeInt4Block(bytes, count % kCodecBlock, values);
}

}  // namespace

const Kernels* Avx512Kernels() {
  static constexpr Kernels kKernels = {"avx512",   EncodeF16,  DecodeF16,  EncodeBF16, DecodeBF16,
                                       EncodeInt8, DecodeInt8, EncodeInt4, DecodeInt4};
  static const bool runs = __builtin_cpu_supports("avx512f") &&
                           __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl") && Avx2Kernels() != nullptr;
  return runs ? &kKernels : nullptr;
}

}  // namespace starling::codec

#else

namespace starling::codec {
const Kernels* Avx512Kernels() { return nullptr; }
}  // namespace starling::codec

#endif
