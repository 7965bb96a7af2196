// `starling tokenize` as users call it, and runs that train on what it made.
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/base/rng.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class TokenizeCommandTest : public ::testing::Test {
 protected:
  TokenizeCommandTest() : out_(folder_.path() + "/shards"), run_(folder_.path() + "/run") {}

  Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STARLING_PROGRAM);
    return RunToEnd(std::move(arguments));
  }
  Finished Tokenize(std::vector<std::string> more) {
    more.insert(more.begin(), {"tokenize", "--out", out_});
    return Run(std::move(more));
  }
  // The text of a run file that trains on `data`, four tiny steps.
  std::string RunFile(const std::string& data) {
    const std::string file = folder_.path() + "/run.toml";
    WriteFileText(file, "[data]\n" + data +
                            "\n[model]\nlayers = 2\nwidth = 16\nheads = 2\ncontext = 16\n"
                            "[train]\nsteps = 4\nglobal_batch = 4\nmicrobatch = 2\neval_every = 2\n"
                            "[swarm]\nstages = 2\n[local]\nreplicas = 1\n");
    return file;
  }
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  // Name -> bytes of what is in a folder.
  static std::map<std::string, std::string> FilesIn(const std::string& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      files[entry.path().filename().string()] = FileText(entry.path().string());
    }
    return files;
  }
  std::vector<nlohmann::json> Metrics(const std::string& run) {
    std::vector<nlohmann::json> lines;
    std::istringstream text(FileText(run + "/metrics.jsonl"));
    for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
  }

  void ExpectOneLine(const Finished& end, const std::string& says) {
    EXPECT_GT(end.exit_code, 0) << end.output;
    EXPECT_LT(end.exit_code, 128) << "killed";
    EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), HasSubstr(says)));
    EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  }
  void ExpectNothingMade() {
    EXPECT_FALSE(std::filesystem::exists(out_));
    EXPECT_FALSE(std::filesystem::exists(out_ + ".tmp"));
  }

  TemporaryFolder folder_;
  const std::string out_;
  const std::string run_;
};

std::string Prose(size_t bytes, uint64_t seed) {
  Rng rng(seed);
  const char* const words[] = {"the ", "quick ", "brown ", "fox ", "jumps\n", "over ", "lazy "};
  std::string text;
  while (text.size() < bytes) text += words[rng.Below(7)];
  return text;
}

TEST_F(TokenizeCommandTest, OutputIsTheSameWhateverTheThreads) {
  std::string lines;
  for (uint64_t i = 0; i < 3000; ++i) {
    lines += nlohmann::json({{"id", i}, {"text", Prose(20 + i % 700, i)}}).dump() + "\n";
  }
  WriteFileText(Path("a.jsonl"), lines);
  WriteFileText(Path("b.txt"), Prose(900000, 5));
  WriteFileText(Path("c.txt"), "");
  std::map<std::string, std::string> first;
  for (const char* threads : {"1", "2", "7"}) {
    const Finished end = Tokenize({Path("*.jsonl"), Path("*.txt"), "--threads", threads,
                                   "--shard-tokens", "300000", "--validation", "0.1"});
    ASSERT_EQ(end.exit_code, 0) << end.errors;
    EXPECT_THAT(end.errors, IsEmpty());
    EXPECT_THAT(end.output, AllOf(HasSubstr("3 files, 3,001 documents"), HasSubstr("tokenized "),
                                  HasSubstr("vocabulary = 257")));
    const auto files = FilesIn(out_);
    if (first.empty()) first = files;
    EXPECT_EQ(files, first) << threads;
    std::filesystem::remove_all(out_);
  }
  EXPECT_EQ(first.count("shards.json"), 1u);
  EXPECT_GE(first.size(), 6u);
  const auto index = nlohmann::json::parse(first["shards.json"]);
  EXPECT_EQ(index["tokenizer"], "bytes");
  EXPECT_EQ(index["vocabulary"], 257);
  uint64_t tokens = 0;
  for (const auto& shard : index["shards"]) {
    tokens += shard["tokens"].get<uint64_t>();
    EXPECT_EQ(first[shard["name"]].size(), 1024 + 2 * shard["tokens"].get<uint64_t>());
  }
  uint64_t expected = 900000 + 3001;  // and what Prose is over
  for (uint64_t i = 0; i < 3000; ++i) expected += Prose(20 + i % 700, i).size();
  expected += Prose(900000, 5).size() - 900000;
  EXPECT_EQ(tokens, expected);
}

