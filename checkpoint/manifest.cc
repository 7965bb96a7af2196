#include "checkpoint/manifest.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "starling-checkpoint";

Json ToJson(const Manifest& manifest) {
  const CheckpointMeta& meta = manifest.meta;
  Json json;
  json["format"] = kFormat;
  json["format_version"] = kCheckpointFormat;
  json["run"] = absl::StrFormat("%016x", Value(meta.run));
  json["era"] = Value(meta.era);
  json["version"] = Value(meta.version);
  json["updates"] = meta.updates;
  json["sequences"] = meta.sequences;
  json["text_sha256"] = meta.text_sha256;
  json["config"] = meta.config_toml;
  json["parameters"] = Json::array();
  for (const ManifestParameter& parameter : manifest.parameters) {
    json["parameters"].push_back({{"name", parameter.name}, {"shape", parameter.shape}});
  }
  json["files"] = Json::array();
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"xxh128", ToHex(file.hash)}});
  }
  return json;
}

std::string Dump(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace);
}

// Reads members of one object; remembers whether all were there and of their type.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object), ok_(object.is_object()) {}

  bool ok() const { return ok_; }

  std::string Text(const char* key) {
    const Json* member = Member(key);
    if (member == nullptr || !member->is_string()) return Bad<std::string>();
    return member->get<std::string>();
  }

  uint64_t Number(const char* key, uint64_t most = std::numeric_limits<uint64_t>::max()) {
    const Json* member = Member(key);
    if (member == nullptr || !member->is_number_unsigned()) return Bad<uint64_t>();
    const auto number = member->get<uint64_t>();
    return number <= most ? number : Bad<uint64_t>();
  }

  const Json& List(const char* key) {
    static const Json* const kEmpty = new Json(Json::array());
    const Json* member = Member(key);
    if (member != nullptr && member->is_array()) return *member;
    ok_ = false;
    return *kEmpty;
  }

 private:
  const Json* Member(const char* key) const {
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  template <typename T>
  T Bad() {
    ok_ = false;
    return T();
  }

  const Json& object_;
  bool ok_;
};

bool ReadMeta(Reader& reader, CheckpointMeta* meta) {
  uint64_t run = 0;
  const bool run_ok = absl::SimpleHexAtoi(reader.Text("run"), &run);
  meta->run = RunId{run};
  meta->era = static_cast<Era>(reader.Number("era", std::numeric_limits<uint32_t>::max()));
  meta->version = static_cast<Version>(reader.Number("version"));
  meta->updates = reader.Number("updates");
  meta->sequences = reader.Number("sequences");
  meta->text_sha256 = reader.Text("text_sha256");
  meta->config_toml = reader.Text("config");
  return run_ok && reader.ok();
}

bool ReadParameter(const Json& json, ManifestParameter* parameter) {
  Reader reader(json);
  parameter->name = reader.Text("name");
  for (const Json& extent : reader.List("shape")) {
    if (!extent.is_number_unsigned()) return false;
    parameter->shape.push_back(extent.get<int64_t>());
  }
  return reader.ok();
}

// A name that stays within the folder.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

bool ReadFile(const Json& json, ManifestFile* file) {
  Reader reader(json);
  file->name = reader.Text("name");
  file->bytes = reader.Number("bytes");
  return FromHex(reader.Text("xxh128"), &file->hash) && reader.ok() && IsPlainName(file->name);
}

bool ReadManifest(Reader& reader, Manifest* manifest) {
  if (!ReadMeta(reader, &manifest->meta)) return false;
  for (const Json& json : reader.List("parameters")) {
    manifest->parameters.emplace_back();
    if (!ReadParameter(json, &manifest->parameters.back())) return false;
  }
  for (const Json& json : reader.List("files")) {
    manifest->files.emplace_back();
    if (!ReadFile(json, &manifest->files.back())) return false;
  }
  return reader.ok();
}

}  // namespace

std::string PrintManifest(const Manifest& manifest) {
  Json json = ToJson(manifest);
  const std::string body = Dump(json);
  json["checksum"] = Sha256Hex(body.data(), body.size());
  return Dump(json) + "\n";
}

absl::StatusOr<Manifest> ParseManifest(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  Reader reader(json);
  if (!reader.ok() || reader.Text("format") != kFormat) {
    return absl::DataLossError("not a checkpoint's manifest");
  }
  const uint64_t format = reader.Number("format_version");
  if (reader.ok() && format != kCheckpointFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat("of checkpoint format ", format, "; this Starling reads format ",
                     kCheckpointFormat, ": use the version that wrote it"));
  }
  Manifest manifest;
  // The text must be what is printed for what was read: this covers checksum, order and spelling.
  if (!ReadManifest(reader, &manifest) || PrintManifest(manifest) != text) {
    return absl::DataLossError("damaged or altered");
  }
  return manifest;
}

}  // namespace starling
