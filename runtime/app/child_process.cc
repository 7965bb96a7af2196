#include "runtime/app/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "runtime/reactor/system_error.h"

extern char** environ;

namespace starling {
namespace {

constexpr char kTorchProgram[] = "starling-torch";
constexpr char kSimProgram[] = "starling-sim";
constexpr char kBenchProgram[] = "starling-bench";

std::vector<char*> Pointers(std::vector<std::string>* texts) {
  std::vector<char*> pointers;
  for (std::string& text : *texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::string Beside(const char* program) {
  const std::string path = ProgramPath();
  return path.substr(0, path.rfind('/') + 1) + program;
}

bool SameName(const std::string& a, const std::string& b) {
  const size_t end = a.find('=');
  return end != std::string::npos && b.compare(0, end + 1, a, 0, end + 1) == 0;
}

std::vector<std::string> EnvironmentWith(const std::vector<std::string>& added) {
  std::vector<std::string> all = added;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    bool replaced = false;
    for (const std::string& one : added) replaced = replaced || SameName(one, *variable);
    if (!replaced) all.emplace_back(*variable);
  }
  return all;
}

// The attributes and file actions of posix_spawn, freed together.
class SpawnSettings {
 public:
  SpawnSettings() {
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
  }
  ~SpawnSettings() {
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
};

}  // namespace

absl::StatusOr<pid_t> Spawn(const SpawnOptions& options) {
  SpawnSettings settings;
  sigset_t none;
  sigset_t usual;
  sigemptyset(&none);
  sigemptyset(&usual);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE}) sigaddset(&usual, signal);
  posix_spawnattr_setsigmask(&settings.attributes, &none);
  posix_spawnattr_setsigdefault(&settings.attributes, &usual);
  posix_spawnattr_setpgroup(&settings.attributes, 0);
  posix_spawnattr_setflags(&settings.attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  posix_spawn_file_actions_addopen(&settings.actions, 0, "/dev/null", O_RDONLY, 0);
  if (!options.log.empty()) {
    posix_spawn_file_actions_addopen(&settings.actions, 1, options.log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0666);
    posix_spawn_file_actions_adddup2(&settings.actions, 1, 2);
  }
  posix_spawn_file_actions_addclosefrom_np(&settings.actions, 3);

  std::vector<std::string> arguments = options.arguments;
  std::vector<std::string> environment = EnvironmentWith(options.environment);
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, options.program.c_str(), &settings.actions, &settings.attributes,
                  Pointers(&arguments).data(), Pointers(&environment).data());
  if (error != 0) return FileError("cannot start " + options.program, error);
  return pid;
}

std::optional<uint64_t> StartTicks(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  // The second field is the program's name in parentheses, which may hold anything.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  fields >> field;
  if (field == "Z") return std::nullopt;  // dead, and not waited for by its parent
  constexpr int kStartTimeField = 22;
  for (int number = 4; number < kStartTimeField; ++number) fields >> field;
  uint64_t ticks = 0;
  if (!(fields >> ticks)) return std::nullopt;
  return ticks;
}

std::string DescribeExit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return absl::StrCat("killed by signal ", signal, " (", strsignal(signal), ")");
  }
  return absl::StrCat("exit status ", WEXITSTATUS(wait_status));
}

std::string ProgramPath() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : "starling";
}

std::string TorchProgramPath() { return Beside(kTorchProgram); }

std::string SimProgramPath() { return Beside(kSimProgram); }

std::string BenchProgramPath() { return Beside(kBenchProgram); }

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

}  // namespace starling
