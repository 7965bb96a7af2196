#include "runtime/data/shard_index.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "starling-shards";
constexpr uint64_t kFormatVersion = 1;

// Reads members of an object and remembers the first that is not there or not as it should be.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {
    if (!object.is_object()) bad_ = "it is no JSON object";
  }

  const std::string& bad() const { return bad_; }

  std::string Text(const char* key) {
    const Json* member = Find(key);
    if (member != nullptr && member->is_string()) return member->get<std::string>();
    return Bad<std::string>(key);
  }
  uint64_t Number(const char* key, uint64_t most) {
    const Json* member = Find(key);
    if (member != nullptr && member->is_number_unsigned() && member->get<uint64_t>() <= most) {
      return member->get<uint64_t>();
    }
    return Bad<uint64_t>(key);
  }
  std::optional<uint32_t> NumberOrNull(const char* key, uint64_t most) {
    const Json* member = Find(key);
    if (member != nullptr && member->is_null()) return std::nullopt;
    return static_cast<uint32_t>(Number(key, most));
  }
  const Json& List(const char* key) {
    static const Json* const empty = new Json(Json::array());
    const Json* member = Find(key);
    if (member != nullptr && member->is_array()) return *member;
    Bad<int>(key);
    return *empty;
  }
  template <typename T>
  T Bad(const char* key) {
    if (bad_.empty()) bad_ = absl::StrCat("\"", key, "\" is missing or cannot be");
    return T();
  }

 private:
  const Json* Find(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  const Json& object_;
  std::string bad_;
};

constexpr uint64_t kMaxToken = std::numeric_limits<uint32_t>::max() - 1;

// Adds one shard to `index`; gives what is wrong with it.
std::string ReadEntry(const Json& json, ShardIndex* index) {
  Reader reader(json);
  ShardEntry entry;
  const std::string name = reader.Text("name");
  entry.tokens = reader.Number("tokens", kMaxShardTokens);
  entry.maximum = static_cast<uint32_t>(reader.Number("maximum", kMaxToken));
  if (!FromHex(reader.Text("fingerprint"), &entry.fingerprint)) reader.Bad<int>("fingerprint");
  if (entry.maximum >= index->vocabulary) reader.Bad<int>("maximum");
  if (!index->shards.emplace(name, entry).second) reader.Bad<int>("name");
  return reader.bad();
}

absl::Status NotAnIndex(const std::string& why) {
  return absl::DataLossError(
      absl::StrCat("not a list of shards as starling tokenize writes it: ", why));
}

}  // namespace

std::string PrintShardIndex(const ShardIndex& index) {
  Json list = Json::array();
  for (const auto& [name, entry] : index.shards) {
    list.push_back({{"name", name},
                    {"tokens", entry.tokens},
                    {"maximum", entry.maximum},
                    {"fingerprint", ToHex(entry.fingerprint)}});
  }
  Json json = {{"format", kFormat},
               {"format_version", kFormatVersion},
               {"tokenizer", index.tokenizer},
               {"vocabulary", index.vocabulary},
               {"separator", nullptr},
               {"shards", std::move(list)}};
  if (index.separator) json["separator"] = *index.separator;
  return json.dump(2) + "\n";
}

absl::StatusOr<ShardIndex> ParseShardIndex(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return NotAnIndex("it is no JSON");
  Reader reader(json);
  if (reader.Text("format") != kFormat && reader.bad().empty()) reader.Bad<int>("format");
  const uint64_t version = reader.Number("format_version", std::numeric_limits<uint64_t>::max());
  if (reader.bad().empty() && version != kFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("is of format version ", version,
                                                      "; this Starling reads ", kFormatVersion,
                                                      ": use the version that wrote it"));
  }
  ShardIndex index;
  index.tokenizer = reader.Text("tokenizer");
  index.vocabulary = static_cast<uint32_t>(reader.Number("vocabulary", kMaxToken));
  index.separator = reader.NumberOrNull("separator", kMaxToken);
  if (!reader.bad().empty()) return NotAnIndex(reader.bad());
  for (const Json& item : reader.List("shards")) {
    const size_t number = index.shards.size() + 1;
    const std::string bad = ReadEntry(item, &index);
    if (!bad.empty()) return NotAnIndex(absl::StrCat("shard ", number, ": ", bad));
  }
  if (!reader.bad().empty()) return NotAnIndex(reader.bad());
  return index;
}

absl::Status CheckListed(const ShardEntry& entry, const TokenShard& shard) {
  if (shard.tokens.tokens() != entry.tokens) {
    return absl::DataLossError(absl::StrCat(shard.path, ": holds ", shard.tokens.tokens(),
                                            " tokens, but ", kShardIndexName, " says ",
                                            entry.tokens, ": it is not the file that was listed"));
  }
  if (FingerprintOf(shard.tokens) != entry.fingerprint) {
    return absl::DataLossError(absl::StrCat(shard.path, ": its tokens are not those that ",
                                            kShardIndexName,
                                            " lists: it was changed or took another's name"));
  }
  return absl::OkStatus();
}

}  // namespace starling
