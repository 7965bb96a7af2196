// UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef STARLING_RUNTIME_TOKENIZER_UTF8_H_
#define STARLING_RUNTIME_TOKENIZER_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace starling {

// Bytes of the character at `begin` (1 to 4); 0: none begins there.
size_t Utf8CharAt(const char* begin, const char* end);

// The code point of a character of `size` bytes, as Utf8CharAt found it.
uint32_t Utf8Decode(const char* begin, size_t size);

void AppendUtf8(uint32_t code_point, std::string* text);

// How many bytes from `begin` on are whole characters.
size_t ValidUtf8Prefix(const char* begin, const char* end);

// How many bytes from `begin` on are no characters.
size_t InvalidUtf8Prefix(const char* begin, const char* end);

// How many of the last bytes (0 to 3) are a character that has only begun.
size_t UnfinishedUtf8Suffix(const std::string& bytes);

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_UTF8_H_
