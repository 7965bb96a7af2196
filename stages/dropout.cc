#include "stages/dropout.h"

#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr uint64_t kDomain = 0x64726f70ULL;             // "drop"
constexpr uint64_t kIncrement = 0x9e3779b97f4a7c15ULL;  // SplitMix64's

}  // namespace

void FillDropoutMask(const DropoutKey& key, double probability, int64_t elements_per_sequence,
                     absl::Span<float> mask) {
  STARLING_CHECK(probability >= 0.0 && probability < 1.0);
  STARLING_CHECK_GT(elements_per_sequence, 0);
  STARLING_CHECK_EQ(static_cast<int64_t>(mask.size()) % elements_per_sequence, 0);
  const uint32_t threshold = static_cast<uint32_t>(probability * 4294967296.0);
  const float scale = static_cast<float>(1.0 / (1.0 - probability));
  const int64_t sequences = static_cast<int64_t>(mask.size()) / elements_per_sequence;
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    const uint64_t base = MixAll(kDomain, key.seed, Value(key.step), key.first_sequence + sequence,
                                 key.layer, static_cast<uint64_t>(key.site));
    float* out = mask.data() + sequence * elements_per_sequence;
    for (int64_t i = 0; i < elements_per_sequence; ++i) {
      const uint32_t bits = static_cast<uint32_t>(Mix64(base + i * kIncrement) >> 32);
      out[i] = bits < threshold ? 0.0f : scale;
    }
  }
}

}  // namespace starling
