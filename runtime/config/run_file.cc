#include "runtime/config/run_file.h"

#include <toml++/toml.h>

#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_keys.h"
#include "runtime/config/run_rules.h"

namespace starling {
namespace {

// Where something was written. Override `n` counts as a line after the file's last.
struct Place {
  bool is_override = false;
  uint32_t line = 0;  // of the file, or the override's number

  friend bool operator<(const Place& a, const Place& b) {
    return std::tie(a.is_override, a.line) < std::tie(b.is_override, b.line);
  }
};

struct Given {
  Place place;
  ConfigValue value;
  std::string raw;  // overrides: the text after '='
};

struct Problem {
  Place place;
  std::string key;
  std::string message;
};

ConfigValue FromToml(const toml::node& node) {
  ConfigValue value;
  if (const auto* boolean = node.as_boolean()) {
    value.kind = ConfigValue::Kind::kBool;
    value.boolean = boolean->get();
  } else if (const auto* integer = node.as_integer()) {
    value.kind = ConfigValue::Kind::kInteger;
    value.integer = integer->get();
  } else if (const auto* real = node.as_floating_point()) {
    value.kind = ConfigValue::Kind::kReal;
    value.real = real->get();
  } else if (const auto* text = node.as_string()) {
    value = ConfigValue::OfText(text->get());
  } else if (const auto* list = node.as_array()) {
    value.kind = ConfigValue::Kind::kList;
    for (const toml::node& item : *list) value.list.push_back(FromToml(item));
  }
  return value;
}

// toml++ throws on a syntax error; the line is where it was seen.
struct SyntaxError {
  uint32_t line = 0;
  std::string message;
};

bool ParseToml(const std::string& text, toml::table* table, SyntaxError* error) {
  try {
    *table = toml::parse(text);
    return true;
  } catch (const toml::parse_error& caught) {
    error->line = caught.source().begin.line;
    error->message = absl::StrReplaceAll(std::string(caught.description()), {{"\n", " "}});
    return false;
  }
}

class Parser {
 public:
  explicit Parser(std::string file_name) : file_name_(std::move(file_name)) {}

  absl::StatusOr<RunConfig> Parse(const std::string& text,
                                  const std::vector<std::string>& overrides) {
    toml::table table;
    SyntaxError error;
    if (!ParseToml(text, &table, &error)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_name_, ":", error.line, ": ", error.message));
    }
    for (const auto& [key, node] : table) ReadSection(std::string(key.str()), key, node);
    CheckStagesOrCuts(nullptr);
    for (size_t i = 0; i < overrides.size(); ++i) ReadOverride(overrides[i], i);
    CheckStagesOrCuts(&overridden_);

    RunConfig config;
    for (const RunKey& key : RunKeys()) Set(key, &config);
    STARLING_RETURN_IF_ERROR(FirstProblem());
    if (const auto broken = FindBrokenRule(config)) return Describe(*broken);
    return config;
  }

 private:
  void ReadSection(const std::string& section, const toml::key& key, const toml::node& node) {
    const Place place{false, key.source().begin.line};
    if (DocOfSection(section).empty()) {
      const RunKey& nearest = NearestRunKey(section);
      problems_.push_back({place, section,
                           node.is_table() ? absl::StrCat("no such section; there are ", Sections())
                                           : absl::StrCat("keys belong in a section; did you mean ",
                                                          nearest.full_name(), "?")});
      return;
    }
    if (!node.is_table()) {
      problems_.push_back({place, section, absl::StrCat("is a section; write [", section, "]")});
      return;
    }
    for (const auto& [name, value] : *node.as_table()) {
      Give(section + "." + std::string(name.str()),
           {Place{false, name.source().begin.line}, FromToml(value), ""});
    }
  }

  void ReadOverride(const std::string& text, size_t number) {
    const Place place{true, static_cast<uint32_t>(number)};
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    if (equals == std::string::npos) {
      problems_.push_back({place, name, absl::StrCat("wants a value: --", name, "=VALUE")});
      return;
    }
    Given given{place, {}, text.substr(equals + 1)};
    if (!IsUtf8(given.raw)) {
      problems_.push_back({place, name, "the value is not UTF-8"});
      return;
    }
    toml::table table;
    SyntaxError ignored;
    // One value and nothing after it, or bare text.
    if (ParseToml("value = " + given.raw, &table, &ignored) && table.size() == 1) {
      given.value = FromToml(*table.get("value"));
    } else {
      given.value = ConfigValue::OfText(given.raw);
    }
    overridden_.insert(name);
    Give(name, std::move(given));
  }

  void Give(const std::string& name, Given given) {
    if (FindRunKey(name) == nullptr) {
      problems_.push_back(
          {given.place, name,
           absl::StrCat("no such key; did you mean ", NearestRunKey(name).full_name(), "?")});
      return;
    }
    given_[name] = std::move(given);
  }

