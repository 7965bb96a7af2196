// Open hash tables for the inner loops of tokenizers: few cache misses, no node per entry. Nothing
// iterates over them, so their order shows nowhere.
//
// Threads: const methods from any; else one at a time.
#ifndef STARLING_RUNTIME_TOKENIZER_FLAT_MAP_H_
#define STARLING_RUNTIME_TOKENIZER_FLAT_MAP_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/rng.h"

namespace starling {

// Numbers to numbers. The key 2^64 - 1 is not one.
class NumberMap {
 public:
  const uint64_t* Find(uint64_t key) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[Place(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

  // The value of a key, 0 if it is new.
  uint64_t& At(uint64_t key) {
    if (2 * (used_ + 1) > slots_.size()) Grow();
    Slot& slot = slots_[Place(key)];
    if (slot.key != key) {
      slot.key = key;
      ++used_;
    }
    return slot.value;
  }

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};
  struct Slot {
    uint64_t key = kNone;
    uint64_t value = 0;
  };

  size_t Place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = Mix64(key) & mask;
    while (slots_[at].key != key && slots_[at].key != kNone) at = (at + 1) & mask;
    return at;
  }

  void Grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
    std::swap(old, slots_);
    for (const Slot& slot : old) {
      if (slot.key != kNone) slots_[Place(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two, at most half used
  size_t used_ = 0;
};

// Different strings of bytes, numbered as they come.
class BytesMap {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  // The number of a string; kNone: it was not added.
  uint32_t Find(const char* bytes, size_t size) const {
    return slots_.empty() ? kNone : slots_[Place(bytes, size, HashOf(bytes, size))].number;
  }

  // The number of a string, a new one if it was not there.
  uint32_t Add(const char* bytes, size_t size) {
    if (2 * (strings_.size() + 1) > slots_.size()) Grow();
    const uint32_t hash = HashOf(bytes, size);
    Slot& slot = slots_[Place(bytes, size, hash)];
    if (slot.number == kNone) {
      slot = {hash, static_cast<uint32_t>(strings_.size())};
      strings_.emplace_back(bytes, size);
    }
    return slot.number;
  }

  const std::vector<std::string>& strings() const { return strings_; }  // by number

 private:
  struct Slot {
    uint32_t hash = 0;
    uint32_t number = kNone;
  };

  static uint32_t HashOf(const char* bytes, size_t size) {
    uint64_t hash = size;
    for (; size >= 8; bytes += 8, size -= 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes, 8);
      hash = Mix64(hash ^ word);
    }
    uint64_t word = 0;
    for (size_t i = 0; i < size; ++i) {
      word |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
    }
    return static_cast<uint32_t>(Mix64(hash ^ word));
  }

  size_t Place(const char* bytes, size_t size, uint32_t hash) const {
    const size_t mask = slots_.size() - 1;
    size_t at = hash & mask;
    while (slots_[at].number != kNone && !(slots_[at].hash == hash && Is(at, bytes, size))) {
      at = (at + 1) & mask;
    }
    return at;
  }

  bool Is(size_t at, const char* bytes, size_t size) const {
    const std::string& string = strings_[slots_[at].number];
    return string.size() == size && std::memcmp(string.data(), bytes, size) == 0;
  }

  void Grow() {
    const size_t size = slots_.empty() ? 16 : 2 * slots_.size();
    slots_.assign(size, Slot());
    for (uint32_t number = 0; number < strings_.size(); ++number) {
      const std::string& string = strings_[number];
      const uint32_t hash = HashOf(string.data(), string.size());
      slots_[Place(string.data(), string.size(), hash)] = {hash, number};
    }
  }

  std::vector<Slot> slots_;  // a power of two, at most half used
  std::vector<std::string> strings_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_FLAT_MAP_H_
