// The printable characters that stand for bytes in the files of byte-level BPE (GPT-2's table):
// printable ASCII and Latin-1 for themselves, the other 68 bytes U+0100 and up, in order.
#ifndef STARLING_RUNTIME_TOKENIZER_BYTE_ALPHABET_H_
#define STARLING_RUNTIME_TOKENIZER_BYTE_ALPHABET_H_

#include <cstddef>
#include <string>
#include <vector>

namespace starling {

// The characters of bytes, as UTF-8.
std::string ToByteAlphabet(const std::string& bytes);

// The bytes of characters. False: one is not of the alphabet.
bool FromByteAlphabet(const std::string& characters, std::string* bytes);

// All bytes in the order of their characters, as GPT-2 numbers them.
std::vector<unsigned char> BytesInAlphabetOrder();

}  // namespace starling

#endif  // STARLING_RUNTIME_TOKENIZER_BYTE_ALPHABET_H_
