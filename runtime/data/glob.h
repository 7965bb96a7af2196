// File patterns: `*`, `?` and `[a-z]` within a name, `**` as a whole name for any number of
// folders.
// `*` and `**` leave out names that begin with a dot. `**` does not follow links to folders.
#ifndef STARLING_RUNTIME_DATA_GLOB_H_
#define STARLING_RUNTIME_DATA_GLOB_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling {

// Regular files that match at least one pattern, sorted by path, each once. Relative patterns start
// at the working folder. Walks real folders. `key` is what messages begin with: where the patterns
// stand.
//
// Errors, one line naming pattern or folder: not found = a pattern matches no file; invalid
// argument = no patterns; permission denied = a folder cannot be listed.
absl::StatusOr<std::vector<std::string>> ExpandGlobs(const std::vector<std::string>& patterns,
                                                     const std::string& key = "data.text");

}  // namespace starling

#endif  // STARLING_RUNTIME_DATA_GLOB_H_
