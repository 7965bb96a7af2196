// Processes that tests start: run to the end, or in the background to be watched, signalled and
// waited for.
//
//   Finished end = RunToEnd({STARLING_PROGRAM, "config", "validate", path});
//   EXPECT_EQ(end.exit_code, 1);
//
//   Subprocess train({STARLING_PROGRAM, "train", file, "--run-dir", folder});
//   ASSERT_TRUE(train.WaitForOutput("step  3/"));
//   train.Signal(SIGKILL);
//   EXPECT_EQ(train.WaitForExit(), 128 + SIGKILL);
//
// Nothing here waits longer than its limit, which is generous: reaching one is a failure. Waiting
// is for a condition, looked at every few milliseconds.
#ifndef STARLING_TESTS_TESTING_SUBPROCESS_H_
#define STARLING_TESTS_TESTING_SUBPROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace starling {

constexpr absl::Duration kProcessLimit = absl::Seconds(120);

// Looks again and again until `condition` holds; false if it does not within `limit`.
bool WaitUntil(const std::function<bool()>& condition, absl::Duration limit = kProcessLimit);

// Bytes of a file; empty if there is none.
std::string FileText(const std::string& path);
void WriteFileText(const std::string& path, const std::string& text);

class Subprocess {
 public:
  struct Options {
    std::vector<std::string> arguments;       // the program first
    std::vector<std::string> environment;     // "NAME=value", in addition
    std::string directory;                    // to run in; empty: this process's
    std::optional<uint64_t> file_size_limit;  // bytes; writing beyond fails, as on a full disk
  };

  // Starts it, in a process group of its own.
  explicit Subprocess(Options options);
  explicit Subprocess(std::vector<std::string> arguments)
      : Subprocess(Options{std::move(arguments), {}, "", std::nullopt}) {}
  // Kills it if it still runs (but not processes it has started in groups of their own).
  ~Subprocess();
  Subprocess(const Subprocess&) = delete;
  Subprocess& operator=(const Subprocess&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal);

  // The exit status, or 128 + the signal that killed it; none if it still runs after `limit`.
  std::optional<int> WaitForExit(absl::Duration limit = kProcessLimit);
  // False if it ends, or `limit` passes, without having written `text` to stdout or stderr.
  bool WaitForOutput(const std::string& text, absl::Duration limit = kProcessLimit);

  std::string Output() const { return FileText(output_path_); }
  std::string Errors() const { return FileText(errors_path_); }

 private:
  bool Reap();

  pid_t pid_ = 0;
  std::string output_path_;
  std::string errors_path_;
  std::optional<int> exit_code_;
};

struct Finished {
  int exit_code = -1;  // -1: killed at the limit
  std::string output;
  std::string errors;
};

Finished RunToEnd(Subprocess::Options options, absl::Duration limit = kProcessLimit);
Finished RunToEnd(std::vector<std::string> arguments, absl::Duration limit = kProcessLimit);

// Processes of which an argument contains `text`, this one left out; zombies too are left out.
std::vector<pid_t> ProcessesMentioning(const std::string& text);

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_SUBPROCESS_H_
