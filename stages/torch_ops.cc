#include "stages/torch_ops.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/api/include/torch/version.h>

#include <cmath>
#include <tuple>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/scaled_dot_product_attention.h>
#else
#include <ATen/ops/_scaled_dot_product_attention.h>
#endif

namespace starling {
namespace {

// [n, T, kv_heads, D] -> [n, heads, T, D], each key/value head repeated for its group of queries.
at::Tensor HeadsFirst(const at::Tensor& x, int64_t heads) {
  const at::Tensor first = x.transpose(1, 2);
  const int64_t groups = heads / x.size(2);
  if (groups == 1) return first;
  return first.unsqueeze(2)
      .expand({x.size(0), x.size(2), groups, x.size(1), x.size(3)})
      .reshape({x.size(0), heads, x.size(1), x.size(3)});
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor scale = at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon);
  return x * scale * weight;
}

at::Tensor SwiGlu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor a = x.narrow(-1, 0, half);
  const at::Tensor b = x.narrow(-1, half, half);
  return at::cat({a * cosine - b * sine, b * cosine + a * sine}, -1);
}

at::Tensor CausalAttentionPlain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& mask) {
  const int64_t n = q.size(0), tokens = q.size(1), heads = q.size(2), width = q.size(3);
  const at::Tensor queries = HeadsFirst(q, heads).reshape({n * heads, tokens, width});
  const at::Tensor keys = HeadsFirst(k, heads).reshape({n * heads, tokens, width});
  const at::Tensor values = HeadsFirst(v, heads).reshape({n * heads, tokens, width});
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  const at::Tensor scores = at::baddbmm(mask, queries, keys.transpose(1, 2), 1.0, scale);
  const at::Tensor mixed = at::bmm(at::softmax(scores, -1), values);
  return mixed.view({n, heads, tokens, width}).transpose(1, 2);
}

at::Tensor CausalAttentionBuiltIn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t heads = q.size(2);
  const at::Tensor queries = HeadsFirst(q, heads);
  const at::Tensor keys = HeadsFirst(k, heads);
  const at::Tensor values = HeadsFirst(v, heads);
#if TORCH_VERSION_MAJOR >= 2
  const at::Tensor mixed =
      at::scaled_dot_product_attention(queries, keys, values, {}, 0.0, /*is_causal=*/true);
#else
  const at::Tensor mixed = std::get<0>(at::_scaled_dot_product_attention(
      queries, keys, values, {}, 0.0, /*need_attn_weights=*/false, /*is_causal=*/true));
#endif
  return mixed.transpose(1, 2);
}

at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask) {
#if TORCH_VERSION_MAJOR >= 2
  return CausalAttentionBuiltIn(q, k, v);
#else
  return CausalAttentionPlain(q, k, v, mask);
#endif
}

}  // namespace starling
