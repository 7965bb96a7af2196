// The keys of a run file, each in one line of one table (run_keys.cc): name, what it takes, where
// it is kept, documentation. Parsing, printing, error messages and the documented example are all
// made from that table, so a new key is one line there and one field in run_config.h.
//
// Knows nothing of TOML's syntax (run_file.cc does) and nothing of rules between keys
// (run_rules.cc).
#ifndef STARLING_RUNTIME_CONFIG_RUN_KEYS_H_
#define STARLING_RUNTIME_CONFIG_RUN_KEYS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/config/run_config.h"

namespace starling {

// A value as it stands in a run file.
struct ConfigValue {
  enum class Kind { kBool, kInteger, kReal, kText, kList, kOther };

  Kind kind = Kind::kOther;  // kOther: tables, dates; no key takes them
  bool boolean = false;
  int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<ConfigValue> list;

  static ConfigValue OfText(std::string text);
};

// As TOML would write it; for messages.
std::string ToString(const ConfigValue& value);

struct RunKey {
  std::string section;
  std::string name;
  std::string takes;    // completes "5 is not ...": "a whole number from 1 to 100000"
  std::string doc;      // lines of documentation, without '#'
  std::string example;  // shown by the documented example where the key has no value to print

  // False if `value` is not what the key takes; `config` is then unchanged.
  std::function<bool(const ConfigValue& value, RunConfig* config)> set;
  // The value in TOML; empty where the key must not be written (`stages` beside `cuts`; `preset`,
  // which has become the fields it stands for).
  std::function<std::string(const RunConfig& config)> print;

  std::string full_name() const { return section + "." + name; }
};

// In the order they are written, and must be set: a preset comes before what it sets.
const std::vector<RunKey>& RunKeys();

// "section.name" -> key, or null.
const RunKey* FindRunKey(const std::string& full_name);

// The known key that looks most like "section.name".
const RunKey& NearestRunKey(const std::string& full_name);

std::string DocOfSection(const std::string& section);

}  // namespace starling

#endif  // STARLING_RUNTIME_CONFIG_RUN_KEYS_H_
