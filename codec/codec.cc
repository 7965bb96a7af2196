#include "codec/codec.h"

#include <cstring>
#include <string>
#include <utility>

#include "codec/kernels.h"
#include "runtime/base/check.h"

namespace starling {
namespace {

float PowerOfTwo(int exponent) {
  STARLING_CHECK(exponent >= -126 && exponent <= 126);
  return codec::FloatOf(static_cast<uint32_t>(exponent + 127) << 23);
}

// Of as many bytes as the numbers take.
void DecodeAll(Encoding encoding, const std::byte* bytes, int scale_exponent,
               absl::Span<float> values) {
  const codec::Kernels& kernels = codec::BestKernels();
  const size_t count = values.size();
  switch (encoding) {
    case Encoding::kRaw:
      std::memcpy(values.data(), bytes, 4 * count);
      return;
    case Encoding::kF16:
      return kernels.decode_f16(bytes, count, PowerOfTwo(-scale_exponent), values.data());
    case Encoding::kBF16:
      return kernels.decode_bf16(bytes, count, PowerOfTwo(-scale_exponent), values.data());
    case Encoding::kInt8:
      return kernels.decode_int8(bytes, count, values.data());
    case Encoding::kInt4:
      return kernels.decode_int4(bytes, count, values.data());
  }
}

}  // namespace

void Encode(const Coding& coding, absl::Span<const float> values, std::byte* out) {
  if (values.empty()) return;
  const codec::Kernels& kernels = codec::BestKernels();
  const size_t count = values.size();
  const uint64_t* key = coding.rounding == Rounding::kStochastic ? &coding.key : nullptr;
  const float scale = PowerOfTwo(coding.scale_exponent);
  switch (coding.encoding) {
    case Encoding::kRaw:
      std::memcpy(out, values.data(), 4 * count);
      return;
    case Encoding::kF16:
      return kernels.encode_f16(values.data(), count, scale, out);
    case Encoding::kBF16:
      return kernels.encode_bf16(values.data(), count, scale, out);
    case Encoding::kInt8:
      return kernels.encode_int8(values.data(), count, key, out);
    case Encoding::kInt4:
      return kernels.encode_int4(values.data(), count, key, out);
  }
}

absl::Status Decode(Encoding encoding, const std::byte* bytes, size_t size, int scale_exponent,
                    absl::Span<float> values) {
  if (size != EncodedBytes(encoding, values.size())) {
    return absl::InvalidArgumentError(std::to_string(values.size()) + " numbers in " +
                                      ToString(encoding) + " are not " + std::to_string(size) +
                                      " bytes");
  }
  if (values.empty()) return absl::OkStatus();
  DecodeAll(encoding, bytes, scale_exponent, values);
  return absl::OkStatus();
}

Blob EncodeBlob(const Blob& values, const Coding& coding) {
  STARLING_CHECK(values.dtype() == DType::kF32 && !values.encoded());
  if (coding.encoding == Encoding::kRaw) return values;
  MutableBlob out = MutableBlob::ForEncoded(coding.encoding, values.shape());
  Encode(coding, values.As<float>(), out.data());
  return std::move(out).Freeze();
}

absl::StatusOr<Blob> DecodeBlob(const Blob& blob, int scale_exponent) {
  if (blob.dtype() != DType::kF32) {
    return absl::InvalidArgumentError(std::string("a tensor of ") + ToString(blob.dtype()) +
                                      " where f32 belongs");
  }
  const bool aligned = reinterpret_cast<uintptr_t>(blob.data()) % alignof(float) == 0;
  if (!blob.encoded() && aligned) return blob;
  MutableBlob out = MutableBlob::Uninitialized(DType::kF32, blob.shape());
  const absl::Status status = Decode(blob.encoding(), blob.data(), blob.size_bytes(),
                                     blob.encoded() ? scale_exponent : 0, out.As<float>());
  if (!status.ok()) return status;
  return std::move(out).Freeze();
}

}  // namespace starling
