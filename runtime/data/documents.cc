#include "runtime/data/documents.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace starling {
namespace {

// Takes one member's text out of an object, without building the rest.
class TextOfLine final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit TextOfLine(const std::string& wanted) : wanted_(wanted) {}

  // What is wrong with a line that was parsed to its end; empty: text() is there.
  std::string Problem() const {
    if (!syntax_.empty()) return syntax_;
    if (!object_) return "is no JSON object";
    if (!found_) return absl::StrCat("has no \"", wanted_, "\"");
    if (!is_text_) return absl::StrCat("\"", wanted_, "\" is no text");
    return "";
  }
  const std::string& text() const { return text_; }

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool string(string_t& text) override {
    const bool wanted = is_next_;
    Value();
    if (wanted) {
      text_ = std::move(text);
      is_text_ = true;
    }
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 0) object_ = true;
    return Open();
  }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(); }
  bool end_array() override { return Close(); }
  bool key(string_t& key) override {
    if (depth_ == 1) is_next_ = key == wanted_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& error) override {
    const bool encoding = absl::StrContains(error.what(), "UTF-8");
    syntax_ = absl::StrCat(encoding ? "is no UTF-8" : "is no JSON", ", at byte ", position);
    return false;
  }

 private:
  bool Value() {
    if (is_next_) {
      found_ = true;
      is_text_ = false;
      is_next_ = false;
    }
    return true;
  }
  bool Open() {
    Value();
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return true;
  }

  const std::string& wanted_;
  uint64_t depth_ = 0;
  bool object_ = false;   // the line is one
  bool is_next_ = false;  // the next value is the wanted one, of the line itself
  bool found_ = false;
  bool is_text_ = false;
  std::string text_;
  std::string syntax_;
};

bool IsBlank(const char* begin, const char* end) {
  return std::all_of(begin, end, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
}

void BeginDocument(const Tokenizer& tokenizer, const DocumentOptions& options,
                   TokenizedChunk* result) {
  if (!options.separate) return;
  const std::vector<uint32_t> prefix = tokenizer.prefix();
  result->tokens.insert(result->tokens.end(), prefix.begin(), prefix.end());
}

void EndDocument(const Tokenizer& tokenizer, const DocumentOptions& options,
                 TokenizedChunk* result) {
  if (options.separate) result->tokens.push_back(tokenizer.separator());
  result->document_ends.push_back(result->tokens.size());
}

// What is wrong with the line, or nothing.
std::string TokenizeLine(const Tokenizer& tokenizer, const char* begin, const char* end,
                         const DocumentOptions& options, TokenizedChunk* result) {
  TextOfLine line(options.text_key);
  nlohmann::json::sax_parse(begin, end, &line);
  std::string problem = line.Problem();
  if (!problem.empty() || line.text().empty()) return problem;
  BeginDocument(tokenizer, options, result);
  const absl::Status status =
      tokenizer.Encode(line.text().data(), line.text().size(), &result->tokens);
  if (!status.ok()) return std::string(status.message());
  EndDocument(tokenizer, options, result);
  return "";
}

TokenizedChunk TokenizeLines(const Tokenizer& tokenizer, const Blob& file, FileChunk chunk,
                             const DocumentOptions& options) {
  TokenizedChunk result;
  const auto* const bytes = reinterpret_cast<const char*>(file.data());
  const char* const file_end = bytes + file.size_bytes();
  const auto after_line = [&](const char* from) {
    const void* found = std::memchr(from, '\n', static_cast<size_t>(file_end - from));
    return found == nullptr ? file_end : static_cast<const char*>(found) + 1;
  };
  const char* line = bytes + chunk.begin;
  if (chunk.begin > 0 && line[-1] != '\n') line = after_line(line);
  while (line < bytes + chunk.end) {
    const char* const next = after_line(line);
    const char* const end = next[-1] == '\n' ? next - 1 : next;
    ++result.lines;
    if (!IsBlank(line, end)) {
      result.problem = TokenizeLine(tokenizer, line, end, options, &result);
      if (!result.problem.empty()) {
        result.problem_line = result.lines;
        return result;
      }
    }
    line = next;
  }
  return result;
}

}  // namespace

bool IsJsonLines(const std::string& path) {
  return absl::EndsWith(path, ".jsonl") || absl::EndsWith(path, ".ndjson");
}

std::vector<FileChunk> ChunksOf(uint64_t file_bytes, bool json_lines, const Tokenizer& tokenizer,
                                const DocumentOptions& options) {
  std::vector<FileChunk> chunks;
  const bool cut = json_lines || tokenizer.divisible();
  const uint64_t length = cut ? options.chunk_bytes : std::max<uint64_t>(file_bytes, 1);
  for (uint64_t begin = 0; begin < file_bytes; begin += length) {
    chunks.push_back({begin, std::min(begin + length, file_bytes)});
  }
  return chunks;
}

TokenizedChunk TokenizeChunk(const Tokenizer& tokenizer, const Blob& file, bool json_lines,
                             FileChunk chunk, const DocumentOptions& options) {
  if (json_lines) return TokenizeLines(tokenizer, file, chunk, options);
  TokenizedChunk result;
  if (chunk.begin == 0) BeginDocument(tokenizer, options, &result);
  const absl::Status status =
      tokenizer.Encode(reinterpret_cast<const char*>(file.data()) + chunk.begin,
                       chunk.end - chunk.begin, &result.tokens);
  if (!status.ok()) {
    result.problem = std::string(status.message());
  } else if (chunk.end == file.size_bytes()) {
    EndDocument(tokenizer, options, &result);
  }
  return result;
}

}  // namespace starling
