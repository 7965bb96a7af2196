#include "runtime/app/child_process.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

int WaitFor(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

SpawnOptions Shell(const std::string& script, const std::string& log) {
  SpawnOptions options;
  options.program = "/bin/sh";
  options.arguments = {"sh", "-c", script};
  options.log = log;
  return options;
}

TEST(SpawnTest, OutputAndErrorsAreAppendedToTheLog) {
  TemporaryFolder folder;
  const std::string log = folder.path() + "/log";
  WriteFileText(log, "before\n");
  const auto pid = Spawn(Shell("echo out; echo err >&2; exit 3", log));
  ASSERT_TRUE(pid.ok()) << pid.status();
  EXPECT_EQ(DescribeExit(WaitFor(*pid)), "exit status 3");
  EXPECT_EQ(FileText(log), "before\nout\nerr\n");
}

TEST(SpawnTest, EnvironmentIsAddedToAndReplaced) {
  TemporaryFolder folder;
  SpawnOptions options = Shell("echo $STARLING_TEST_A $STARLING_TEST_B", folder.path() + "/log");
  setenv("STARLING_TEST_A", "kept", 1);
  setenv("STARLING_TEST_B", "old", 1);
  options.environment = {"STARLING_TEST_B=new"};
  WaitFor(*Spawn(options));
  EXPECT_EQ(FileText(folder.path() + "/log"), "kept new\n");
}

TEST(SpawnTest, FilesOfThisProcessAreNotInherited) {
  TemporaryFolder folder;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const std::string script = "ls /proc/self/fd | wc -l";  // 0, 1, 2 and the folder itself
  WaitFor(*Spawn(Shell(script, folder.path() + "/log")));
  EXPECT_EQ(FileText(folder.path() + "/log"), "4\n");
  close(ends[0]);
  close(ends[1]);
}

TEST(SpawnTest, ProgramThatIsNotThereIsNotFound) {
  SpawnOptions options;
  options.program = "/nowhere/starling";
  options.arguments = {"starling"};
  EXPECT_EQ(Spawn(options).status().code(), absl::StatusCode::kNotFound);
}

TEST(StartTicksTest, DeadProcessAndZombieHaveNone) {
  TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder.path() + "/fifo").c_str(), 0666), 0);
  const auto pid = Spawn(Shell("read line < " + folder.path() + "/fifo", "/dev/null"));
  ASSERT_TRUE(pid.ok());
  EXPECT_TRUE(StartTicks(*pid).has_value());
  EXPECT_EQ(StartTicks(*pid), StartTicks(*pid));
  kill(*pid, SIGKILL);
  EXPECT_TRUE(WaitUntil([&] { return !StartTicks(*pid).has_value(); }));  // a zombie
  EXPECT_EQ(DescribeExit(WaitFor(*pid)), "killed by signal 9 (Killed)");
  EXPECT_FALSE(StartTicks(*pid).has_value());
}

}  // namespace
}  // namespace starling
