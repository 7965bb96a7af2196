// `starling generate` as users call it, on one small run that is trained once for all tests here.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/check.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

constexpr char kEndless[] = "1000000000";

class GenerateCommandTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    std::string text;
    while (text.size() < 20000) text += "The quick brown fox jumps over the lazy dog. ";
    WriteFileText(Path("text"), text);
    WriteFileText(Path("small.toml"),
                  "[data]\ntext = [\"" + Path("text") +
                      "\"]\n[model]\nlayers = 2\nwidth = 16\nheads = 2\ncontext = 16\n"
                      "[train]\nsteps = 40\nglobal_batch = 8\nmicrobatch = 8\neval_every = 0\n"
                      "[optimizer]\nlr = 1e-2\n[swarm]\nstages = 1\n");
    const Finished trained = RunToEnd({STARLING_PROGRAM, "train", Path("small.toml"), "--run-dir",
                                       Path("run"), "--single-process"});
    STARLING_CHECK_MSG(trained.exit_code == 0, trained.errors);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string Path(const std::string& name) { return folder_->path() + "/" + name; }

  static std::vector<std::string> Arguments(std::vector<std::string> more) {
    std::vector<std::string> arguments = {STARLING_PROGRAM, "generate", Path("run"), "--threads",
                                          "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  static Finished Generate(std::vector<std::string> more) {
    return RunToEnd(Arguments(std::move(more)));
  }
  // Through a shell, which has the program's path in $0.
  static std::vector<std::string> Shell(const std::string& script) {
    return {"/bin/sh", "-c", script, STARLING_PROGRAM};
  }
  // `count` tokens, here bytes, behind the prompt.
  static std::string Text(const std::string& prompt, int count,
                          std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"--prompt", prompt, "--tokens", std::to_string(count)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Finished end = Generate(arguments);
    EXPECT_EQ(end.exit_code, 0) << end.errors;
    EXPECT_THAT(end.output, AllOf(StartsWith(prompt), EndsWith("\n"))) << end.output;
    return end.output.substr(prompt.size(), end.output.size() - prompt.size() - 1);
  }
  static void ExpectOneLine(const Finished& end, int exit_code, const std::string& says) {
    EXPECT_EQ(end.exit_code, exit_code) << end.errors;
    EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), HasSubstr(says)));
    EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};

std::unique_ptr<TemporaryFolder> GenerateCommandTest::folder_;

TEST_F(GenerateCommandTest, SameSeedSameTextFarPastTheContextAndAnotherSeedAnother) {
  const std::string text = Text("The ", 100);
  EXPECT_THAT(text, SizeIs(100));
  EXPECT_EQ(Text("The ", 100), text);
  EXPECT_NE(Text("The ", 100, {"--seed", "2"}), text);
  EXPECT_EQ(Text("The ", 0), "");
}

TEST_F(GenerateCommandTest, PromptLongerThanTheContextCountsByItsEnd) {
  const std::string end = "the lazy dog. Th";  // a context
  EXPECT_EQ(Text("quick brown fox jumps over " + end, 30), Text(end, 30));
}

TEST_F(GenerateCommandTest, CutsToOneTokenAreTheLikeliestText) {
  const std::string likeliest = Text("The ", 30, {"--temperature", "0"});
  EXPECT_EQ(Text("The ", 30, {"--top-k", "1", "--seed", "5"}), likeliest);
  EXPECT_EQ(Text("The ", 30, {"--top-p", "0", "--seed", "5"}), likeliest);
  EXPECT_NE(Text("The ", 30, {"--top-k", "0", "--temperature", "3"}), likeliest);
}

TEST_F(GenerateCommandTest, StopStringOverSeveralTokensEndsTheTextBeforeIt) {
  const std::string text = Text("The ", 60);
  const std::string stop = text.substr(20, 3), other = text.substr(40, 4);
  ASSERT_EQ(stop.find('\0'), std::string::npos);
  ASSERT_EQ(other.find('\0'), std::string::npos);
  EXPECT_EQ(Text("The ", 60, {"--stop", stop}), text.substr(0, text.find(stop)));
  const size_t first = std::min(text.find(stop) + 3, text.find(other) + 4);
  const std::string cut = Text("The ", 60, {"--stop", other, "--stop", stop});
  EXPECT_EQ(cut, text.substr(0, first == text.find(other) + 4 ? first - 4 : first - 3));
  EXPECT_EQ(Text("The ", 60, {"--stop", "never there"}), text);
  EXPECT_EQ(Text("The ", 60, {"--stop", "[x]", "--stop", text.substr(59) + "!"}), text);
}

