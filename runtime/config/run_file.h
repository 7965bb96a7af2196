// Run files: TOML text to a checked RunConfig and back.
//
//   STARLING_ASSIGN_OR_RETURN(RunConfig config,
//                             ParseRunFile(text, "tiny.toml", {"train.steps=50"}));
//
// Every error is invalid argument with one line for the user:
//   tiny.toml:7: model.heads: 5 does not divide model.width = 128
//   --train.steps: "many" is not a whole number from 1 to 1099511627776
#ifndef STARLING_RUNTIME_CONFIG_RUN_FILE_H_
#define STARLING_RUNTIME_CONFIG_RUN_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/config/run_config.h"

namespace starling {

// Keys that are not given keep their defaults. `file_name` is for messages. `overrides` are
// "section.key=value" with TOML values, quotes optional around text; they win over the file, later
// ones over earlier, and one of `swarm.stages` and `swarm.cuts` displaces the other in the file.
// What comes back is resolved (presets have become fields) and keeps every rule between keys.
absl::StatusOr<RunConfig> ParseRunFile(const std::string& text, const std::string& file_name,
                                       const std::vector<std::string>& overrides);

enum class TomlStyle {
  kPlain,
  kDocumented,  // every key with its documentation; keys without a value as a comment
};

// Every key. Parsing the result gives the same configuration, exactly.
std::string ToToml(const RunConfig& config, TomlStyle style = TomlStyle::kPlain);

// A device made for one, and the state in it, can go on with the other, where stages are cut alike.
bool SameDevice(const RunConfig& a, const RunConfig& b);

}  // namespace starling

#endif  // STARLING_RUNTIME_CONFIG_RUN_FILE_H_
