// Random numbers that are the same on every machine: pure functions of a key, and a small stream
// generator for simulators and tie-breaks. Nothing here is for secrets.
#ifndef STARLING_RUNTIME_BASE_RNG_H_
#define STARLING_RUNTIME_BASE_RNG_H_

#include <cstdint>

namespace starling {

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection on 64 bits that mixes well.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Mixes several words into one; the order matters.
constexpr uint64_t MixAll(uint64_t a) { return Mix64(a); }
template <typename... Rest>
constexpr uint64_t MixAll(uint64_t a, Rest... rest) {
  return Mix64(a ^ MixAll(static_cast<uint64_t>(rest)...) * 0xd1342543de82ef95ULL);
}

// A uniform double in [0, 1) from the upper 53 bits.
constexpr double ToUnit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

// A stream of numbers from a seed. Not thread-safe.
class Rng {
 public:
  // Mixed, so that the streams of neighbouring seeds are not one stream shifted.
  explicit Rng(uint64_t seed) : state_(Mix64(seed)) {}

  uint64_t Next() { return Mix64(state_++ * 0x9e3779b97f4a7c15ULL); }
  double Unit() { return ToUnit(Next()); }
  // Uniform in [0, bound); 0 when bound is 0. The bias is below 2^-32 for bounds below 2^32.
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : Next() % bound; }
  bool Chance(double probability) { return Unit() < probability; }

 private:
  uint64_t state_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_RNG_H_