TEST_F(TokenizeCommandTest, RunOnShardsIsTheRunOnTheirText) {
  WriteFileText(Path("text"), Prose(20000, 1));
  ASSERT_EQ(Tokenize({Path("text"), "--no-separator"}).exit_code, 0);
  const std::string text = "text = [\"" + Path("text") + "\"]";
  const std::string shards = "shards = [\"" + out_ + "/*.bin\"]";
  const Finished on_text =
      Run({"train", RunFile(text), "--run-dir", run_ + "-text", "--single-process"});
  ASSERT_EQ(on_text.exit_code, 0) << on_text.errors;
  const Finished on_shards =
      Run({"train", RunFile(shards), "--run-dir", run_ + "-shards", "--single-process"});
  ASSERT_EQ(on_shards.exit_code, 0) << on_shards.errors;
  EXPECT_THAT(on_shards.output, AllOf(HasSubstr("shards: 18,000 tokens to learn from (1 file)"),
                                      HasSubstr("nats/token")));
  const auto a = Metrics(run_ + "-text");
  const auto b = Metrics(run_ + "-shards");
  ASSERT_EQ(a.size(), 4u);
  ASSERT_EQ(b.size(), 4u);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i]["loss"], b[i]["loss"]);
    EXPECT_EQ(a[i]["grad_norm"], b[i]["grad_norm"]);
  }
  // What the tokens are stays with the run.
  EXPECT_EQ(Run({"generate", run_ + "-shards", "--prompt", "the ", "--tokens", "5"}).exit_code, 0);
}

TEST_F(TokenizeCommandTest, SwarmTrainsOnALargerVocabularyAndResumesAtItsPlace) {
  WriteFileText(Path("text.jsonl"), [] {
    std::string lines;
    for (uint64_t i = 0; i < 40; ++i) {
      lines += nlohmann::json({{"body", Prose(300, i)}}).dump() + "\n";
    }
    return lines;
  }());
  ASSERT_EQ(Tokenize({Path("text.jsonl"), "--text-key", "body", "--shard-tokens", "2500",
                      "--validation", "0.1"})
                .exit_code,
            0);
  const std::string file = RunFile("shards = [\"" + out_ + "/*.bin\"]\nvalidation_shards = [\"" +
                                   out_ + "/val_*.bin\"]");
  ExpectOneLine(Run({"train", file, "--run-dir", run_}),
                "shards.json: the vocabulary of these shards is 257");
  EXPECT_FALSE(std::filesystem::exists(run_));
  const Finished end = Run({"train", file, "--run-dir", run_, "--model.vocabulary=300"});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_THAT(end.output, HasSubstr("A sample from the model"));
  const Finished more = Run({"resume", run_, "--train.steps=6"});
  ASSERT_EQ(more.exit_code, 0) << more.errors;
  EXPECT_EQ(Metrics(run_).size(), 6u);
  // Other tokens under the same names are noticed.
  std::string shard = FileText(out_ + "/train_000000.bin");
  shard[2000] = static_cast<char>(shard[2000] + 1);
  WriteFileText(out_ + "/train_000000.bin", shard);
  ExpectOneLine(Run({"resume", run_, "--train.steps=8"}), "not those that shards.json lists");
  std::filesystem::remove(out_ + "/shards.json");
  ExpectOneLine(Run({"resume", run_, "--train.steps=8"}), "--accept-new-text");
}

// 16-bit tokens without a header, as nanoGPT writes them.
std::string Raw(size_t count, uint32_t vocabulary) {
  Rng rng(9);
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t token = rng.Below(vocabulary);
    bytes.push_back(static_cast<char>(token));
    bytes.push_back(static_cast<char>(token >> 8));
  }
  return bytes;
}

TEST_F(TokenizeCommandTest, RawShardsOfGpt2sVocabularyTrainAndGenerateRefuses) {
  WriteFileText(Path("train.bin"), Raw(4000, 50257));
  WriteFileText(Path("val.bin"), Raw(400, 50257));
  const std::string file = RunFile("shards = [\"" + Path("train.bin") +
                                   "\"]\nvalidation_shards = [\"" + Path("val.bin") + "\"]");
  ExpectOneLine(Run({"train", file, "--run-dir", run_}),
                "train.bin: token 0 is ");  // 256 are too few
  const Finished end =
      Run({"train", file, "--run-dir", run_, "--single-process", "--model.vocabulary=50257"});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_NEAR(Metrics(run_)[0]["loss"].get<double>(), 10.82, 0.5);  // ln 50257
  ExpectOneLine(Run({"generate", run_, "--prompt", "x"}), "the tokens of this model are not bytes");
}

TEST_F(TokenizeCommandTest, TokenFoundInTrainingEndsTheRunAndIsNamed) {
  // Beyond what is looked at when the run starts, and in every window.
  std::string bytes = Raw(40000, 256);
  for (size_t i = 2000; i < 19000; i += 10) bytes[2 * i + 1] = 1;
  for (size_t i = 21000; i < 38000; i += 10) bytes[2 * i + 1] = 1;
  WriteFileText(Path("train.bin"), bytes);
  const std::string file = RunFile("shards = [\"" + Path("train.bin") + "\"]");
  for (const char* how : {"--single-process", "--swarm.stages=2"}) {
    const std::string run = run_ + how;
    const Finished end = Run({"train", file, "--run-dir", run, how});
    ExpectOneLine(end, "not below model.vocabulary = 256");
    EXPECT_THAT(end.errors, HasSubstr("data.shards: " + Path("train.bin") + ": token "));
    EXPECT_THAT(Metrics(run), IsEmpty());
  }
}

