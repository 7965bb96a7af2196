// Hashes: fast ones for state and lists, SHA-256 for files.
#ifndef STARLING_RUNTIME_BASE_HASH_H_
#define STARLING_RUNTIME_BASE_HASH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

namespace starling {

// 128 bits of XXH3. Names a state or a result; not meant to withstand an attacker.
struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;

  friend bool operator==(const Hash128& a, const Hash128& b) {
    return a.high == b.high && a.low == b.low;
  }
  friend bool operator!=(const Hash128& a, const Hash128& b) { return !(a == b); }
  friend bool operator<(const Hash128& a, const Hash128& b) {
    return std::tie(a.high, a.low) < std::tie(b.high, b.low);
  }
};

Hash128 HashBytes(const void* data, size_t size);
std::string ToHex(const Hash128& hash);  // 32 lower-case digits
bool FromHex(const std::string& text, Hash128* hash);

// Hashes pieces as if they were one run of bytes.
class Hasher128 {
 public:
  Hasher128();
  ~Hasher128();
  Hasher128(const Hasher128&) = delete;
  Hasher128& operator=(const Hasher128&) = delete;

  void Update(const void* data, size_t size);
  Hash128 Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256 of pieces, as 64 lower-case hex digits.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size);
  std::string FinishHex();  // once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(const void* data, size_t size);

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_HASH_H_
