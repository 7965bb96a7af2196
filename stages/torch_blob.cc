#include "stages/torch_blob.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <memory>
#include <new>
#include <utility>

#include "runtime/base/check.h"

namespace starling {

at::Tensor TensorOver(const Blob& blob) {
  STARLING_CHECK(!blob.encoded());
  STARLING_CHECK(blob.dtype() == DType::kF32 || blob.dtype() == DType::kI32 ||
                 blob.dtype() == DType::kU8);
  if (reinterpret_cast<uintptr_t>(blob.data()) % SizeOf(blob.dtype()) != 0) {
    return TensorOver(Blob::CopyOf(blob.data(), blob.dtype(), blob.shape()));
  }
  const at::ScalarType type = blob.dtype() == DType::kF32   ? at::kFloat
                              : blob.dtype() == DType::kI32 ? at::kInt
                                                            : at::kByte;
  return at::from_blob(
      const_cast<std::byte*>(blob.data()), blob.shape(), [blob](void*) {},
      at::TensorOptions().dtype(type));
}

Blob BlobOver(const at::Tensor& tensor) {
  STARLING_CHECK(tensor.scalar_type() == at::kFloat);
  auto owner = std::make_shared<at::Tensor>(tensor.detach().cpu().contiguous());
  const void* data = owner->data_ptr();
  std::vector<int64_t> shape = owner->sizes().vec();
  return Blob(std::move(owner), data, DType::kF32, std::move(shape));
}

absl::Status StatusOf(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return absl::ResourceExhaustedError("out of memory");
  }
  std::string message = error.what();
  if (const auto* torch_error = dynamic_cast<const c10::Error*>(&error)) {
    message = torch_error->what_without_backtrace();
  }
  if (message.find("can't allocate memory") != std::string::npos ||
      message.find("out of memory") != std::string::npos) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

}  // namespace starling
