// Passing a failed `absl::Status` up.
//
//   STARLING_RETURN_IF_ERROR(file.Sync());
//   STARLING_ASSIGN_OR_RETURN(std::string text, ReadFile(disk, path));
//
// One meaning per code, everywhere (docs/architecture.md): unavailable = choose another now;
// deadline exceeded = may have run; resource exhausted = busy; aborted = stale, look again;
// failed precondition = not ready; invalid argument = malformed; data loss = corrupt;
// cancelled = stopping.
#ifndef STARLING_RUNTIME_BASE_STATUS_MACROS_H_
#define STARLING_RUNTIME_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define STARLING_RETURN_IF_ERROR(expression)           \
  do {                                                 \
    ::absl::Status starling_status = (expression);     \
    if (!starling_status.ok()) return starling_status; \
  } while (false)

#define STARLING_CONCAT_INNER_(a, b) a##b
#define STARLING_CONCAT_(a, b) STARLING_CONCAT_INNER_(a, b)

#define STARLING_ASSIGN_OR_RETURN(target, expression) \
  STARLING_ASSIGN_OR_RETURN_IMPL_(STARLING_CONCAT_(starling_or_, __LINE__), target, expression)

#define STARLING_ASSIGN_OR_RETURN_IMPL_(result, target, expression) \
  auto result = (expression);                                       \
  if (!result.ok()) return result.status();                         \
  target = std::move(result).value()

#endif  // STARLING_RUNTIME_BASE_STATUS_MACROS_H_
