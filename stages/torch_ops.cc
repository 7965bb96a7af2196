#include "stages/torch_ops.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/api/include/torch/version.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "stages/row_kernels.h"

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/scaled_dot_product_attention.h>
#else
#include <ATen/ops/_scaled_dot_product_attention.h>
#endif

namespace starling {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Rows that one thread takes at a time. The gradient of a norm's weight is summed block by block,
// so it does not depend on the number of threads.
constexpr int64_t kRowBlock = 64;

bool OnHost(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

// Calls function(T()) with the tensor's element type, float or double.
template <typename Call>
void WithType(const at::Tensor& x, Call call) {
  if (x.scalar_type() == at::kFloat) {
    call(float());
  } else {
    call(double());
  }
}

class RmsNormFunction : public Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, double epsilon) {
    const at::Tensor x = input.contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    const at::Tensor out = at::empty_like(x);
    const at::Tensor inverse = at::empty({rows}, x.options().requires_grad(false));
    WithType(x, [&](auto zero) {
      using T = decltype(zero);
      at::parallel_for(0, rows, kRowBlock, [&](int64_t begin, int64_t end) {
        RmsNormForward<T>(end - begin, width, x.data_ptr<T>() + begin * width, weight.data_ptr<T>(),
                          static_cast<T>(epsilon), out.data_ptr<T>() + begin * width,
                          inverse.data_ptr<T>() + begin);
      });
    });
    context->save_for_backward({x, weight, inverse});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = saved[0], weight = saved[1], inverse = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
    const at::Tensor x_gradient = at::empty_like(x);
    const at::Tensor partial = at::zeros({blocks, width}, x.options().requires_grad(false));
    WithType(x, [&](auto zero) {
      using T = decltype(zero);
      at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          const int64_t row = block * kRowBlock;
          RmsNormBackward<T>(std::min(kRowBlock, rows - row), width, x.data_ptr<T>() + row * width,
                             weight.data_ptr<T>(), inverse.data_ptr<T>() + row,
                             gradient.data_ptr<T>() + row * width,
                             x_gradient.data_ptr<T>() + row * width,
                             partial.data_ptr<T>() + block * width);
        }
      });
    });
    return {x_gradient, partial.sum(0), at::Tensor()};
  }
};

// a [m, k] times b [k, n] of bf16, added up in fp32, rounded to bf16. On the host as products of
// the same numbers in fp32: its bf16 ones are many times slower where the processor has none.
at::Tensor MultipliedInFp32(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_cpu()) return at::mm(a, b);
  return at::mm(a.to(at::kFloat), b.to(at::kFloat)).to(at::kBFloat16);
}

class RoundedProductFunction : public Function<RoundedProductFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& narrow) {
    context->save_for_backward({x, narrow});
    context->saved_data["type"] = weight.scalar_type();
    return MultipliedInFp32(x, narrow.t());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = saved[0], narrow = saved[1], gradient = gradients[0];
    const at::ScalarType type = context->saved_data["type"].toScalarType();
    return {MultipliedInFp32(gradient, narrow), MultipliedInFp32(gradient.t(), x).to(type),
            at::Tensor()};
  }
};

at::Tensor Rotated(const at::Tensor& input, const at::Tensor& cosine, const at::Tensor& sine,
                   double direction) {
  const at::Tensor x = input.contiguous();
  const int64_t tokens = x.size(1), heads = x.size(2), width = x.size(3);
  const at::Tensor out = at::empty_like(x);
  WithType(x, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, x.size(0) * tokens, kRowBlock, [&](int64_t begin, int64_t end) {
      RotateRows<T>(begin, end - begin, tokens, heads, width / 2,
                    x.data_ptr<T>() + begin * heads * width, cosine.data_ptr<T>(),
                    sine.data_ptr<T>(), static_cast<T>(direction),
                    out.data_ptr<T>() + begin * heads * width);
    });
  });
  return out;
}

class RopeFunction : public Function<RopeFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine,
                            const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return Rotated(x, cosine, sine, 1.0);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    return {Rotated(gradients[0], saved[0], saved[1], -1.0), at::Tensor(), at::Tensor()};
  }
};

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

at::Tensor RmsNormPlain(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor scale = at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon);
  return x * scale * weight;
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return OnHost(x) ? RmsNormFunction::apply(x, weight, epsilon) : RmsNormPlain(x, weight, epsilon);
}

at::Tensor RoundedProduct(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          const at::Tensor& narrow) {
  const at::Tensor out = RoundedProductFunction::apply(x, weight, narrow);
  if (!bias.defined()) return out;
  return (out + bias).to(out.scalar_type());  // the bias' gradient is summed in its own type
}

at::Tensor SwiGlu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

at::Tensor RopePlain(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor a = x.narrow(-1, 0, half);
  const at::Tensor b = x.narrow(-1, half, half);
  return at::cat({a * cosine - b * sine, b * cosine + a * sine}, -1);
}

at::Tensor Rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  return OnHost(x) ? RopeFunction::apply(x, cosine, sine) : RopePlain(x, cosine, sine);
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

at::Tensor NewestAttention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values) {
  const int64_t tokens = q.size(0), heads = q.size(1), width = q.size(2);
  const int64_t kv_heads = keys.size(0), all = keys.size(1);
  // The query heads that read one key/value head, one below the other.
  const at::Tensor queries =
      q.transpose(0, 1).reshape({kv_heads, heads / kv_heads * tokens, width});
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  at::Tensor scores = at::bmm(queries, keys.transpose(1, 2)) * scale;
  if (tokens > 1) {
    const at::Tensor mask =
        at::full({tokens, all}, -std::numeric_limits<double>::infinity(), q.options());
    mask.triu_(all - tokens + 1);
    scores = (scores.view({heads, tokens, all}) + mask).view(scores.sizes());
  }
  const at::Tensor mixed = at::bmm(at::softmax(scores, -1), values);
  return mixed.view({heads, tokens, width}).transpose(0, 1);
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
