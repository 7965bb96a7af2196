#include "runtime/base/encoding.h"

#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr size_t kScaleBytes = 4;

size_t Blocks(size_t elements) { return (elements + kCodecBlock - 1) / kCodecBlock; }

}  // namespace

size_t EncodedBytes(Encoding encoding, size_t elements) {
  switch (encoding) {
    case Encoding::kRaw:
      return 4 * elements;
    case Encoding::kF16:
    case Encoding::kBF16:
      return 2 * elements;
    case Encoding::kInt8:
      return kScaleBytes * Blocks(elements) + elements;
    case Encoding::kInt4:
      return kScaleBytes * Blocks(elements) + (elements + 1) / 2;
  }
  STARLING_CHECK_MSG(false, "unknown encoding");
  return 0;
}

const char* ToString(Encoding encoding) {
  switch (encoding) {
    case Encoding::kRaw:
      return "raw";
    case Encoding::kF16:
      return "fp16";
    case Encoding::kBF16:
      return "bf16";
    case Encoding::kInt8:
      return "int8";
    case Encoding::kInt4:
      return "int4";
  }
  return "?";
}

}  // namespace starling
