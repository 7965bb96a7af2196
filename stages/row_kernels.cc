#include "stages/row_kernels.h"

#include <cmath>

namespace starling {
namespace {

// Sums in lanes, so that the compiler may use vectors without reordering anything.
constexpr int64_t kLanes = 16;

template <typename T>
T SumLanes(const T* lanes) {
  T total = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) total += lanes[lane];
  return total;
}

template <typename T>
T SquareSum(int64_t count, const T* __restrict x) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  for (; i < count; ++i) lanes[0] += x[i] * x[i];
  return SumLanes(lanes);
}

template <typename T>
T ProductSum(int64_t count, const T* __restrict x, const T* __restrict y, const T* __restrict z) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += x[i + lane] * y[i + lane] * z[i + lane];
    }
  }
  for (; i < count; ++i) lanes[0] += x[i] * y[i] * z[i];
  return SumLanes(lanes);
}

}  // namespace

template <typename T>
void RmsNormForward(int64_t rows, int64_t width, const T* x, const T* weight, T epsilon, T* out,
                    T* inverse) {
  for (int64_t row = 0; row < rows; ++row) {
    const T* __restrict in = x + row * width;
    T* __restrict to = out + row * width;
    const T scale = T(1) / std::sqrt(SquareSum(width, in) / static_cast<T>(width) + epsilon);
    inverse[row] = scale;
    for (int64_t i = 0; i < width; ++i) to[i] = in[i] * scale * weight[i];
  }
}

template <typename T>
void RmsNormBackward(int64_t rows, int64_t width, const T* x, const T* weight, const T* inverse,
                     const T* gradient, T* x_gradient, T* weight_gradient) {
  T* __restrict weight_to = weight_gradient;
  for (int64_t row = 0; row < rows; ++row) {
    const T* __restrict in = x + row * width;
    const T* __restrict from = gradient + row * width;
    T* __restrict to = x_gradient + row * width;
    const T scale = inverse[row];
    const T along = ProductSum(width, in, from, weight) * scale * scale / static_cast<T>(width);
    for (int64_t i = 0; i < width; ++i) {
      to[i] = (from[i] * weight[i] - in[i] * along) * scale;
      weight_to[i] += from[i] * in[i] * scale;
    }
  }
}

template <typename T>
void RotateRows(int64_t first_row, int64_t rows, int64_t tokens, int64_t heads, int64_t half,
                const T* x, const T* cosine, const T* sine, T direction, T* out) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t place = (first_row + row) % tokens;
    const T* __restrict c = cosine + place * half;
    const T* __restrict s = sine + place * half;
    for (int64_t head = 0; head < heads; ++head) {
      const T* __restrict in = x + (row * heads + head) * 2 * half;
      T* __restrict to = out + (row * heads + head) * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const T turned = direction * s[i];
        to[i] = in[i] * c[i] - in[half + i] * turned;
        to[half + i] = in[half + i] * c[i] + in[i] * turned;
      }
    }
  }
}

template void RmsNormForward(int64_t, int64_t, const float*, const float*, float, float*, float*);
template void RmsNormForward(int64_t, int64_t, const double*, const double*, double, double*,
                             double*);
template void RmsNormBackward(int64_t, int64_t, const float*, const float*, const float*,
                              const float*, float*, float*);
template void RmsNormBackward(int64_t, int64_t, const double*, const double*, const double*,
                              const double*, double*, double*);
template void RotateRows(int64_t, int64_t, int64_t, int64_t, int64_t, const float*, const float*,
                         const float*, float, float*);
template void RotateRows(int64_t, int64_t, int64_t, int64_t, int64_t, const double*, const double*,
                         const double*, double, double*);

}  // namespace starling
