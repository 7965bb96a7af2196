// Plain loops for the two operators that LibTorch would take apart into many small ones, forward
// and backward, on host memory. Called from torch_ops.cc, which splits the rows over threads; no
// LibTorch in here. `T` is float or double.
#ifndef STARLING_STAGES_ROW_KERNELS_H_
#define STARLING_STAGES_ROW_KERNELS_H_

#include <cstdint>

namespace starling {

// RMSNorm of `rows` rows of `width`: out = x * inverse * weight, where inverse (one per row)
// becomes 1 / sqrt(mean(x^2) + epsilon).
template <typename T>
void RmsNormForward(int64_t rows, int64_t width, const T* x, const T* weight, T epsilon, T* out,
                    T* inverse);

// Writes the gradient of x, and adds the gradient of weight to `weight_gradient` [width].
template <typename T>
void RmsNormBackward(int64_t rows, int64_t width, const T* x, const T* weight, const T* inverse,
                     const T* gradient, T* x_gradient, T* weight_gradient);

// Rotates `rows` rows of `heads` heads of 2 * half elements: (a, b) becomes (a*cos - b*sin,
// b*cos + a*sin), with cos and sin of row `first_row + r` at ((first_row + r) % tokens) * half.
// With `direction` -1 it rotates back, which is the gradient.
template <typename T>
void RotateRows(int64_t first_row, int64_t rows, int64_t tokens, int64_t heads, int64_t half,
                const T* x, const T* cosine, const T* sine, T direction, T* out);

}  // namespace starling

#endif  // STARLING_STAGES_ROW_KERNELS_H_