  // Both in one source is a mistake; an override of one takes the place of the file's other.
  void CheckStagesOrCuts(const std::set<std::string>* overridden) {
    const auto stages = given_.find("swarm.stages");
    const auto cuts = given_.find("swarm.cuts");
    if (stages == given_.end() || cuts == given_.end()) return;
    const bool new_stages = overridden == nullptr || overridden->count("swarm.stages") > 0;
    const bool new_cuts = overridden == nullptr || overridden->count("swarm.cuts") > 0;
    const ConfigValue& list = cuts->second.value;
    const bool no_cuts = list.kind == ConfigValue::Kind::kList && list.list.empty();
    if (new_stages && new_cuts && !no_cuts) {
      problems_.push_back(
          {cuts->second.place, "swarm.cuts", "stands beside swarm.stages; give one of the two"});
    } else if (new_stages && !new_cuts) {
      given_.erase(cuts);
    } else if (new_cuts && !new_stages && !no_cuts) {
      given_.erase(stages);
    }
  }

  void Set(const RunKey& key, RunConfig* config) {
    const auto found = given_.find(key.full_name());
    if (found == given_.end()) return;
    const Given& given = found->second;
    if (key.set(given.value, config)) return;
    // An override's text may look like a number or a date.
    if (given.place.is_override && key.set(ConfigValue::OfText(given.raw), config)) {
      return;
    }
    problems_.push_back(
        {given.place, key.full_name(), absl::StrCat(ToString(given.value), " is not ", key.takes)});
  }

  static bool IsUtf8(const std::string& text) {
    toml::table table;
    SyntaxError ignored;
    return ParseToml("value = " + ToString(ConfigValue::OfText(text)), &table, &ignored);
  }

  std::string PlaceText(const Place& place, const std::string& override_key) const {
    if (place.is_override) return "--" + override_key;
    return absl::StrCat(file_name_, ":", place.line);
  }

  // "tiny.toml:7: model.heads: ..." or "--model.heads: ...".
  std::string Line(const Place& place, const std::string& written, const std::string& key,
                   const std::string& message) const {
    const std::string where = PlaceText(place, written);
    if (place.is_override && written == key) return absl::StrCat(where, ": ", message);
    return absl::StrCat(where, ": ", key, ": ", message);
  }

  absl::Status FirstProblem() const {
    const Problem* first = nullptr;
    for (const Problem& problem : problems_) {
      if (first == nullptr || problem.place < first->place) first = &problem;
    }
    if (first == nullptr) return absl::OkStatus();
    return absl::InvalidArgumentError(Line(first->place, first->key, first->key, first->message));
  }

  absl::Status Describe(const BrokenRule& broken) const {
    for (const std::string& key : broken.keys) {
      const auto found = given_.find(key);
      if (found == given_.end()) continue;
      return absl::InvalidArgumentError(
          Line(found->second.place, key, broken.keys[0], broken.message));
    }
    return absl::InvalidArgumentError(
        absl::StrCat(file_name_, ":1: ", broken.keys[0], ": ", broken.message));
  }

  static std::string Sections() {
    std::vector<std::string> names;
    for (const RunKey& key : RunKeys()) {
      if (names.empty() || names.back() != key.section) names.push_back(key.section);
    }
    return absl::StrJoin(names, ", ");
  }

  const std::string file_name_;
  std::map<std::string, Given> given_;
  std::set<std::string> overridden_;
  std::vector<Problem> problems_;
};

}  // namespace

absl::StatusOr<RunConfig> ParseRunFile(const std::string& text, const std::string& file_name,
                                       const std::vector<std::string>& overrides) {
  return Parser(file_name).Parse(text, overrides);
}

std::string ToToml(const RunConfig& config, TomlStyle style) {
  const bool documented = style == TomlStyle::kDocumented;
  std::string out;
  std::string section;
  for (const RunKey& key : RunKeys()) {
    if (key.section != section) {
      section = key.section;
      if (!out.empty()) out += "\n";
      if (documented) absl::StrAppend(&out, "# ", DocOfSection(section), "\n");
      absl::StrAppend(&out, "[", section, "]\n");
    }
    const std::string value = key.print(config);
    if (documented) {
      out += "\n";
      for (const auto& line : absl::StrSplit(key.doc, '\n')) {
        absl::StrAppend(&out, "# ", line, "\n");
      }
      if (value.empty() && !key.example.empty()) {
        absl::StrAppend(&out, "# ", key.name, " = ", key.example, "\n");
      }
    }
    if (!value.empty()) absl::StrAppend(&out, key.name, " = ", value, "\n");
  }
  return out;
}

bool SameDevice(const RunConfig& a, const RunConfig& b) {
  RunConfig same = b;
  same.model = a.model;
  same.train.seed = a.train.seed;
  same.train.precision = a.train.precision;
  same.train.delayed_commit = a.train.delayed_commit;
  return ToToml(same) == ToToml(b);
}

}  // namespace starling
