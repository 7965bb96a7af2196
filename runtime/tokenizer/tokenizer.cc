#include "runtime/tokenizer/tokenizer.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace starling {
namespace {

constexpr uint32_t kBytes = 256;

// A token is a byte; 256 ends a document.
class ByteTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "bytes"; }
  uint32_t vocabulary() const override { return kBytes; }
  uint32_t separator() const override { return kBytes; }
  bool divisible() const override { return true; }

  absl::Status Encode(const char* text, size_t bytes,
                      std::vector<uint32_t>* tokens) const override {
    const auto* const begin = reinterpret_cast<const unsigned char*>(text);
    tokens->insert(tokens->end(), begin, begin + bytes);
    return absl::OkStatus();
  }

  std::string Decode(const std::vector<uint32_t>& tokens) const override {
    std::string text;
    for (const uint32_t token : tokens) {
      if (token < kBytes) text.push_back(static_cast<char>(token));
    }
    return text;
  }
};

}  // namespace

const std::vector<TokenizerFile>& Tokenizer::files() const {
  static const auto* const none = new std::vector<TokenizerFile>();
  return *none;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const std::string& name) {
  if (name == "bytes") return std::unique_ptr<Tokenizer>(std::make_unique<ByteTokenizer>());
  return absl::InvalidArgumentError(
      absl::StrCat("there is no tokenizer \"", name, "\"; there is \"bytes\""));
}

}  // namespace starling
