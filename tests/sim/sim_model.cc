#include "tests/sim/sim_model.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/hash.h"
#include "runtime/base/rng.h"

namespace starling::sim {
namespace {

constexpr double kWrap = 1 << 20;
constexpr uint64_t kMagic = 0x51a7;

float Wrap(double value) { return static_cast<float>(value - std::floor(value / kWrap) * kWrap); }

// Words of 16 bits: one float each, or four of 4 bits, which survive a codec.
class WordWriter {
 public:
  WordWriter(float* to, bool lossy) : to_(to), bits_(lossy ? 4 : 16) {}
  void Put(uint64_t value, int words) {
    for (int at = 0; at < 16 * words; at += bits_) {
      *to_++ = static_cast<float>((value >> at) & ((uint64_t{1} << bits_) - 1));
    }
  }

 private:
  float* to_;
  const int bits_;
};

class WordReader {
 public:
  WordReader(const float* from, bool lossy) : from_(from), bits_(lossy ? 4 : 16) {}
  uint64_t Get(int words) {
    uint64_t value = 0;
    for (int at = 0; at < 16 * words; at += bits_) {
      const float word = *from_++;
      const float whole = std::floor(word + 0.5f);
      const float most = bits_ == 4 ? 15.0f : 65535.0f;
      const float error = bits_ == 4 ? 0.2f : 0.0f;
      if (!(whole >= 0 && whole <= most && std::fabs(word - whole) <= error)) {
        valid_ = false;
        return 0;
      }
      value |= static_cast<uint64_t>(whole) << at;
    }
    return value;
  }
  bool valid() const { return valid_; }

