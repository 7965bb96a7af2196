#include "stages/initial_state.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/hash.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr uint64_t kDomain = 0x696e6974ULL;  // "init"
constexpr double kTwoPi = 6.283185307179586476925286766559;

// Box and Muller 1958: two uniform draws make two normal ones, for elements 2i and 2i + 1.
void FillNormal(uint64_t key, float std, float* values, int64_t count) {
  for (int64_t i = 0; i < count; i += 2) {
    const double u = 1.0 - ToUnit(MixAll(key, static_cast<uint64_t>(i)));  // (0, 1]
    const double angle = kTwoPi * ToUnit(MixAll(key, static_cast<uint64_t>(i + 1)));
    const double radius = static_cast<double>(std) * std::sqrt(-2.0 * std::log(u));
    values[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < count) values[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

}  // namespace

Blob InitialState(const StageLayout& layout, uint64_t seed) {
  MutableBlob state = MutableBlob::Zeros(DType::kF32, {kStatePlanes * layout.size});
  float* parameters = state.As<float>().data();
  for (const TensorSpec& tensor : layout.tensors) {
    float* values = parameters + tensor.offset;
    switch (tensor.init) {
      case InitKind::kZeros:
        break;
      case InitKind::kOnes:
        std::fill(values, values + tensor.count, 1.0f);
        break;
      case InitKind::kNormal: {
        const uint64_t name = HashBytes(tensor.name.data(), tensor.name.size()).low;
        FillNormal(MixAll(kDomain, seed, name), tensor.init_std, values, tensor.count);
        break;
      }
    }
  }
  return std::move(state).Freeze();
}

}  // namespace starling
