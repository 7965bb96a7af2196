// The few operators of the transformer that LibTorch lacks or names differently from version to
// version. All are differentiable once, work for fp32 and fp64 on any device unless they say
// otherwise, and keep rows in the order they come. On the host, RMSNorm and rotary positions are
// one loop each (row_kernels.h); elsewhere they are the plain forms.
#ifndef STARLING_STAGES_TORCH_OPS_H_
#define STARLING_STAGES_TORCH_OPS_H_

#include <ATen/core/Tensor.h>

namespace starling {

// x * weight / sqrt(mean(x^2) + epsilon) over the last axis (Zhang and Sennrich 2019).
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon);
at::Tensor RmsNormPlain(const at::Tensor& x, const at::Tensor& weight, double epsilon);

// x [rows, in] times `narrow` [out, in] transposed, plus the bias if it is defined. Both x and
// `narrow`, which is `weight` rounded, are bf16, as is what comes out; the gradient goes to
// `weight`, in its own type, so that one rounded copy serves many passes. Not differentiable by
// `narrow`.
at::Tensor RoundedProduct(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& narrow);

// silu(gate) * up (Shazeer 2020, without biases).
at::Tensor SwiGlu(const at::Tensor& gate, const at::Tensor& up);

// Rotary positions (Su et al. 2021) in the half-split convention of Llama's public weights: element
// i of a head is paired with element i + D/2. x is [n, T, heads, D]; cosine and sine are [T, 1,
// D/2].
at::Tensor Rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine);
at::Tensor RopePlain(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine);

// Causal attention with scale 1/sqrt(D). q is [n, T, heads, D], k and v are [n, T, kv_heads, D];
// query head h reads key/value head h / (heads / kv_heads). `mask` is [T, T]: 0 where a query may
// look, minus infinity elsewhere. Gives [n, T, heads, D].
//
// The first is spelled out in matrix products, the second is LibTorch's own; CausalAttention is the
// first with 1.13, which has no fused one for the host, and the second from 2.0 on.
at::Tensor CausalAttentionPlain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& mask);
at::Tensor CausalAttentionBuiltIn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask);

// Attention of the newest t tokens of one sequence to all of its n, themselves included. q is [t,
// heads, D]; keys and values are [kv_heads, n, D], with kv heads first so that a head's rows stay
// together as they grow. A token looks at itself and what came before. Gives [t, heads, D].
at::Tensor NewestAttention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values);

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_OPS_H_