 private:
  const float* from_;
  const int bits_;
  bool valid_ = true;
};

bool Lossy(int64_t elements) { return elements >= kLossySignalFloats; }

uint64_t CheckWord(const Signal& signal) {
  return MixAll(Value(signal.id.step), static_cast<uint64_t>(signal.id.kind), signal.id.index,
                Value(signal.made_by), static_cast<uint64_t>(signal.gradient), signal.updates,
                signal.digest, signal.answers) &
         0xffff;
}

}  // namespace

Blob EncodeSignal(const Signal& signal, const std::vector<int64_t>& shape) {
  STARLING_CHECK_GE(ElementCount(shape), kSignalFloats);
  MutableBlob blob = MutableBlob::Zeros(DType::kF32, shape);
  WordWriter out(blob.As<float>().data(), Lossy(ElementCount(shape)));
  out.Put(kMagic, 1);
  out.Put(Value(signal.id.step), 3);
  out.Put(static_cast<uint64_t>(signal.id.kind), 1);
  out.Put(signal.id.index, 2);
  out.Put(Value(signal.made_by), 2);
  out.Put(signal.gradient ? 1 : 0, 1);
  out.Put(signal.updates, 2);
  out.Put(signal.digest, 4);
  out.Put(signal.answers, 4);
  out.Put(CheckWord(signal), 1);
  return std::move(blob).Freeze();
}

absl::StatusOr<Signal> DecodeSignal(const Blob& blob) {
  if (blob.dtype() != DType::kF32 || blob.element_count() < kSignalFloats) {
    return absl::InvalidArgumentError(
        "not a boundary tensor: " + std::string(ToString(blob.dtype())) + ", " +
        std::to_string(blob.element_count()) + " elements");
  }
  WordReader in(blob.As<float>().data(), Lossy(blob.element_count()));
  Signal signal;
  const bool magic = in.Get(1) == kMagic;
  signal.id.step = static_cast<Step>(in.Get(3));
  signal.id.kind = static_cast<WorkKind>(in.Get(1));
  signal.id.index = static_cast<uint32_t>(in.Get(2));
  signal.made_by = static_cast<StageId>(in.Get(2));
  signal.gradient = in.Get(1) == 1;
  signal.updates = static_cast<uint32_t>(in.Get(2));
  signal.digest = in.Get(4);
  signal.answers = in.Get(4);
  if (!magic || in.Get(1) != CheckWord(signal) || !in.valid()) {
    return absl::InvalidArgumentError("a boundary tensor's numbers were changed on the way");
  }
  return signal;
}

std::string ToString(const Signal& signal) {
  return std::string(signal.gradient ? "gradient" : "activation") + " of " +
         starling::ToString(signal.id) + " by stage " + starling::ToString(signal.made_by) +
         " after " + std::to_string(signal.updates) + " updates";
}

uint64_t DigestOf(const Blob& blob, uint64_t salt) {
  return MixAll(HashBytes(blob.data(), blob.size_bytes()).low, salt);
}

uint64_t DigestOfParameters(const float* state, const StageLayout& layout) {
  return HashBytes(state, static_cast<size_t>(layout.size) * sizeof(float)).low;
}

uint64_t ForwardDigest(StageId stage, const MicrobatchId& id, uint64_t parameters, uint64_t input) {
  return MixAll(0x666f7277ULL, Value(stage), Value(id.step), static_cast<uint64_t>(id.kind),
                id.index, parameters, input);
}

uint64_t LossDigest(uint64_t output_digest, uint64_t targets) {
  return MixAll(0x6c6f7373ULL, output_digest, targets);
}

double LossSum(uint64_t loss_digest, int64_t tokens) {
  return static_cast<double>(tokens + static_cast<int64_t>(loss_digest % 1024));
}

uint64_t BackwardDigest(StageId stage, uint64_t forward_digest, uint64_t incoming) {
  return MixAll(0x6261636bULL, Value(stage), forward_digest, incoming);
}

namespace {

// The elements that belong to no tensor: the ends of the runs that alignment rounds up.
template <typename Visit>
void ForEachGap(const StageLayout& layout, Visit visit) {
  for (size_t t = 0; t < layout.tensors.size(); ++t) {
    const int64_t end = t + 1 < layout.tensors.size() ? layout.tensors[t + 1].offset : layout.size;
    for (int64_t i = layout.tensors[t].offset + layout.tensors[t].count; i < end; ++i) visit(i);
  }
}

// A number with all bits of its mantissa in use: its sums depend on the order of addition. Its
// square is lost beside 1 in double precision.
float Tiny(uint64_t bits) {
  const float mantissa = 1 + static_cast<float>(bits & 0x7fffff) / 0x800000;
  return (bits & 0x800000) != 0 ? -std::ldexp(mantissa, -31) : std::ldexp(mantissa, -31);
}

}  // namespace

void AddGradient(const StageLayout& layout, uint64_t backward_digest, int factor, float* sum) {
  for (const TensorSpec& tensor : layout.tensors) {
    uint64_t bits = 0;
    for (int64_t i = 0; i < tensor.count; ++i) {
      if (i % 8 == 0) bits = MixAll(backward_digest, tensor.offset + i);
      const int value = static_cast<int>((bits >> (8 * (i % 8))) & 0x0f) - 7;  // -7 .. 8
      sum[tensor.offset + i] += static_cast<float>(factor * value);
    }
  }
  ForEachGap(layout, [&](int64_t i) {
    sum[i] += static_cast<float>(factor) * Tiny(MixAll(backward_digest, 0x676170ULL, i));
  });
}

void UpdateState(const StageLayout& layout, uint64_t scalars_digest, const float* gradient,
                 float* state) {
  const float digest = static_cast<float>(scalars_digest & 0xffff);
  float* first = state + layout.size;
  float* second = first + layout.size;
  for (const TensorSpec& tensor : layout.tensors) {
    for (int64_t i = tensor.offset; i < tensor.offset + tensor.count; ++i) {
      state[i] = Wrap(static_cast<double>(state[i]) + gradient[i]);
      first[i] = Wrap(3.0 * first[i] + gradient[i] + digest);
      second[i] = Wrap(second[i] + 1.0);
    }
  }
  ForEachGap(layout, [&](int64_t i) {
    uint32_t bits = 0;
    std::memcpy(&bits, &gradient[i], sizeof(bits));
    first[i] = Wrap(static_cast<double>(MixAll(bits, static_cast<uint64_t>(first[i])) & 0xfffff));
  });
}

namespace {

template <typename Which>
Hash128 HashOf(const float* state, const StageLayout& layout, Which which) {
  Hasher128 hasher;
  for (int64_t plane = 0; plane < kStatePlanes; ++plane) {
    for (const TensorSpec& tensor : layout.tensors) {
      if (!which(tensor)) continue;
      hasher.Update(state + plane * layout.size + tensor.offset,
                    static_cast<size_t>(tensor.count) * sizeof(float));
    }
  }
  return hasher.Finish();
}

}  // namespace

Hash128 HashOfTensors(const float* state, const StageLayout& layout) {
  return HashOf(state, layout, [](const TensorSpec&) { return true; });
}

Hash128 HashOfTied(const float* state, const StageLayout& layout) {
  return HashOf(state, layout, [](const TensorSpec& tensor) { return tensor.tie != kNoTie; });
}

uint32_t UpdatesOf(const float* state, const StageLayout& layout) {
  const int64_t at = 2 * layout.size + layout.tensors.front().offset;
  return static_cast<uint32_t>(state[at]);
}

Blob SimInitialState(const StageLayout& layout, uint64_t seed) {
  MutableBlob blob = MutableBlob::Zeros(DType::kF32, {kStatePlanes * layout.size});
  float* state = blob.As<float>().data();
  for (const TensorSpec& tensor : layout.tensors) {
    const uint64_t name = HashBytes(tensor.name.data(), tensor.name.size()).low;
    for (int64_t i = 0; i < tensor.count; ++i) {
      state[tensor.offset + i] = static_cast<float>(MixAll(seed, name, i) % 1024);
    }
  }
  return std::move(blob).Freeze();
}

namespace {

std::vector<TensorSpec> SpecsOf(StageId stage, int tensors, int64_t count) {
  std::vector<TensorSpec> specs;
  for (int t = 0; t < tensors; ++t) {
    TensorSpec spec;
    spec.name = "stage" + std::to_string(Value(stage)) + ".tensor" + std::to_string(t);
    spec.shape = {count};
    specs.push_back(std::move(spec));
  }
  return specs;
}

}  // namespace

StageLayout SimLayout(StageId stage, int tensors, int64_t count) {
  return MakeLayout(SpecsOf(stage, tensors, count));
}

StageLayout SimTiedLayout(StageId stage, int tensors, int64_t count, int64_t tied, bool stores) {
  std::vector<TensorSpec> specs = SpecsOf(stage, tensors, count);
  TensorSpec spec;
  spec.name = "tied";
  spec.shape = {tied};
  spec.tie = 0;
  spec.stored = stores;
  specs.push_back(std::move(spec));
  return MakeLayout(std::move(specs));
}

}  // namespace starling::sim
