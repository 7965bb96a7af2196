// Child processes: starting one with its output in a file, and telling it from a later process that
// was given the same number.
#ifndef STARLING_RUNTIME_APP_CHILD_PROCESS_H_
#define STARLING_RUNTIME_APP_CHILD_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace starling {

struct SpawnOptions {
  std::string program;
  std::vector<std::string> arguments;    // argv, with the name of the program
  std::vector<std::string> environment;  // "NAME=value", in addition to this process's
  std::string log;                       // stdout and stderr are appended here; empty: inherited
};

// Starts a process in a group of its own (a terminal's Ctrl-C does not reach it), without standard
// input and without this process's other files.
absl::StatusOr<pid_t> Spawn(const SpawnOptions& options);

// When the process was started, in the system's ticks since boot; none if there is no such process
// (any more).
// Together with the number it names a process for good, until the machine starts again.
std::optional<uint64_t> StartTicks(pid_t pid);

// "exit status 1", "killed by signal 9 (Killed)".
std::string DescribeExit(int wait_status);

// The running program, and the programs beside it: with LibTorch, with the virtual world, with
// the bench.
std::string ProgramPath();
std::string TorchProgramPath();
std::string SimProgramPath();
std::string BenchProgramPath();

std::string HostName();

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_CHILD_PROCESS_H_