TEST_F(TokenizeCommandTest, BadInputIsNamedWithItsLineAndNothingIsMade) {
  const std::string good = "{\"text\": \"good\"}\n";
  const struct {
    std::string name;
    std::string bytes;
    const char* says;
  } cases[] = {
      {"a.jsonl", good + "{\"text\": \"cut", "a.jsonl:2: is no JSON"},
      {"a.jsonl", good + "\n" + good + "{\"body\": \"x\"}\n", "a.jsonl:4: has no \"text\""},
      {"a.jsonl", good + "{\"text\": [1]}\n", "a.jsonl:2: \"text\" is no text"},
      {"a.jsonl", "{\"text\": \"\xff\"}\n", "a.jsonl:1: is no UTF-8"},
      {"a.jsonl", good + "[]\n", "a.jsonl:2: is no JSON object"},
      {"a.jsonl", "", "no text to train on"},
      {"a.txt", "", "no text to train on"},
  };
  for (const auto& one : cases) {
    WriteFileText(Path(one.name), one.bytes);
    ExpectOneLine(Tokenize({Path(one.name)}), one.says);
    ExpectNothingMade();
  }
  // Far into a file of many chunks, in the right line with any number of threads.
  std::string lines;
  for (int i = 0; i < 20000; ++i) {
    lines += i == 15000 ? "oops\n" : "{\"text\": \"" + std::string(60, 'x') + "\"}\n";
  }
  WriteFileText(Path("a.jsonl"), lines);
  const std::string first = Tokenize({Path("a.jsonl"), "--threads", "1"}).errors;
  EXPECT_THAT(first, HasSubstr("a.jsonl:15001: is no JSON"));
  EXPECT_EQ(Tokenize({Path("a.jsonl"), "--threads", "5"}).errors, first);
  ExpectNothingMade();
}

TEST_F(TokenizeCommandTest, BadCommandLineIsRefused) {
  WriteFileText(Path("a.txt"), "text");
  ExpectOneLine(Run({"tokenize"}), "input");
  ExpectOneLine(Run({"tokenize", Path("a.txt")}), "--out");
  ExpectOneLine(Tokenize({Path("*.none")}), "matches no file");
  ExpectOneLine(Tokenize({Path("a.txt"), "--tokenizer", "morse"}), "there is \"bytes\"");
  ExpectOneLine(Tokenize({Path("a.txt"), "--shard-tokens", "0"}), "--shard-tokens");
  ExpectOneLine(Tokenize({Path("a.txt"), "--validation", "1"}), "--validation");
  ExpectOneLine(Tokenize({Path("a.txt"), "--validation", "0.5"}), "one document only");
  ExpectNothingMade();
}

TEST_F(TokenizeCommandTest, WhatIsThereIsNotOverwritten) {
  WriteFileText(Path("a.txt"), "text");
  std::filesystem::create_directory(out_);
  WriteFileText(out_ + "/precious", "x");
  ExpectOneLine(Tokenize({Path("a.txt")}), "nothing is overwritten");
  EXPECT_EQ(FilesIn(out_), (std::map<std::string, std::string>{{"precious", "x"}}));
  std::filesystem::remove(out_ + "/precious");
  EXPECT_EQ(Tokenize({Path("a.txt")}).exit_code, 0);  // an empty folder is no loss
  const auto made = FilesIn(out_);
  ExpectOneLine(Tokenize({Path("a.txt")}), "nothing is overwritten");
  EXPECT_EQ(FilesIn(out_), made);
}

TEST_F(TokenizeCommandTest, FullDiskLeavesNothing) {
  WriteFileText(Path("a.txt"), Prose(50000, 1));
  Subprocess::Options options;
  options.arguments = {STARLING_PROGRAM, "tokenize", Path("a.txt"), "--out", out_};
  options.file_size_limit = 20000;
  ExpectOneLine(RunToEnd(options), out_);
  ExpectNothingMade();
}

TEST_F(TokenizeCommandTest, InterruptedLeavesNothing) {
  WriteFileText(Path("a.txt"), "");
  std::filesystem::resize_file(Path("a.txt"), uint64_t{8} << 30);  // sparse: zeros, to be read
  Subprocess tokenize(
      {STARLING_PROGRAM, "tokenize", Path("a.txt"), "--out", out_, "--shard-tokens", "1000000"});
  ASSERT_TRUE(WaitUntil([&] { return std::filesystem::exists(out_ + ".tmp/train_000000.bin"); }));
  tokenize.Signal(SIGINT);
  EXPECT_EQ(tokenize.WaitForExit(), 1);
  EXPECT_THAT(tokenize.Errors(), HasSubstr("interrupted; nothing was written"));
  ExpectNothingMade();
}

}  // namespace
}  // namespace starling
