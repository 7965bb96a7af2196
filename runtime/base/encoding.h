// Encodings of fp32 tensors: their numbers on the wire, their sizes, and how one is asked for. What
// the bytes mean, and the code that makes them, is codec/codec.h's.
#ifndef STARLING_RUNTIME_BASE_ENCODING_H_
#define STARLING_RUNTIME_BASE_ENCODING_H_

#include <cstddef>
#include <cstdint>

namespace starling {

enum class Encoding : uint8_t { kRaw = 0, kF16 = 1, kBF16 = 2, kInt8 = 3, kInt4 = 4 };
constexpr Encoding kLastEncoding = Encoding::kInt4;

// Elements that share a scale in kInt8 and kInt4. Part of the formats.
constexpr size_t kCodecBlock = 128;

// Bytes of `elements` fp32 numbers: 4, 2 or 2 for each; in kInt8 and kInt4, for each block, 4 bytes
// of scale and 1 or 1/2 byte for each element, rounded up. `elements` at most 2^60.
size_t EncodedBytes(Encoding encoding, size_t elements);

// Of int8 and int4. Stochastic: up with the probability of the fraction, drawn from the key, the
// place of the block and the place in the block (counter-based, as dropout's masks are).
enum class Rounding : uint8_t { kNearest = 0, kStochastic = 1 };

struct Coding {
  Encoding encoding = Encoding::kRaw;
  Rounding rounding = Rounding::kNearest;
  uint64_t key = 0;  // of stochastic rounding
  // fp16 and bf16: numbers are multiplied by 2^scale_exponent before they are rounded, and divided
  // by it when they are decoded, by who must know it. -126 to 126; others: 0.
  int scale_exponent = 0;
};

const char* ToString(Encoding encoding);  // "raw", "fp16", "bf16", "int8", "int4"

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_ENCODING_H_