TEST_F(GenerateCommandTest, BadArgumentsGiveOneLine) {
  ExpectOneLine(Generate({}), 2, "--prompt");
  ExpectOneLine(Generate({"--prompt", ""}), 1, "the prompt is empty");
  ExpectOneLine(Generate({"--prompt", "x", "--top-p", "1.5"}), 2, "--top-p");
  ExpectOneLine(Generate({"--prompt", "x", "--top-p", "-0.1"}), 2, "--top-p");
  ExpectOneLine(Generate({"--prompt", "x", "--top-p", "nan"}), 1, "top-p");
  ExpectOneLine(Generate({"--prompt", "x", "--temperature", "nan"}), 1, "temperature");
  ExpectOneLine(Generate({"--interactive", "--top-p", "nan"}), 1, "top-p");
  ExpectOneLine(Generate({"--prompt", "x", "--top-k", "-1"}), 2, "--top-k");
  ExpectOneLine(Generate({"--prompt", "x", "--tokens", "-1"}), 2, "--tokens");
  ExpectOneLine(Generate({"--prompt", "x", "--stop", ""}), 2, "--stop");
}

TEST_F(GenerateCommandTest, InterruptEndsTheTextCleanly) {
  for (const int signal : {SIGINT, SIGTERM}) {
    Subprocess generate(Arguments({"--prompt", "The ", "--tokens", kEndless}));
    ASSERT_TRUE(WaitUntil([&] { return generate.Output().size() > 40; })) << generate.Errors();
    generate.Signal(signal);
    EXPECT_EQ(generate.WaitForExit(), 0);
    EXPECT_THAT(generate.Output(), AllOf(StartsWith("The "), EndsWith("\n")));
    EXPECT_THAT(generate.Errors(), IsEmpty());
  }
}

TEST_F(GenerateCommandTest, ReaderThatIsGoneEndsTheText) {
  const Finished end =
      RunToEnd(Shell("{ \"$0\" generate " + Path("run") + " --threads 1 --prompt x --tokens " +
                     kEndless + "; echo exit $? >&2; } | head -c 20"));
  EXPECT_THAT(end.output, SizeIs(20));
  EXPECT_EQ(end.errors, "exit 0\n");
}

TEST_F(GenerateCommandTest, OutputThatCannotBeWrittenIsAnError) {
  Subprocess::Options options;
  options.arguments = Arguments({"--prompt", "x", "--tokens", kEndless});
  options.file_size_limit = 200;
  ExpectOneLine(RunToEnd(options), 1, "cannot write to the output");
}

TEST_F(GenerateCommandTest, InteractiveLinesBeginTextsAndEmptyOnesGoOn) {
  WriteFileText(Path("lines"), "\nThe \n\nquick");
  const Finished end = RunToEnd(Shell("\"$0\" generate " + Path("run") +
                                      " --threads 1 --interactive --tokens 12 <" + Path("lines")));
  EXPECT_EQ(end.exit_code, 0);
  // An empty line before any text is an empty prompt, which a model of bytes cannot have.
  ExpectOneLine(end, 0, "warning: the prompt is empty");
  const std::string first = Text("The ", 24);
  EXPECT_EQ(end.output, first.substr(0, 12) + "\n" + first.substr(12) + "\n" +
                            Text("quick", 12, {"--seed", "2"}) + "\n");
}

TEST_F(GenerateCommandTest, InteractiveBeginsWithThePromptAndEndsWithTheInput) {
  const Finished end =
      Generate({"--interactive", "--prompt", "The ", "--tokens", "5"});  // input: /dev/null
  EXPECT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_EQ(end.output, "The " + Text("The ", 5) + "\n");
  const Finished closed = RunToEnd(Shell("\"$0\" generate " + Path("run") + " --interactive <&-"));
  ExpectOneLine(closed, 1, "standard input, which is closed");
}

TEST_F(GenerateCommandTest, InterruptedTextGoesBackToThePromptAndThereEndsTheSession) {
  const std::string fifo = Path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const int input = open(fifo.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(input, 0);
  Subprocess generate(Shell("exec \"$0\" generate " + Path("run") +
                            " --threads 1 --interactive --tokens " + kEndless + " <" + fifo));
  ASSERT_EQ(write(input, "The \n", 5), 5);
  ASSERT_TRUE(WaitUntil([&] { return generate.Output().size() > 40; })) << generate.Errors();
  generate.Signal(SIGINT);
  ASSERT_EQ(write(input, "quick\n", 6), 6);
  const std::string second = "\n" + Text("quick", 40, {"--seed", "2"});
  ASSERT_TRUE(WaitUntil([&] { return generate.Output().find(second) != std::string::npos; }))
      << generate.Output();
  // Nothing more to read: back at the prompt it ends.
  close(input);
  generate.Signal(SIGINT);
  EXPECT_EQ(generate.WaitForExit(), 0);
  EXPECT_THAT(generate.Output(), EndsWith("\n"));
  EXPECT_THAT(generate.Errors(), IsEmpty());
}

}  // namespace
}  // namespace starling
