// A keyed shuffle of 0 .. size-1, computed for one place at a time: no table, no state, the same on
// every machine.
//
// A balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, walked along
// its cycle until the result is below `size` (Black and Rogaway 2002). At most four times as many
// values as needed, so a call makes four turns on average at worst. Not for secrets.
#ifndef STARLING_RUNTIME_DATA_PERMUTATION_H_
#define STARLING_RUNTIME_DATA_PERMUTATION_H_

#include <cstdint>

namespace starling {

class Permutation {
 public:
  // `size` at least 1, at most 2^62.
  Permutation(uint64_t size, uint64_t key);

  uint64_t size() const { return size_; }

  // The `place`-th of the shuffled numbers; `place` below `size`.
  uint64_t At(uint64_t place) const;

 private:
  uint64_t Encrypt(uint64_t value) const;

  uint64_t size_;
  uint64_t key_;
  int half_bits_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_PERMUTATION_H_
