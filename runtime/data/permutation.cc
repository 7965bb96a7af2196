#include "runtime/data/permutation.h"

#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr uint64_t kRounds = 6;

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t key) : size_(size), key_(key), half_bits_(1) {
  STARLING_CHECK_GE(size, uint64_t{1});
  STARLING_CHECK_LE(size, uint64_t{1} << 62);
  while ((uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

uint64_t Permutation::At(uint64_t place) const {
  STARLING_CHECK_LT(place, size_);
  // Encrypt is a bijection on a larger range; the cycle that leaves from below `size_` comes back.
  do {
    place = Encrypt(place);
  } while (place >= size_);
  return place;
}

uint64_t Permutation::Encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_;
  uint64_t right = value & mask;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const uint64_t mixed = left ^ (MixAll(key_, round, right) & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

}  // namespace starling
