#include "runtime/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"
#include "runtime/tokenizer/byte_alphabet.h"

namespace starling {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxToken = std::numeric_limits<int32_t>::max() - 1;
// Where nothing says what ends a text, the first of these that there is.
constexpr const char* kKnownEnds[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};

absl::Status Damaged(const std::string& what) { return absl::DataLossError(what); }

absl::Status NotSupported(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(what, " is not supported"));
}

std::string Brief(const Json& value) {
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

const Json& Member(const Json& object, const char* key) {
  static const Json* const null = new Json();
  const auto found = object.find(key);
  return found == object.end() ? *null : *found;
}

absl::StatusOr<bool> Flag(const Json& object, const char* key, bool otherwise) {
  const Json& value = Member(object, key);
  if (value.is_null()) return otherwise;
  if (value.is_boolean()) return value.get<bool>();
  return Damaged(absl::StrCat("\"", key, "\" is ", Brief(value), ", neither true nor false"));
}

absl::StatusOr<uint32_t> TokenId(const Json& value, const std::string& of) {
  if (value.is_number_unsigned() && value.get<uint64_t>() <= kMaxToken) {
    return static_cast<uint32_t>(value.get<uint64_t>());
  }
  return Damaged(
      absl::StrCat("the id of \"", of, "\" is ", Brief(value), ", which is no number of a token"));
}

// The "type" of a part such as a normalizer.
absl::StatusOr<std::string> TypeOf(const Json& part, const char* what) {
  if (!part.is_object() || !Member(part, "type").is_string()) {
    return Damaged(absl::StrCat("\"", what, "\" has no \"type\""));
  }
  return Member(part, "type").get<std::string>();
}

// The parts of a "Sequence", or the one part; of null none.
absl::StatusOr<std::vector<const Json*>> PartsOf(const Json& part, const char* what,
                                                 const char* list) {
  std::vector<const Json*> parts;
  if (part.is_null()) return parts;
  STARLING_ASSIGN_OR_RETURN(const std::string type, TypeOf(part, what));
  if (type != "Sequence") return std::vector<const Json*>{&part};
  const Json& members = Member(part, list);
  if (!members.is_array()) return Damaged(absl::StrCat("\"", what, "\" has no \"", list, "\""));
  for (const Json& member : members) parts.push_back(&member);
  return parts;
}

absl::Status ReadVocabulary(const Json& vocab, ByteBpeParts* parts) {
  if (!vocab.is_object() || vocab.empty()) return Damaged("it has no vocabulary");
  std::map<uint32_t, const std::string*> by_id;
  for (auto entry = vocab.begin(); entry != vocab.end(); ++entry) {
    const std::string& text = entry.key();
    STARLING_ASSIGN_OR_RETURN(const uint32_t id, TokenId(entry.value(), text));
    const auto [known, is_new] = by_id.emplace(id, &text);
    if (!is_new) {
      return Damaged(absl::StrCat("\"", *known->second, "\" and \"", text, "\" both have id ", id));
    }
    std::string bytes;
    if (!text.empty() && FromByteAlphabet(text, &bytes)) {
      parts->model.tokens.emplace_back(std::move(bytes), id);
    } else {
      parts->literals.emplace_back(text, id);
    }
  }
  return absl::OkStatus();
}

absl::Status AddMerge(const std::string& left, const std::string& right, ByteBpeParts* parts) {
  std::pair<std::string, std::string> merge;
  if (left.empty() || right.empty() || !FromByteAlphabet(left, &merge.first) ||
      !FromByteAlphabet(right, &merge.second)) {
    return Damaged(absl::StrCat("merge ", parts->model.merges.size() + 1, " (\"", left, " ", right,
                                "\") is not two tokens of bytes"));
  }
  parts->model.merges.push_back(std::move(merge));
  return absl::OkStatus();
}

// "a b".
absl::Status AddMergeLine(const std::string& line, ByteBpeParts* parts) {
  const size_t space = line.find(' ');
  if (space == std::string::npos) return AddMerge(line, "", parts);
  return AddMerge(line.substr(0, space), line.substr(space + 1), parts);
}

absl::Status ReadMerges(const Json& merges, ByteBpeParts* parts) {
  if (!merges.is_array()) return Damaged("it has no list \"merges\"");
  for (const Json& merge : merges) {
    if (merge.is_string()) {
      STARLING_RETURN_IF_ERROR(AddMergeLine(merge.get_ref<const std::string&>(), parts));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      STARLING_RETURN_IF_ERROR(AddMerge(merge[0].get_ref<const std::string&>(),
                                        merge[1].get_ref<const std::string&>(), parts));
    } else {
      return Damaged(absl::StrCat("merge ", parts->model.merges.size() + 1, " is ", Brief(merge),
                                  ", not two tokens"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const Json& model, ByteBpeParts* parts) {
  if (!model.is_object()) return Damaged("it has no \"model\"");
  const Json& type = Member(model, "type");
  if (!type.is_null() && type != "BPE") {
    return NotSupported(absl::StrCat("model.type ", Brief(type), " (only \"BPE\" is)"));
  }
  const Json& dropout = Member(model, "dropout");
  if (!dropout.is_null() && dropout != 0.0) {
    return NotSupported(absl::StrCat("model.dropout ", Brief(dropout)));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json& value = Member(model, key);
    if (!value.is_null() && value != "") {
      return NotSupported(absl::StrCat("model.", key, " ", Brief(value)));
    }
  }
  STARLING_ASSIGN_OR_RETURN(const bool fallback, Flag(model, "byte_fallback", false));
  if (fallback) {
    return NotSupported("model.byte_fallback (a tokenizer of sentencepiece: its .model is read)");
  }
  STARLING_ASSIGN_OR_RETURN(parts->model.ignore_merges, Flag(model, "ignore_merges", false));
  STARLING_RETURN_IF_ERROR(ReadVocabulary(Member(model, "vocab"), parts));
  return ReadMerges(Member(model, "merges"), parts);
}

absl::Status ReadAddedToken(const Json& json, ByteBpeParts* parts) {
  const Json& content = json.is_object() ? Member(json, "content") : json;
  if (!json.is_object() || !content.is_string() || content.get_ref<const std::string&>().empty()) {
    return Damaged(absl::StrCat("added token ", parts->added.size() + 1, " has no \"content\""));
  }
  AddedToken token;
  token.text = content.get<std::string>();
  STARLING_ASSIGN_OR_RETURN(token.id, TokenId(Member(json, "id"), token.text));
  for (const char* key : {"single_word", "lstrip", "rstrip"}) {
    STARLING_ASSIGN_OR_RETURN(const bool set, Flag(json, key, false));
    if (set) return NotSupported(absl::StrCat(key, " of the added token \"", token.text, "\""));
  }
  STARLING_ASSIGN_OR_RETURN(token.special, Flag(json, "special", false));
  STARLING_ASSIGN_OR_RETURN(token.normalized, Flag(json, "normalized", !token.special));
  parts->added.push_back(std::move(token));
  return absl::OkStatus();
}

// Added tokens may repeat what the vocabulary says, but not contradict it or each other.
absl::Status CheckAddedTokens(const ByteBpeParts& parts) {
  std::map<uint32_t, std::string> text_of;
  std::map<std::string, uint32_t> id_of;
  const auto add = [&](const std::string& text, uint32_t id) {
    const auto by_id = text_of.emplace(id, text).first;
    const auto by_text = id_of.emplace(text, id).first;
    if (by_id->second == text && by_text->second == id) return absl::OkStatus();
    if (by_id->second != text) {
      return Damaged(absl::StrCat("\"", by_id->second, "\" and \"", text, "\" both have id ", id));
    }
    return Damaged(absl::StrCat("\"", text, "\" has two ids, ", by_text->second, " and ", id));
  };
  for (const AddedToken& token : parts.added) STARLING_RETURN_IF_ERROR(add(token.text, token.id));
  for (const auto& tokens : {&parts.model.tokens, &parts.literals}) {
    for (const auto& [text, id] : *tokens) {
      if (text_of.count(id) > 0 || id_of.count(text) > 0) {
        STARLING_RETURN_IF_ERROR(add(text, id));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const Json& list, ByteBpeParts* parts) {
  if (!list.is_null() && !list.is_array()) return Damaged("\"added_tokens\" is no list");
  for (const Json& json : list) STARLING_RETURN_IF_ERROR(ReadAddedToken(json, parts));
  return CheckAddedTokens(*parts);
}

absl::Status ReadNormalizer(const Json& json, ByteBpeParts* parts) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<const Json*> list,
                            PartsOf(json, "normalizer", "normalizers"));
  if (list.size() > 1) return NotSupported("a normalizer of several");
  for (const Json* part : list) {
    STARLING_ASSIGN_OR_RETURN(const std::string type, TypeOf(*part, "normalizer"));
    for (const NormalForm form :
         {NormalForm::kNfc, NormalForm::kNfd, NormalForm::kNfkc, NormalForm::kNfkd}) {
      if (type == ToString(form)) parts->normal_form = form;
    }
    if (parts->normal_form == NormalForm::kNone) {
      return NotSupported(absl::StrCat("normalizer \"", type, "\""));
    }
  }
  return absl::OkStatus();
}

// A text as a pattern that matches it alone.
std::string Quoted(const std::string& text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = static_cast<unsigned char>(c) >= 0x80 || (c >= '0' && c <= '9') ||
                       (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    if (!plain) pattern.push_back('\\');
    pattern.push_back(c);
  }
  return pattern;
}

absl::Status ReadSplit(const Json& json, ByteBpeParts* parts) {
  const Json& behavior = Member(json, "behavior");
  if (behavior != "Isolated") {
    return NotSupported(absl::StrCat("pre_tokenizer \"Split\" with behavior ", Brief(behavior),
                                     " (only \"Isolated\" is)"));
  }
  STARLING_ASSIGN_OR_RETURN(const bool invert, Flag(json, "invert", false));
  if (invert) return NotSupported("pre_tokenizer \"Split\" with invert");
  const Json& pattern = Member(json, "pattern");
  const Json& regex = pattern.is_object() ? Member(pattern, "Regex") : pattern;
  const Json& text = pattern.is_object() ? Member(pattern, "String") : pattern;
  if (pattern.is_object() && regex.is_string()) {
    parts->patterns.push_back(regex.get<std::string>());
  } else if (pattern.is_object() && text.is_string()) {
    parts->patterns.push_back(Quoted(text.get<std::string>()));
  } else {
    return Damaged("pre_tokenizer \"Split\" has no pattern");
  }
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const Json& json, ByteBpeParts* parts) {
  STARLING_ASSIGN_OR_RETURN(parts->space_first, Flag(json, "add_prefix_space", true));
  STARLING_ASSIGN_OR_RETURN(const bool use_regex, Flag(json, "use_regex", true));
  if (use_regex) parts->patterns.emplace_back(kGpt2Pattern);
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Json& json, ByteBpeParts* parts) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<const Json*> list,
                            PartsOf(json, "pre_tokenizer", "pretokenizers"));
  bool byte_level = false;
  for (const Json* part : list) {
    STARLING_ASSIGN_OR_RETURN(const std::string type, TypeOf(*part, "pre_tokenizer"));
    if (byte_level) {
      return NotSupported(absl::StrCat("pre_tokenizer \"", type, "\" behind \"ByteLevel\""));
    }
    if (type == "ByteLevel") {
      byte_level = true;
      STARLING_RETURN_IF_ERROR(ReadByteLevel(*part, parts));
    } else if (type == "Split") {
      STARLING_RETURN_IF_ERROR(ReadSplit(*part, parts));
    } else if (type == "Digits") {
      STARLING_ASSIGN_OR_RETURN(const bool single, Flag(*part, "individual_digits", false));
      parts->patterns.emplace_back(single ? "\\p{N}" : "\\p{N}+");
    } else {
      return NotSupported(absl::StrCat("pre_tokenizer \"", type, "\""));
    }
  }
  if (byte_level) return absl::OkStatus();
  return NotSupported("a tokenizer whose pre_tokenizer is not \"ByteLevel\"");
}

absl::Status CheckDecoder(const Json& json) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<const Json*> list,
                            PartsOf(json, "decoder", "decoders"));
  for (const Json* part : list) {
    STARLING_ASSIGN_OR_RETURN(const std::string type, TypeOf(*part, "decoder"));
    if (type != "ByteLevel" && type != "Fuse") {
      return NotSupported(absl::StrCat("decoder \"", type, "\""));
    }
  }
  return absl::OkStatus();
}

// What a template puts before a text.
absl::Status ReadTemplate(const Json& json, ByteBpeParts* parts) {
  const Json& single = Member(json, "single");
  const Json& special = Member(json, "special_tokens");
  if (!single.is_array() || !special.is_object()) {
    return Damaged(
        "post_processor \"TemplateProcessing\" has no \"single\" or no \"special_tokens\"");
  }
  for (const Json& item : single) {
    if (item.is_object() && item.contains("Sequence")) break;
    const Json& token = item.is_object() ? Member(item, "SpecialToken") : item;
    const Json& id = token.is_object() ? Member(token, "id") : token;
    if (!token.is_object() || !id.is_string()) {
      return Damaged(absl::StrCat("post_processor \"TemplateProcessing\" has ", Brief(item)));
    }
    const Json& entry = Member(special, id.get_ref<const std::string&>().c_str());
    const Json& ids = entry.is_object() ? Member(entry, "ids") : entry;
    if (!ids.is_array()) {
      return Damaged(absl::StrCat("post_processor \"TemplateProcessing\" does not say what ",
                                  Brief(id), " is"));
    }
    for (const Json& one : ids) {
      STARLING_ASSIGN_OR_RETURN(const uint32_t number, TokenId(one, id.get<std::string>()));
      parts->prefix.push_back(number);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const Json& json, ByteBpeParts* parts) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<const Json*> list,
                            PartsOf(json, "post_processor", "processors"));
  for (const Json* part : list) {
    STARLING_ASSIGN_OR_RETURN(const std::string type, TypeOf(*part, "post_processor"));
    if (type == "TemplateProcessing") {
      STARLING_RETURN_IF_ERROR(ReadTemplate(*part, parts));
    } else if (type != "ByteLevel") {  // whose business is offsets only
      return NotSupported(absl::StrCat("post_processor \"", type, "\""));
    }
  }
  return absl::OkStatus();
}

std::optional<uint32_t> IdOf(const ByteBpeParts& parts, const std::string& text) {
  for (const AddedToken& token : parts.added) {
    if (token.text == text) return token.id;
  }
  for (const auto& tokens : {&parts.literals, &parts.model.tokens}) {
    for (const auto& [known, id] : *tokens) {
      if (known == text) return id;
    }
  }
  return std::nullopt;
}

absl::Status SetEnds(const TokenizerConfig& config, ByteBpeParts* parts) {
  parts->separator = config.eos;
  for (const char* known : kKnownEnds) {
    if (parts->separator.empty() && IdOf(*parts, known)) parts->separator = known;
  }
  if (!config.bos_first || config.bos.empty()) return absl::OkStatus();
  const std::optional<uint32_t> bos = IdOf(*parts, config.bos);
  if (!bos) {
    return Damaged(absl::StrCat("\"", config.bos,
                                "\", which begins a text, is not in the "
                                "vocabulary"));
  }
  if (*config.bos_first && parts->prefix.empty()) parts->prefix = {*bos};
  if (!*config.bos_first && parts->prefix == std::vector<uint32_t>{*bos}) parts->prefix.clear();
  return absl::OkStatus();
}

// "<s>", or {"content": "<s>", ...}.
std::string SpecialText(const Json& json) {
  const Json& content = json.is_object() ? Member(json, "content") : json;
  return content.is_string() ? content.get<std::string>() : "";
}

std::string Escaped(const std::string& bytes) { return Json(ToByteAlphabet(bytes)).dump(); }

}  // namespace

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged("it is no JSON object");
  TokenizerConfig config;
  config.eos = SpecialText(Member(json, "eos_token"));
  config.bos = SpecialText(Member(json, "bos_token"));
  const Json& first = Member(json, "add_bos_token");
  if (first.is_boolean()) config.bos_first = first.get<bool>();
  return config;
}

