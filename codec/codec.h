// Codecs: fp32 numbers to fewer bytes and back, for what travels between peers.
//
//   Coding coding{Encoding::kInt8, Rounding::kStochastic, key};
//   Blob sent = EncodeBlob(activation, coding);            // straight into what becomes the frame
//   absl::StatusOr<Blob> got = DecodeBlob(sent);           // f32 again, of the same shape
//
// The formats, all little-endian, elements in order:
//
//   raw   the fp32 numbers themselves
//   fp16  IEEE binary16, rounded to nearest even; beyond 65519 infinite; NaN stays NaN
//   bf16  the upper half of fp32, rounded to nearest even
//   int8  blocks of 128 elements (the last may be shorter): an fp32 scale = the block's greatest
//         magnitude / 127, then a signed byte q for each element, which stands for q * scale
//   int4  the same with scale = greatest magnitude / 7 and half a byte for each element: byte j of
//         a block of m holds element j in its lower four bits and element j + ceil(m / 2) in its
//         upper ones, as two's complement
//
// Scales are fp32 and not fp16: gradients of a late stage in a long run leave fp16's range on
// either side, and they cost 2 bytes in 128 (25.8 % of fp32 instead of 25.4 %).
//
// Errors, int8 (levels 127) and int4 (levels 7), with a the block's greatest magnitude: nearest, at
// most 0.5001 * a / levels; stochastic, below 1.0001 * a / levels, and on the average below
// 2^-17 * a / levels, what fp32 itself rounds aside. A block whose greatest magnitude is below
// 2^-100 decodes to zeros, and negative zero to zero. A block that holds an infinity or a NaN
// decodes to NaN throughout, so that a step it belongs to is not finite, just as it would have been
// uncompressed.
//
// Stochastic rounding takes 16 drawn bits for each element, from the key and the element's number;
// which generator and why: kernels.h. Decoding needs no key.
//
// The same numbers, coding and key give the same bytes, and the same bytes the same numbers, on
// every machine: the vector versions are equal, bit for bit, to the plain loops.
//
// Pure functions; any thread; without LibTorch.
#ifndef STARLING_CODEC_CODEC_H_
#define STARLING_CODEC_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/base/blob.h"
#include "runtime/base/encoding.h"

namespace starling {

// Writes EncodedBytes(coding.encoding, values.size()) bytes to `out`, which may have any alignment
// and does not overlap `values`.
void Encode(const Coding& coding, absl::Span<const float> values, std::byte* out);

// The numbers that `size` bytes stand for, of any alignment; `values` does not overlap them.
//   invalid argument: `size` is not that of so many numbers; nothing is written.
absl::Status Decode(Encoding encoding, const std::byte* bytes, size_t size, int scale_exponent,
                    absl::Span<float> values);

// An f32 Blob that is not encoded, as one of the same shape that is. Itself, if coding is raw.
Blob EncodeBlob(const Blob& values, const Coding& coding);

// An f32 Blob, aligned to its elements. Itself, if it is not encoded and aligned.
//   invalid argument: not f32.
absl::StatusOr<Blob> DecodeBlob(const Blob& blob, int scale_exponent = 0);

}  // namespace starling

#endif  // STARLING_CODEC_CODEC_H_
