#include "runtime/base/blob.h"

#include <cstring>
#include <new>
#include <utility>

namespace starling {
namespace {

constexpr size_t kAlignment = 64;

std::shared_ptr<void> AllocateAligned(size_t bytes) {
  void* memory = ::operator new(bytes == 0 ? 1 : bytes, std::align_val_t(kAlignment));
  return std::shared_ptr<void>(memory,
                               [](void* p) { ::operator delete(p, std::align_val_t(kAlignment)); });
}

}  // namespace

size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return 1;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI32:
    case DType::kF32:
      return 4;
    case DType::kI64:
      return 8;
  }
  STARLING_CHECK_MSG(false, "unknown dtype");
  return 0;
}

const char* ToString(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return "u8";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
  }
  return "?";
}

int64_t ElementCount(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t extent : shape) count *= extent;
  return count;
}

Blob::Blob(std::shared_ptr<const void> owner, const void* data, DType dtype,
           std::vector<int64_t> shape)
    : owner_(std::move(owner)),
      data_(static_cast<const std::byte*>(data)),
      size_bytes_(static_cast<size_t>(ElementCount(shape)) * SizeOf(dtype)),
      dtype_(dtype),
      shape_(std::move(shape)) {}

Blob Blob::Encoded(std::shared_ptr<const void> owner, const void* data, Encoding encoding,
                   std::vector<int64_t> shape) {
  Blob blob(std::move(owner), data, DType::kF32, std::move(shape));
  blob.encoding_ = encoding;
  blob.size_bytes_ = EncodedBytes(encoding, static_cast<size_t>(blob.element_count()));
  return blob;
}

Blob Blob::CopyOf(const void* data, DType dtype, std::vector<int64_t> shape) {
  MutableBlob copy = MutableBlob::Uninitialized(dtype, std::move(shape));
  if (copy.size_bytes() > 0) std::memcpy(copy.data(), data, copy.size_bytes());
  return std::move(copy).Freeze();
}

Blob Blob::OfFloats(const std::vector<float>& values) {
  return CopyOf(values.data(), DType::kF32, {static_cast<int64_t>(values.size())});
}

Blob Blob::OfString(const std::string& bytes) {
  return CopyOf(bytes.data(), DType::kU8, {static_cast<int64_t>(bytes.size())});
}

Blob Blob::Slice(int64_t begin, int64_t count) const {
  STARLING_CHECK(!encoded());
  STARLING_CHECK_GE(begin, 0);
  STARLING_CHECK_GE(count, 0);
  STARLING_CHECK_LE(begin + count, element_count());
  return Blob(owner_, data_ + static_cast<size_t>(begin) * SizeOf(dtype_), dtype_, {count});
}

Blob Blob::Reshaped(std::vector<int64_t> shape) const {
  STARLING_CHECK_EQ(ElementCount(shape), element_count());
  Blob reshaped = *this;
  reshaped.shape_ = std::move(shape);
  return reshaped;
}

std::string Blob::ToStringBytes() const {
  return std::string(reinterpret_cast<const char*>(data_), size_bytes_);
}

MutableBlob MutableBlob::Uninitialized(DType dtype, std::vector<int64_t> shape) {
  MutableBlob blob;
  blob.size_bytes_ = static_cast<size_t>(ElementCount(shape)) * SizeOf(dtype);
  blob.bytes_ = AllocateAligned(blob.size_bytes_);
  blob.dtype_ = dtype;
  blob.shape_ = std::move(shape);
  return blob;
}

MutableBlob MutableBlob::Zeros(DType dtype, std::vector<int64_t> shape) {
  MutableBlob blob = Uninitialized(dtype, std::move(shape));
  std::memset(blob.data(), 0, blob.size_bytes());
  return blob;
}

MutableBlob MutableBlob::ForEncoded(Encoding encoding, std::vector<int64_t> shape) {
  MutableBlob blob;
  blob.size_bytes_ = EncodedBytes(encoding, static_cast<size_t>(ElementCount(shape)));
  blob.bytes_ = AllocateAligned(blob.size_bytes_);
  blob.dtype_ = DType::kF32;
  blob.encoding_ = encoding;
  blob.shape_ = std::move(shape);
  return blob;
}

Blob MutableBlob::Freeze() && {
  const void* data = bytes_.get();
  if (encoding_ != Encoding::kRaw) {
    return Blob::Encoded(std::move(bytes_), data, encoding_, std::move(shape_));
  }
  return Blob(std::move(bytes_), data, dtype_, std::move(shape_));
}

}  // namespace starling
