// Encodings of fp32 tensors, as numbers on the wire and sizes in bytes. What the bytes mean, and
// the code that makes them, is codec/codec.h's.
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

const char* ToString(Encoding encoding);  // "raw", "fp16", "bf16", "int8", "int4"

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_ENCODING_H_
