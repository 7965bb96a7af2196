// Compiled with -O3 -ffp-contract=off -fno-math-errno, whatever the build type.
#include "stages/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

// As many parameters, with their gradients and moments, are in cache still when they are hashed.
constexpr int64_t kCached = 16 << 10;

void UpdateRun(const UpdateScalars& scalars, float decay, int64_t count,
               const float* __restrict gradient, float* __restrict parameter,
               float* __restrict first, float* __restrict second) {
  const UpdateScalars s = scalars;
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * s.grad_scale;
    const float m = s.beta1 * first[i] + s.one_minus_beta1 * g;
    const float v = s.beta2 * second[i] + s.one_minus_beta2 * (g * g);
    const float denominator = std::sqrt(v) * s.inv_sqrt_bias2 + s.epsilon;
    const float decayed = parameter[i] * decay;
    first[i] = m;
    second[i] = v;
    parameter[i] = decayed - s.step_size * m / denominator;
  }
}

}  // namespace

absl::Status CheckGradientPieces(const StageLayout& layout, const std::vector<Blob>& gradient) {
  int64_t total = 0;
  for (const Blob& piece : gradient) {
    if (piece.dtype() != DType::kF32 && !piece.empty()) {
      return absl::InvalidArgumentError(std::string("a gradient piece is ") +
                                        ToString(piece.dtype()) + ", not f32");
    }
    if (reinterpret_cast<uintptr_t>(piece.data()) % alignof(float) != 0) {
      return absl::InvalidArgumentError("a gradient piece is not aligned to 4 bytes");
    }
    total += piece.element_count();
  }
  if (total != layout.size) {
    return absl::InvalidArgumentError("the gradient has " + std::to_string(total) +
                                      " elements, the stage has " + std::to_string(layout.size));
  }
  return absl::OkStatus();
}

absl::Status ApplyAdamW(const StageLayout& layout, const UpdateScalars& scalars,
                        const std::vector<Blob>& gradient, absl::Span<float> state) {
  const size_t size = static_cast<size_t>(layout.size);
  return ApplyAdamW(layout, scalars, gradient, state.subspan(0, size), state.subspan(size),
                    nullptr);
}

absl::Status ApplyAdamW(const StageLayout& layout, const UpdateScalars& scalars,
                        const std::vector<Blob>& gradient, absl::Span<float> parameters,
                        absl::Span<float> moments, Hasher128* hash) {
  STARLING_CHECK_EQ(static_cast<int64_t>(parameters.size()), layout.size);
  STARLING_CHECK_EQ(static_cast<int64_t>(moments.size()), (kStatePlanes - 1) * layout.size);
  STARLING_RETURN_IF_ERROR(CheckGradientPieces(layout, gradient));
  float* const first = moments.data();
  float* const second = first + layout.size;
  int64_t hashed = 0;  // floats of the parameters
  const auto hash_to = [&](int64_t end) {
    if (hash == nullptr) return;
    hash->Update(parameters.data() + hashed, static_cast<size_t>(end - hashed) * sizeof(float));
    hashed = end;
  };
  // Tensors and pieces are both in order of their offsets: walk them side by side.
  size_t piece = 0;
  int64_t piece_begin = 0;
  for (const TensorSpec& tensor : layout.tensors) {
    int64_t at = tensor.offset;
    const int64_t end = tensor.offset + tensor.count;
    while (at < end) {
      while (piece_begin + gradient[piece].element_count() <= at) {
        piece_begin += gradient[piece++].element_count();
      }
      const int64_t stop =
          std::min({end, piece_begin + gradient[piece].element_count(), at + kCached});
      UpdateRun(scalars, tensor.decay ? scalars.decay : 1.0f, stop - at,
                gradient[piece].As<float>().data() + (at - piece_begin), parameters.data() + at,
                first + at, second + at);
      hash_to(stop);
      at = stop;
    }
  }
  hash_to(layout.size);
  if (hash != nullptr) hash->Update(moments.data(), moments.size() * sizeof(float));
  return absl::OkStatus();
}

Hash128 OptimizerGoldenHash() {
  constexpr int64_t kRows = 61;
  constexpr int64_t kColumns = 17;
  StageLayout layout;
  for (bool decay : {true, false}) {
    TensorSpec tensor;
    tensor.name = decay ? "matrix" : "vector";
    tensor.shape = {kRows, kColumns};
    tensor.decay = decay;
    tensor.offset = layout.size;
    tensor.count = kRows * kColumns;
    layout.size += tensor.count;
    layout.tensors.push_back(tensor);
  }
  std::vector<float> state(static_cast<size_t>(kStatePlanes * layout.size), 0.0f);
  std::vector<float> gradient(static_cast<size_t>(layout.size));
  UpdateScalars scalars;
  scalars.grad_scale = 0.37f;
  scalars.step_size = 0.0031f;
  scalars.inv_sqrt_bias2 = 3.3f;
  scalars.decay = 0.9997f;
  // Mantissas times powers of two, from the smallest denormals to large values.
  uint64_t draws = 0;
  auto draw = [&draws](int lowest, uint64_t span) {
    const uint64_t bits = Mix64(draws++);
    const float mantissa = static_cast<float>(ToUnit(bits) - 0.5);
    return std::ldexp(mantissa, lowest + static_cast<int>(Mix64(bits) % span));
  };
  for (int64_t i = 0; i < layout.size; ++i) state[static_cast<size_t>(i)] = draw(-20, 24);
  for (int round = 0; round < 4; ++round) {
    for (float& g : gradient) g = Mix64(~draws) % 3 == 0 ? draw(-147, 40) : draw(-40, 50);
    const absl::Status applied =
        ApplyAdamW(layout, scalars, {Blob::OfFloats(gradient)}, absl::MakeSpan(state));
    STARLING_CHECK(applied.ok());
  }
  return HashBytes(state.data(), state.size() * sizeof(float));
}

const char* const kOptimizerGoldenHash = "95b3769b38d50ce3b1eff78647e2f349";

}  // namespace starling
