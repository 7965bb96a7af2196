// The rules between keys of a run file: what no single key can check. Used by run_file.cc.
#ifndef STARLING_RUNTIME_CONFIG_RUN_RULES_H_
#define STARLING_RUNTIME_CONFIG_RUN_RULES_H_

#include <optional>
#include <string>
#include <vector>

#include "runtime/config/run_config.h"

namespace starling {

struct BrokenRule {
  std::vector<std::string> keys;  // "section.name"; the first is the one to name, the others may
                                  // be what the user wrote
  std::string message;            // what is wrong and what to do, one line
};

// The first rule that `config` breaks. Single values must be in range already.
std::optional<BrokenRule> FindBrokenRule(const RunConfig& config);

}  // namespace starling

#endif  // STARLING_RUNTIME_CONFIG_RUN_RULES_H_
