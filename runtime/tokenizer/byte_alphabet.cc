#include "runtime/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "runtime/tokenizer/utf8.h"

namespace starling {
namespace {

constexpr uint32_t kFirstExtra = 0x100;
constexpr size_t kCharacters = 256 + 68;

bool IsPrintable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

struct Tables {
  std::array<std::string, 256> characters;  // by byte
  std::array<int, kCharacters> bytes;       // by code point; -1: none
};

const Tables& GetTables() {
  static const Tables* const tables = [] {
    auto* const made = new Tables();
    made->bytes.fill(-1);
    uint32_t extra = kFirstExtra;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t code_point = IsPrintable(byte) ? byte : extra++;
      AppendUtf8(code_point, &made->characters[byte]);
      made->bytes[code_point] = static_cast<int>(byte);
    }
    return made;
  }();
  return *tables;
}

}  // namespace

std::string ToByteAlphabet(const std::string& bytes) {
  std::string characters;
  for (const char byte : bytes) {
    characters += GetTables().characters[static_cast<unsigned char>(byte)];
  }
  return characters;
}

bool FromByteAlphabet(const std::string& characters, std::string* bytes) {
  bytes->clear();
  const char* at = characters.data();
  const char* const end = at + characters.size();
  while (at < end) {
    const size_t size = Utf8CharAt(at, end);
    const uint32_t code_point = size == 0 ? kCharacters : Utf8Decode(at, size);
    if (code_point >= kCharacters || GetTables().bytes[code_point] < 0) return false;
    bytes->push_back(static_cast<char>(GetTables().bytes[code_point]));
    at += size;
  }
  return true;
}

std::vector<unsigned char> BytesInAlphabetOrder() {
  std::vector<unsigned char> order;
  for (const int byte : GetTables().bytes) {
    if (byte >= 0) order.push_back(static_cast<unsigned char>(byte));
  }
  return order;
}

}  // namespace starling
