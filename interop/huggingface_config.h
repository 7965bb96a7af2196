// config.json and generation_config.json of Hugging Face's GPT-2 and Llama.
//
// Pure functions. Errors are one line that names the key, without the file's name.
#ifndef STARLING_INTEROP_HUGGINGFACE_CONFIG_H_
#define STARLING_INTEROP_HUGGINGFACE_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "interop/huggingface_layout.h"
#include "runtime/config/run_config.h"

namespace starling {

struct HuggingFaceConfig {
  HuggingFaceKind kind = HuggingFaceKind::kGpt2;
  ModelConfig model;
  std::vector<std::string> notices;  // what is not taken over, for the user
};

// What begins and ends a text, where the model's tokenizer has such tokens.
struct HuggingFaceEnds {
  std::optional<int64_t> begin;
  std::optional<int64_t> end;
};

// `model` is of this kind.
std::string PrintHuggingFaceConfig(const ModelConfig& model, HuggingFaceKind kind,
                                   const HuggingFaceEnds& ends);
std::string PrintGenerationConfig(const HuggingFaceEnds& ends);

// Keys that are not there have Hugging Face's defaults, but for the sizes, which must be. Whether
// the numbers make a model that is supported is for run_file.h to say.
//   data loss: no JSON object, a key is missing or of another type;
//   invalid argument: an architecture that is not known here, or a setting of one that is not.
absl::StatusOr<HuggingFaceConfig> ParseHuggingFaceConfig(const std::string& text);

}  // namespace starling

#endif  // STARLING_INTEROP_HUGGINGFACE_CONFIG_H_
