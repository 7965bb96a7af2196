// errno as absl::Status.
#ifndef STARLING_RUNTIME_REACTOR_SYSTEM_ERROR_H_
#define STARLING_RUNTIME_REACTOR_SYSTEM_ERROR_H_

#include <string>

#include "absl/status/status.h"

namespace starling {

// "cannot listen on tcp://1.2.3.4:5: address already in use": what failed, then the system's words,
// which begin with a small letter.
std::string SystemMessage(const std::string& what, const std::string& system_words);

// For files, with the codes of runtime/env/file_system.h.
absl::Status FileError(const std::string& what, int error);

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_SYSTEM_ERROR_H_
