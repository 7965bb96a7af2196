// Debian's libsentencepiece, to compare with. Its header gives Abseil's string_view another
// meaning, so nothing of Abseil may be included where it is.
#ifndef STARLING_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_ORACLE_H_
#define STARLING_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_ORACLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace starling::testing {

class SentencePieceOracle {
 public:
  // Trains with the options of spm_train; gives the model's bytes, empty after an error.
  static std::string Train(const std::string& options, const std::vector<std::string>& sentences);

  // `model` is the bytes of a model; ok() says whether it was read.
  explicit SentencePieceOracle(const std::string& model);
  ~SentencePieceOracle();
  bool ok() const;
  std::vector<uint32_t> Encode(const std::string& text) const;
  std::string Decode(const std::vector<uint32_t>& tokens) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace starling::testing

#endif  // STARLING_TESTS_RUNTIME_TOKENIZER_SENTENCEPIECE_ORACLE_H_
