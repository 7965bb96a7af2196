// `starling sim`: becomes the program with the virtual world, which tests/sim builds.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "runtime/app/child_process.h"
#include "runtime/app/commands.h"

namespace starling {

absl::Status BecomeSim(const std::vector<std::string>& arguments) {
  std::string program = SimProgramPath();
  std::vector<std::string> words = {"starling sim"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  if (errno == ENOENT) {
    return absl::NotFoundError(
        absl::StrCat("the virtual world was not built: ", program,
                     " does not exist (`make build`, or the target starling-sim, makes it)"));
  }
  return absl::InternalError(absl::StrCat("cannot run ", program, ": ", strerror(errno)));
}

}  // namespace starling
