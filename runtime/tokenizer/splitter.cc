#include "runtime/tokenizer/splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/tokenizer/utf8.h"

namespace starling {

const char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

constexpr uint32_t kMatchSteps = 50'000'000;  // of one match, without the JIT
constexpr uint32_t kHeapKib = 256 * 1024;
constexpr size_t kMaxPatternBytes = 64 * 1024;

// `\s` and `\S` as properties; other escapes as they are.
std::string WithUnicodeSpaces(const std::string& pattern) {
  std::string result;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (pattern[i] == '\\' && (next == 's' || next == 'S')) {
      absl::StrAppend(&result, next == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
      ++i;
    } else if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      result.push_back(pattern[i++]);
      result.push_back(pattern[i]);
    } else {
      result.push_back(pattern[i]);
    }
  }
  return result;
}

std::string ErrorText(int error) {
  unsigned char text[256];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

class Splitter::Pattern {
 public:
  ~Pattern() { pcre2_code_free(code_); }

  absl::Status Compile(const std::string& pattern) {
    if (pattern.size() > kMaxPatternBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("a pattern of ", pattern.size(), " bytes is too long"));
    }
    const std::string translated = WithUnicodeSpaces(pattern);
    int error = 0;
    size_t place = 0;
    code_ =
        pcre2_compile(reinterpret_cast<const unsigned char*>(translated.data()), translated.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &place, nullptr);
    if (code_ == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the pattern \"", pattern, "\" is not understood: ", ErrorText(error)));
    }
    // Where there is no JIT, matching works without it.
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
    return absl::OkStatus();
  }

  const pcre2_code* code() const { return code_; }

 private:
  pcre2_code* code_ = nullptr;
};

// What matching writes to; one per call of Cut.
class Splitter::Scratch {
 public:
  Scratch()
      : match_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
    STARLING_CHECK(match_ != nullptr && context_ != nullptr);
    pcre2_set_match_limit(context_, kMatchSteps);
    pcre2_set_heap_limit(context_, kHeapKib);
  }
  ~Scratch() {
    pcre2_match_data_free(match_);
    pcre2_match_context_free(context_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Finds the first match from `from` on; false: there is none.
  absl::StatusOr<bool> Find(const pcre2_code* code, const char* text, size_t bytes, size_t from,
                            size_t* begin, size_t* end) {
    const auto* const subject = reinterpret_cast<const unsigned char*>(text);
    int found = pcre2_match(code, subject, bytes, from, PCRE2_NO_UTF_CHECK, match_, context_);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code, subject, bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match_,
                          context_);
    }
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the tokenizer's pattern cannot be matched against this text: ", ErrorText(found)));
    }
    const size_t* const places = pcre2_get_ovector_pointer(match_);
    *begin = places[0];
    *end = places[1];
    // \K in a look-around can turn a match around.
    if (*begin > *end || *begin < from) {
      return absl::InvalidArgumentError("the tokenizer's pattern matches backwards");
    }
    return true;
  }

 private:
  pcre2_match_data* const match_;
  pcre2_match_context* const context_;
};

Splitter::Splitter() = default;
Splitter::~Splitter() = default;

absl::StatusOr<std::unique_ptr<Splitter>> Splitter::Make(const std::vector<std::string>& patterns) {
  std::unique_ptr<Splitter> splitter(new Splitter());
  for (const std::string& text : patterns) {
    auto pattern = std::make_unique<Pattern>();
    STARLING_RETURN_IF_ERROR(pattern->Compile(text));
    splitter->compiled_.push_back(std::move(pattern));
  }
  splitter->patterns_ = patterns;
  return splitter;
}

absl::Status Splitter::Cut(const char* text, size_t bytes, const Sink& sink) const {
  if (bytes == 0) return absl::OkStatus();
  if (compiled_.empty()) return sink(text, bytes);
  Scratch scratch;
  return CutBy(0, text, bytes, &scratch, sink);
}

absl::Status Splitter::CutBy(size_t pattern, const char* text, size_t bytes, Scratch* scratch,
                             const Sink& sink) const {
  const auto give = [&](size_t begin, size_t end) {
    if (begin == end) return absl::OkStatus();
    if (pattern + 1 == compiled_.size()) return sink(text + begin, end - begin);
    return CutBy(pattern + 1, text + begin, end - begin, scratch, sink);
  };
  size_t given = 0;
  size_t from = 0;
  while (from < bytes) {
    size_t begin = 0;
    size_t end = 0;
    STARLING_ASSIGN_OR_RETURN(const bool found, scratch->Find(compiled_[pattern]->code(), text,
                                                              bytes, from, &begin, &end));
    if (!found) break;
    if (begin == end) {  // a match of nothing cuts nothing
      if (end >= bytes) break;
      from = end + Utf8CharAt(text + end, text + bytes);
      continue;
    }
    STARLING_RETURN_IF_ERROR(give(given, begin));
    STARLING_RETURN_IF_ERROR(give(begin, end));
    given = from = end;
  }
  return give(given, bytes);
}

}  // namespace starling
