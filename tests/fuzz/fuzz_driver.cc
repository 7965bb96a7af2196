#include "tests/fuzz/fuzz_driver.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "runtime/base/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  starling::FuzzOne(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}

#ifndef STARLING_LIBFUZZER

namespace starling {
namespace {

// What breaks parsers: numbers at the edge of their types, brackets, and words of both formats.
constexpr const char* kWords[] = {"0",
                                  "-1",
                                  "1e9",
                                  "4294967296",
                                  "9223372036854775807",
                                  "9223372036854775808",
                                  "18446744073709551615",
                                  "18446744073709551616",
                                  "[",
                                  "]",
                                  "{",
                                  "}",
                                  "\"",
                                  ",",
                                  ":",
                                  "null",
                                  "[[[[[[[[[[[[[[[[",
                                  "\"shape\":[",
                                  "\"data_offsets\":[0,0]",
                                  "\"__metadata__\":{",
                                  "F64",
                                  "\\u0000",
                                  "\xff",
                                  " ",
                                  "\n",
                                  "format_version",
                                  "../x"};

void Mutate(const std::vector<std::string>& seeds, std::string* input, Rng* rng) {
  if (input->empty()) input->push_back(0);
  const size_t at = rng->Below(input->size());
  switch (rng->Below(8)) {
    case 0:
      (*input)[at] ^= static_cast<char>(1 << rng->Below(8));
      break;
    case 1:
      (*input)[at] = static_cast<char>(rng->Chance(0.5) ? 0xff : rng->Next());
      break;
    case 2:
      input->resize(at);
      break;
    case 3:
      input->insert(at, 1 + rng->Below(16), static_cast<char>(rng->Next()));
      break;
    case 4:
      input->replace(at, 1 + rng->Below(8), kWords[rng->Below(std::size(kWords))]);
      break;
    case 5:
      input->erase(at, 1 + rng->Below(24));
      break;
    case 6:  // a run of the input once more, elsewhere
      input->insert(at, input->substr(rng->Below(input->size()), 1 + rng->Below(64)));
      break;
    case 7: {  // the end of another seed
      const std::string& other = seeds[rng->Below(seeds.size())];
      *input = input->substr(0, at) + other.substr(std::min(at, other.size()));
      break;
    }
  }
}

void FuzzMany(uint64_t count, uint64_t seed) {
  const std::vector<std::string> seeds = FuzzSeeds();
  for (const std::string& input : seeds) FuzzOne(input);
  Rng rng(seed);
  for (uint64_t i = 0; i < count; ++i) {
    std::string input = seeds[rng.Below(seeds.size())];
    for (uint64_t mutations = 1 + rng.Below(5); mutations > 0; --mutations) {
      Mutate(seeds, &input, &rng);
    }
    FuzzOne(input);
  }
}

bool FuzzFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  FuzzOne(std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
  return true;
}

}  // namespace
}  // namespace starling

int main(int argc, char** argv) {
  char* end = nullptr;
  const uint64_t count = argc > 1 ? std::strtoull(argv[1], &end, 10) : 20000;
  if (argc > 1 && *end != '\0') {
    for (int i = 1; i < argc; ++i) {
      if (!starling::FuzzFile(argv[i])) {
        std::fprintf(stderr, "%s: cannot read %s\n", argv[0], argv[i]);
        return 2;
      }
    }
    return 0;
  }
  starling::FuzzMany(count, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  return 0;
}

#endif  // STARLING_LIBFUZZER
