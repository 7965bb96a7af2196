#include "stages/segment_book.h"

namespace starling {

Hash128 ListHash(const std::vector<SegmentEntry>& entries) {
  std::vector<uint32_t> words;
  words.reserve(entries.size() * 4);
  for (const SegmentEntry& entry : entries) {
    words.push_back(entry.index);
    words.push_back(Value(entry.attempt.issuer.epoch));
    words.push_back(entry.attempt.issuer.counter);
    words.push_back(entry.attempt.counter);
  }
  return HashBytes(words.data(), words.size() * sizeof(uint32_t));
}

}  // namespace starling
