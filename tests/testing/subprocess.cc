#include "tests/testing/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/time/clock.h"
#include "runtime/base/check.h"

namespace starling {
namespace {

constexpr int kLookAgainMs = 5;
constexpr int kCannotStart = 127;

std::string TemporaryFile() {
  std::string path = (std::filesystem::temp_directory_path() / "starling-output-XXXXXX").string();
  const int fd = mkstemp(path.data());
  STARLING_CHECK(fd >= 0);
  close(fd);
  return path;
}

// What the new process does with itself; only calls that are safe between fork and exec.
[[noreturn]] void Become(const Subprocess::Options& options, char* const* arguments,
                         const char* output, const char* errors) {
  setpgid(0, 0);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  dup2(open(output, O_WRONLY | O_APPEND), STDOUT_FILENO);
  dup2(open(errors, O_WRONLY | O_APPEND), STDERR_FILENO);
  for (int fd = STDERR_FILENO + 1; fd < 256; ++fd) close(fd);
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0) _exit(kCannotStart);
  if (options.file_size_limit) {
    const rlimit limit = {*options.file_size_limit, *options.file_size_limit};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(kCannotStart);
  }
  for (const std::string& variable : options.environment) {
    putenv(const_cast<char*>(variable.c_str()));
  }
  execv(arguments[0], arguments);
  _exit(kCannotStart);
}

}  // namespace

bool WaitUntil(const std::function<bool()>& condition, absl::Duration limit) {
  const absl::Time end = absl::Now() + limit;
  while (!condition()) {
    if (absl::Now() >= end) return false;
    poll(nullptr, 0, kLookAgainMs);
  }
  return true;
}

std::string FileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void WriteFileText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  STARLING_CHECK_MSG(file.flush().good(), path);
}

Subprocess::Subprocess(Options options)
    : output_path_(TemporaryFile()), errors_path_(TemporaryFile()) {
  std::vector<char*> arguments;
  for (std::string& argument : options.arguments) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  pid_ = fork();
  STARLING_CHECK(pid_ >= 0);
  if (pid_ == 0) Become(options, arguments.data(), output_path_.c_str(), errors_path_.c_str());
  setpgid(pid_, pid_);
}

Subprocess::~Subprocess() {
  if (!Reap()) {
    Signal(SIGKILL);
    WaitForExit();
  }
  unlink(output_path_.c_str());
  unlink(errors_path_.c_str());
}

void Subprocess::Signal(int signal) {
  if (!Reap()) kill(pid_, signal);
}

bool Subprocess::Reap() {
  int status = 0;
  if (!exit_code_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return exit_code_.has_value();
}

std::optional<int> Subprocess::WaitForExit(absl::Duration limit) {
  WaitUntil([this] { return Reap(); }, limit);
  return exit_code_;
}

bool Subprocess::WaitForOutput(const std::string& text, absl::Duration limit) {
  const auto written = [this, &text] {
    return Output().find(text) != std::string::npos || Errors().find(text) != std::string::npos;
  };
  WaitUntil([this, &written] { return written() || Reap(); }, limit);
  return written();
}

Finished RunToEnd(Subprocess::Options options, absl::Duration limit) {
  Subprocess process(std::move(options));
  const std::optional<int> exit_code = process.WaitForExit(limit);
  return {exit_code.value_or(-1), process.Output(), process.Errors()};
}

Finished RunToEnd(std::vector<std::string> arguments, absl::Duration limit) {
  Subprocess::Options options;
  options.arguments = std::move(arguments);
  return RunToEnd(std::move(options), limit);
}

std::vector<pid_t> ProcessesMentioning(const std::string& text) {
  std::vector<pid_t> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc", error), end; entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = static_cast<pid_t>(std::stol(name));
    // A zombie has no arguments.
    if (pid != getpid() && FileText("/proc/" + name + "/cmdline").find(text) != std::string::npos) {
      found.push_back(pid);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace starling
