#include "runtime/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace starling {

const char* ToString(NormalForm form) {
  switch (form) {
    case NormalForm::kNone:
      return "none";
    case NormalForm::kNfc:
      return "NFC";
    case NormalForm::kNfd:
      return "NFD";
    case NormalForm::kNfkc:
      return "NFKC";
    case NormalForm::kNfkd:
      return "NFKD";
  }
  return "?";
}

absl::StatusOr<std::string> Normalize(NormalForm form, const char* text, size_t bytes) {
  if (form == NormalForm::kNone || IsNormalAscii(text, bytes)) return std::string(text, bytes);
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                      (compatible ? UTF8PROC_COMPAT : 0);
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text),
                                             static_cast<utf8proc_ssize_t>(bytes), &result,
                                             static_cast<utf8proc_option_t>(options));
  if (size < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat(ToString(form), " of a text of ", bytes, " bytes: ", utf8proc_errmsg(size)));
  }
  std::string normal(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
  std::free(result);
  return normal;
}

bool IsNormalAscii(const char* text, size_t bytes) {
  return std::all_of(text, text + bytes,
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace starling
