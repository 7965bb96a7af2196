// `starling sim` and `starling bench`: each becomes a program of its own, which tests/sim and
// bench/ build.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/app/child_process.h"
#include "runtime/app/commands.h"

namespace starling {
namespace {

absl::Status Become(std::string program, std::string name, const char* what,
                    const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {std::move(name)};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  if (errno == ENOENT) {
    const size_t slash = program.rfind('/') + 1;  // npos + 1 is 0
    return absl::NotFoundError(absl::StrCat(what, " was not built: ", program,
                                            " does not exist (`make build`, or the target ",
                                            program.substr(slash), ", makes it)"));
  }
  return absl::InternalError(absl::StrCat("cannot run ", program, ": ", strerror(errno)));
}

}  // namespace

absl::Status BecomeSim(const std::vector<std::string>& arguments) {
  return Become(SimProgramPath(), "starling sim", "the virtual world", arguments);
}

absl::Status BecomeBench(const std::vector<std::string>& arguments) {
  return Become(BenchProgramPath(), "starling bench", "the bench", arguments);
}

}  // namespace starling
