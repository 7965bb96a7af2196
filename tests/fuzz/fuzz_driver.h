// One fuzz target per program. With libFuzzer (STARLING_LIBFUZZER, clang) that drives it; else
// fuzz_driver.cc does, with mutations of the target's own seeds, from a seed:
//
//   safetensors_fuzz [COUNT [SEED]]     so many mutations; 20000 and 1 if not given
//   safetensors_fuzz FILE...            these inputs, from libFuzzer or from anywhere
#ifndef STARLING_TESTS_FUZZ_FUZZ_DRIVER_H_
#define STARLING_TESTS_FUZZ_FUZZ_DRIVER_H_

#include <string>
#include <vector>

namespace starling {

// Given by the target. Whatever the input, it returns; a check that fails or a crash is a find.
void FuzzOne(const std::string& input);

// Given by the target: well-formed inputs to begin from.
std::vector<std::string> FuzzSeeds();

}  // namespace starling

#endif  // STARLING_TESTS_FUZZ_FUZZ_DRIVER_H_
