#include "runtime/reactor/system_error.h"

#include <errno.h>

#include <cctype>
#include <system_error>

namespace starling {

std::string SystemMessage(const std::string& what, const std::string& system_words) {
  std::string words = system_words;
  // "Address already in use", but not "RPC ...".
  if (words.size() > 1 && std::islower(static_cast<unsigned char>(words[1])) != 0) {
    words[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(words[0])));
  }
  return what + ": " + words;
}

absl::Status FileError(const std::string& what, int error) {
  const std::string message = SystemMessage(what, std::generic_category().message(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace starling
