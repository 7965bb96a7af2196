// Between tensors and Blobs without a copy where possible, and from LibTorch's exceptions to
// Status. For files that see LibTorch only.
#ifndef STARLING_STAGES_TORCH_BLOB_H_
#define STARLING_STAGES_TORCH_BLOB_H_

#include <ATen/core/Tensor.h>

#include <exception>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/blob.h"

namespace starling {

// A host tensor over the Blob's bytes, which it keeps alive and which must not be written to.
// Copies if the elements are not aligned. i32, u8 and f32 only.
at::Tensor TensorOver(const Blob& blob);

// The tensor's elements as a Blob, which keeps them alive; the caller must not change them
// afterwards. Copies if the tensor is not contiguous or not on the host. fp32 only.
Blob BlobOver(const at::Tensor& tensor);

// Out of memory is resource exhausted, all else internal.
absl::Status StatusOf(const std::exception& error);

// `function()` gives a Status or StatusOr; what it throws becomes one.
template <typename Function>
std::invoke_result_t<Function> CatchTorch(Function function) {
  try {
    return function();
  } catch (const std::exception& error) {
    return StatusOf(error);
  }
}

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_BLOB_H_
