#include "runtime/tokenizer/tokenizer_name.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/hash.h"

namespace starling {
namespace {

constexpr size_t kDigits = 16;

}  // namespace

std::string TokenizerName(const std::string& kind, const std::vector<TokenizerFile>& files,
                          uint32_t separator, const std::vector<uint32_t>& prefix) {
  Sha256 hash;
  const std::string head =
      absl::StrCat(kind, "\nseparator ", separator, "\nprefix ", absl::StrJoin(prefix, " "), "\n");
  hash.Update(head.data(), head.size());
  for (const TokenizerFile& file : files) {
    if (file.name == kTokenizerConfigName) continue;
    const std::string size = absl::StrCat(file.bytes.size(), "\n");
    hash.Update(size.data(), size.size());
    hash.Update(file.bytes.data(), file.bytes.size());
  }
  return absl::StrCat(kind, "-", hash.FinishHex().substr(0, kDigits));
}

bool IsTokenizerName(const std::string& text) {
  const size_t dash = text.find('-');
  if (dash == std::string::npos || text.size() != dash + 1 + kDigits) return false;
  const std::string kind = text.substr(0, dash);
  return (kind == "bpe" || kind == "spm") &&
         text.find_first_not_of("0123456789abcdef", dash + 1) == std::string::npos;
}

}  // namespace starling
