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

STARLING_AVX512_INLINE uint32_t Greatest(const __m512* x) {
  const __m512i magnitude = _mm512_set1_epi32(static_cast<int>(kMagnitudeBits));
  __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (size_t v = 0; v < kVectors; ++v) {
    most[v % 2] =
        _mm512_max_epi32(most[v % 2], _mm512_and_si512(_mm512_castps_si512(x[v]), magnitude));
  }
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(most[0], most[1])));
}

// DrawPair for 16 places.
STARLING_AVX512_INLINE __m512i Draw(const BlockDraw& draw, __m512i steps) {
  __m512i x = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(draw.start)), steps);
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int>(kDrawFirst)));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
  x = _mm512_add_epi32(x, _mm512_set1_epi32(static_cast<int>(draw.middle)));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int>(kDrawSecond)));
  return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

STARLING_AVX512_INLINE __m512i RoundDown(__m512 units, __m512i bits) {
  return _mm512_srai_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(units), bits), kDrawBits);
}

// The codes of a whole block, as 32-bit numbers.
template <bool kStochastic>
STARLING_AVX512_INLINE void Quantize(const __m512* x, float inverse, const uint64_t* key,
                                     uint64_t block, __m512i* codes) {
  const __m512 factor = _mm512_set1_ps(inverse);
  if constexpr (!kStochastic) {
    for (size_t v = 0; v < kVectors; ++v) {
      codes[v] = _mm512_cvtps_epi32(_mm512_mul_ps(x[v], factor));
    }
  } else {
    const BlockDraw draw = DrawOf(*key, block);
    const __m512 units = _mm512_set1_ps(inverse * kDrawUnits);
    const __m512i lower = _mm512_set1_epi32(0x7fff);
    const __m512i step = _mm512_set1_epi32(static_cast<int>(kDrawStep));
    const __m512i places = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i steps = _mm512_mullo_epi32(places, step);
    for (size_t v = 0; v < kVectors / 2; ++v) {
      const __m512i pairs = Draw(draw, steps);
      steps = _mm512_add_epi32(steps, _mm512_slli_epi32(step, 4));
      const size_t w = v + kVectors / 2;
      codes[v] = RoundDown(_mm512_mul_ps(x[v], units), _mm512_and_si512(pairs, lower));
      codes[w] = RoundDown(_mm512_mul_ps(x[w], units), _mm512_srli_epi32(pairs, 32 - kDrawBits));
    }
  }
}

// The scale's bytes and the codes of a whole block.
template <bool kStochastic>
STARLING_AVX512_INLINE void StartBlock(const float* values, float levels, const uint64_t* key,
                                       uint64_t block, std::byte* out, __m512i* codes) {
  __m512 x[kVectors];
  for (size_t v = 0; v < kVectors; ++v) x[v] = _mm512_loadu_ps(values + kLanes * v);
  const BlockScale scale = ScaleOf(Greatest(x), levels);
  std::memcpy(out, &scale.scale, kScaleBytes);
  if (__builtin_expect(scale.inverse == 0.0f, 0)) {
    for (size_t v = 0; v < kVectors; ++v) codes[v] = _mm512_setzero_si512();
  } else {
    Quantize<kStochastic>(x, scale.inverse, key, block, codes);
  }
}

template <bool kStochastic>
STARLING_AVX512_INLINE void EncodeInt8Blocks(const float* values, size_t blocks,
                                             const uint64_t* key, std::byte* out) {
  for (size_t block = 0; block < blocks; ++block) {
    __m512i codes[kVectors];
    StartBlock<kStochastic>(values, kInt8Levels, key, block, out, codes);
    for (size_t v = 0; v < kVectors; ++v) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kScaleBytes + kLanes * v),
                       _mm512_cvtepi32_epi8(codes[v]));
    }
    values += kCodecBlock;
    out += kInt8Bytes;
  }
}

STARLING_AVX512 void EncodeInt8(const float* values, size_t count, const uint64_t* key,
                                std::byte* out) {
  const size_t blocks = count / kCodecBlock;
  if (key == nullptr) {
    EncodeInt8Blocks<false>(values, blocks, key, out);
  } else {
    EncodeInt8Blocks<true>(values, blocks, key, out);
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

template <bool kStochastic>
STARLING_AVX512_INLINE void EncodeInt4Blocks(const float* values, size_t blocks,
                                             const uint64_t* key, std::byte* out) {
  const __m512i lower = _mm512_set1_epi32(15);
  for (size_t block = 0; block < blocks; ++block) {
    __m512i codes[kVectors];
    StartBlock<kStochastic>(values, kInt4Levels, key, block, out, codes);
    for (size_t v = 0; v < kVectors / 2; ++v) {
      const __m512i pairs = _mm512_or_si512(_mm512_and_si512(codes[v], lower),
                                            _mm512_slli_epi32(codes[v + kVectors / 2], 4));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kScaleBytes + kLanes * v),
                       _mm512_cvtepi32_epi8(pairs));
    }
    values += kCodecBlock;
    out += kInt4Bytes;
  }
}

STARLING_AVX512 void EncodeInt4(const float* values, size_t count, const uint64_t* key,
                                std::byte* out) {
  const size_t blocks = count / kCodecBlock;
  if (key == nullptr) {
    EncodeInt4Blocks<false>(values, blocks, key, out);
  } else {
    EncodeInt4Blocks<true>(values, blocks, key, out);
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
