#include "runtime/tokenizer/utf8.h"

#include <algorithm>
#include <cstring>

namespace starling {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080;

// Of a lead byte: bytes of its character, and what the second byte may be. 0 bytes: no lead byte.
struct Lead {
  size_t size = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xbf;
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xc2) return {};
  if (byte < 0xe0) return {2};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {};
}

// How many bytes at `begin` fit a character's begin, at most its size.
size_t Fitting(const Lead& lead, const unsigned char* begin, size_t available) {
  const size_t most = std::min(lead.size, available);
  for (size_t i = 1; i < most; ++i) {
    const unsigned char low = i == 1 ? lead.low : 0x80;
    const unsigned char high = i == 1 ? lead.high : 0xbf;
    if (begin[i] < low || begin[i] > high) return i;
  }
  return most;
}

}  // namespace

size_t Utf8CharAt(const char* begin, const char* end) {
  if (begin == end) return 0;
  const auto* const bytes = reinterpret_cast<const unsigned char*>(begin);
  if (bytes[0] < 0x80) return 1;
  const Lead lead = LeadOf(bytes[0]);
  if (lead.size == 0) return 0;
  return Fitting(lead, bytes, static_cast<size_t>(end - begin)) == lead.size ? lead.size : 0;
}

uint32_t Utf8Decode(const char* begin, size_t size) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(begin);
  if (size == 1) return bytes[0];
  uint32_t code_point = bytes[0] & (0xffu >> (size + 1));
  for (size_t i = 1; i < size; ++i) code_point = code_point << 6 | (bytes[i] & 0x3f);
  return code_point;
}

void AppendUtf8(uint32_t code_point, std::string* text) {
  const auto put = [&](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xc0 | code_point >> 6);
  } else {
    if (code_point < 0x10000) {
      put(0xe0 | code_point >> 12);
    } else {
      put(0xf0 | code_point >> 18);
      put(0x80 | (code_point >> 12 & 0x3f));
    }
    put(0x80 | (code_point >> 6 & 0x3f));
  }
  put(0x80 | (code_point & 0x3f));
}

size_t ValidUtf8Prefix(const char* begin, const char* end) {
  const char* at = begin;
  while (at < end) {
    uint64_t eight = 0;
    if (end - at >= 8) {
      std::memcpy(&eight, at, 8);
      if ((eight & kHighBits) == 0) {
        at += 8;
        continue;
      }
    }
    const size_t size = Utf8CharAt(at, end);
    if (size == 0) break;
    at += size;
  }
  return static_cast<size_t>(at - begin);
}

size_t InvalidUtf8Prefix(const char* begin, const char* end) {
  const char* at = begin;
  while (at < end && Utf8CharAt(at, end) == 0) ++at;
  return static_cast<size_t>(at - begin);
}

size_t UnfinishedUtf8Suffix(const std::string& bytes) {
  const auto* const data = reinterpret_cast<const unsigned char*>(bytes.data());
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const unsigned char* const from = data + bytes.size() - back;
    const Lead lead = LeadOf(*from);
    if (lead.size > back && Fitting(lead, from, back) == back) return back;
  }
  return 0;
}

}  // namespace starling
