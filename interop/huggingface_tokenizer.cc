#include "interop/huggingface_tokenizer.h"

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/tokenizer_name.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kJson[] = "tokenizer.json";
constexpr uint32_t kBytes = 256;

std::string ByteTokenizerJson() {
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  Json vocabulary = Json::object();
  for (uint32_t byte = 0; byte < kBytes; ++byte) {
    vocabulary[ToByteAlphabet(std::string(1, static_cast<char>(byte)))] = byte;
  }
  const Json model = {{"type", "BPE"},
                      {"dropout", nullptr},
                      {"unk_token", nullptr},
                      {"continuing_subword_prefix", ""},
                      {"end_of_word_suffix", ""},
                      {"fuse_unk", false},
                      {"byte_fallback", false},
                      {"vocab", vocabulary},
                      {"merges", Json::array()}};
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", Json::array()},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", byte_level},
                     {"post_processor", nullptr},
                     {"decoder", byte_level},
                     {"model", model}};
  return json.dump(2) + "\n";
}

bool Has(const std::vector<TokenizerFile>& files, const std::string& name) {
  for (const TokenizerFile& file : files) {
    if (file.name == name) return true;
  }
  return false;
}

}  // namespace

std::vector<TokenizerFile> HuggingFaceTokenizerFiles(const Tokenizer& tokenizer) {
  std::vector<TokenizerFile> files = tokenizer.files();
  if (MakesBytes(tokenizer) && !Has(files, kJson)) files = {{kJson, ByteTokenizerJson()}};
  if (Has(files, kJson) && !Has(files, kTokenizerConfigName)) {
    // Otherwise the class is guessed from the model's, and that one may add tokens of its own.
    const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"clean_up_tokenization_spaces", false}};
    files.push_back({kTokenizerConfigName, config.dump(2) + "\n"});
  }
  return files;
}

HuggingFaceEnds EndsOf(const Tokenizer& tokenizer, int64_t vocabulary) {
  HuggingFaceEnds ends;
  const std::vector<uint32_t> prefix = tokenizer.prefix();
  if (prefix.size() == 1 && prefix[0] < vocabulary) ends.begin = prefix[0];
  if (tokenizer.separator() < vocabulary) ends.end = tokenizer.separator();
  return ends;
}

bool MakesBytes(const Tokenizer& tokenizer) {
  if (tokenizer.vocabulary() != kBytes) return false;
  for (uint32_t byte = 0; byte < kBytes; ++byte) {
    if (tokenizer.TextOf(byte) != std::string(1, static_cast<char>(byte))) return false;
  }
  return true;
}

}  // namespace starling
