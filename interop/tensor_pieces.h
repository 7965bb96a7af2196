// Tensors handed on in pieces, as they are or transposed.
#ifndef STARLING_INTEROP_TENSOR_PIECES_H_
#define STARLING_INTEROP_TENSOR_PIECES_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "interop/tensor_files.h"
#include "runtime/base/status_macros.h"

namespace starling {

using AppendBytes = std::function<absl::Status(const void* data, size_t size)>;

// Appends columns [first, first + count) of `matrix`, [rows, columns] row by row, as the rows of
// f32 [count, rows].
inline absl::Status AppendTransposed(const std::vector<float>& matrix, int64_t rows,
                                     int64_t columns, int64_t first, int64_t count,
                                     const AppendBytes& append) {
  const int64_t block = std::max<int64_t>(1, std::min(count, kPieceElements / rows));
  std::vector<float> out(static_cast<size_t>(block * rows));
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t here = std::min(block, count - begin);
    for (int64_t row = 0; row < rows; ++row) {
      const float* const from = matrix.data() + row * columns + first + begin;
      for (int64_t i = 0; i < here; ++i) out[static_cast<size_t>(i * rows + row)] = from[i];
    }
    STARLING_RETURN_IF_ERROR(append(out.data(), static_cast<size_t>(here * rows) * sizeof(float)));
  }
  return absl::OkStatus();
}

// Appends elements [first, first + count) of the tensor `name`, as f32.
inline absl::Status AppendElements(const TensorFiles& files, const std::string& name, int64_t first,
                                   int64_t count, const AppendBytes& append) {
  std::vector<float> piece(static_cast<size_t>(std::min(count, kPieceElements)));
  for (int64_t done = 0; done < count;) {
    const int64_t here = std::min(count - done, kPieceElements);
    STARLING_RETURN_IF_ERROR(files.Read(name, first + done, here, piece.data()));
    STARLING_RETURN_IF_ERROR(append(piece.data(), static_cast<size_t>(here) * sizeof(float)));
    done += here;
  }
  return absl::OkStatus();
}

}  // namespace starling

#endif  // STARLING_INTEROP_TENSOR_PIECES_H_
