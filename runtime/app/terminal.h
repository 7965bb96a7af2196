// What the commands write for people.
#ifndef STARLING_RUNTIME_APP_TERMINAL_H_
#define STARLING_RUNTIME_APP_TERMINAL_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace starling {

// One line on stdout, at once. A reader that is gone (a closed pipe) is no error.
void PrintLine(const std::string& line);
// "starling: warning: ..." on stderr.
void PrintWarning(const std::string& line);
bool StdoutIsTerminal();
// Bytes on stdout, at once. False: the reader is gone (a closed pipe). Internal: they cannot be
// written.
absl::StatusOr<bool> WriteOut(const std::string& bytes);

std::string FormatBytes(int64_t bytes);  // "512 B", "4.8 MiB"
std::string FormatCount(int64_t count);  // "1,204,224"

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_TERMINAL_H_
