// A Blob: shared immutable bytes with an element type and a shape. It is how tensors travel through
// everything that does not link LibTorch. Copying a Blob copies a pointer.
//
// The bytes of an f32 Blob may be encoded (encoding.h): dtype and shape then say what it decodes
// to, and only size_bytes() shows how much room it takes. codec/codec.h encodes and decodes;
// whoever looks at elements must have decoded first.
//
//   MutableBlob grad = MutableBlob::Uninitialized(DType::kF32, {4, 128});
//   ...fill grad.data()...
//   Blob sent = std::move(grad).Freeze();
//
// Thread safety: the bytes of a Blob never change, so it may be read from any thread.
#ifndef STARLING_RUNTIME_BASE_BLOB_H_
#define STARLING_RUNTIME_BASE_BLOB_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/base/check.h"
#include "runtime/base/encoding.h"

namespace starling {

enum class DType : uint8_t { kU8 = 0, kI32 = 1, kI64 = 2, kF32 = 3, kF16 = 4, kBF16 = 5 };

size_t SizeOf(DType dtype);                               // bytes per element
const char* ToString(DType dtype);                        // "u8", "f32", ...
int64_t ElementCount(const std::vector<int64_t>& shape);  // 1 for a scalar's empty shape

class Blob {
 public:
  Blob() = default;  // no bytes, shape [0]

  // `data` stays readable and unchanged as long as `owner` lives. Its size is that of the shape.
  Blob(std::shared_ptr<const void> owner, const void* data, DType dtype,
       std::vector<int64_t> shape);

  // f32 of `shape`, as EncodedBytes(encoding, elements) bytes.
  static Blob Encoded(std::shared_ptr<const void> owner, const void* data, Encoding encoding,
                      std::vector<int64_t> shape);

  static Blob CopyOf(const void* data, DType dtype, std::vector<int64_t> shape);
  static Blob OfFloats(const std::vector<float>& values);  // shape [n]
  static Blob OfString(const std::string& bytes);          // u8, shape [n]

  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  bool empty() const { return size_bytes_ == 0; }
  DType dtype() const { return dtype_; }
  Encoding encoding() const { return encoding_; }
  bool encoded() const { return encoding_ != Encoding::kRaw; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t element_count() const { return ElementCount(shape_); }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // The elements as `T`. Checks that they are not encoded, that the element size and the alignment
  // fit.
  template <typename T>
  absl::Span<const T> As() const {
    STARLING_CHECK(!encoded());
    STARLING_CHECK_EQ(sizeof(T), SizeOf(dtype_));
    STARLING_CHECK_EQ(reinterpret_cast<uintptr_t>(data_) % alignof(T), 0u);
    return absl::Span<const T>(reinterpret_cast<const T*>(data_), size_bytes_ / sizeof(T));
  }

  // Elements [begin, begin + count) as a flat Blob that shares the bytes. Not of an encoded one.
  Blob Slice(int64_t begin, int64_t count) const;
  // The same bytes under another shape of as many elements.
  Blob Reshaped(std::vector<int64_t> shape) const;
  std::string ToStringBytes() const;

 private:
  std::shared_ptr<const void> owner_;
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  DType dtype_ = DType::kU8;
  Encoding encoding_ = Encoding::kRaw;
  std::vector<int64_t> shape_{0};
};

// Bytes with one owner, still being written. 64-byte aligned.
class MutableBlob {
 public:
  static MutableBlob Uninitialized(DType dtype, std::vector<int64_t> shape);
  static MutableBlob Zeros(DType dtype, std::vector<int64_t> shape);
  // Room for f32 of `shape` in this encoding.
  static MutableBlob ForEncoded(Encoding encoding, std::vector<int64_t> shape);

  std::byte* data() { return static_cast<std::byte*>(bytes_.get()); }
  size_t size_bytes() const { return size_bytes_; }

  template <typename T>
  absl::Span<T> As() {
    STARLING_CHECK(encoding_ == Encoding::kRaw);
    STARLING_CHECK_EQ(sizeof(T), SizeOf(dtype_));
    return absl::Span<T>(static_cast<T*>(bytes_.get()), size_bytes_ / sizeof(T));
  }

  Blob Freeze() &&;

 private:
  std::shared_ptr<void> bytes_;
  size_t size_bytes_ = 0;
  DType dtype_ = DType::kU8;
  Encoding encoding_ = Encoding::kRaw;
  std::vector<int64_t> shape_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_BLOB_H_