absl::StatusOr<ByteBpeParts> ParseTokenizerJson(const std::string& text,
                                                const TokenizerConfig& config) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Damaged("it is no JSON, or cut off");
  if (!json.is_object()) return Damaged("it is no JSON object");
  ByteBpeParts parts;
  // What makes the tokens before the tokens themselves: it says sooner that it is another kind.
  STARLING_RETURN_IF_ERROR(ReadNormalizer(Member(json, "normalizer"), &parts));
  STARLING_RETURN_IF_ERROR(ReadModel(Member(json, "model"), &parts));
  STARLING_RETURN_IF_ERROR(ReadPreTokenizer(Member(json, "pre_tokenizer"), &parts));
  STARLING_RETURN_IF_ERROR(CheckDecoder(Member(json, "decoder")));
  STARLING_RETURN_IF_ERROR(ReadAddedTokens(Member(json, "added_tokens"), &parts));
  STARLING_RETURN_IF_ERROR(ReadPostProcessor(Member(json, "post_processor"), &parts));
  STARLING_RETURN_IF_ERROR(SetEnds(config, &parts));
  return parts;
}

absl::StatusOr<ByteBpeParts> ParseVocabAndMerges(const std::string& vocab,
                                                 const std::string& merges,
                                                 const TokenizerConfig& config) {
  const Json json = Json::parse(vocab, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Damaged("vocab.json is no JSON, or cut off");
  ByteBpeParts parts;
  parts.patterns = {kGpt2Pattern};
  STARLING_RETURN_IF_ERROR(ReadVocabulary(json, &parts));
  for (const auto& piece : absl::StrSplit(merges, '\n')) {
    std::string line(piece);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const bool heading = parts.model.merges.empty() && line.compare(0, 8, "#version") == 0;
    if (!line.empty() && !heading) STARLING_RETURN_IF_ERROR(AddMergeLine(line, &parts));
  }
  STARLING_RETURN_IF_ERROR(SetEnds(config, &parts));
  if (!parts.separator.empty()) {
    AddedToken end{parts.separator, 0, /*special=*/true, /*normalized=*/false};
    const std::optional<uint32_t> id = IdOf(parts, end.text);
    if (!id) {
      return Damaged(absl::StrCat("\"", end.text, "\", which ends a text, is not in vocab.json"));
    }
    end.id = *id;
    parts.added.push_back(std::move(end));
  }
  return parts;
}

Gpt2Files PrintGpt2Files(const std::vector<std::string>& tokens,
                         const std::vector<std::pair<std::string, std::string>>& merges,
                         const std::string& separator) {
  std::string vocab;
  for (size_t id = 0; id < tokens.size(); ++id) {
    absl::StrAppend(&vocab, Escaped(tokens[id]), ":", id, ",");
  }
  absl::StrAppend(&vocab, Json(separator).dump(), ":", tokens.size());
  Gpt2Files files;
  files.vocab_json = absl::StrCat("{", vocab, "}\n");
  files.merges_txt = "#version: 0.2\n";
  std::string list;
  for (const auto& [left, right] : merges) {
    const std::string line = absl::StrCat(ToByteAlphabet(left), " ", ToByteAlphabet(right));
    absl::StrAppend(&files.merges_txt, line, "\n");
    absl::StrAppend(&list, list.empty() ? "" : ",", "\n      ", Json(line).dump());
  }
  constexpr char kByteLevel[] =
      R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";
  files.tokenizer_json = absl::StrCat(
      "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n",
      "  \"added_tokens\": [{\"id\": ", tokens.size(), ", \"content\": ", Json(separator).dump(),
      ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
      "\"special\": true}],\n  \"normalizer\": null,\n  \"pre_tokenizer\": ",
      kByteLevel, ",\n  \"post_processor\": ", kByteLevel, ",\n  \"decoder\": ", kByteLevel,
      ",\n  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
      "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", \"fuse_unk\": false, "
      "\"byte_fallback\": false, \"ignore_merges\": false,\n    \"vocab\": {",
      vocab, "},\n    \"merges\": [", list, "]\n  }\n}\n");
  return files;
}

}  // namespace starling
