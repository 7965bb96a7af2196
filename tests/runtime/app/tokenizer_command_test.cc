// `starling tokenizer` and runs on tokens of a tokenizer with files, as users have them.
#include <algorithm>
#include <filesystem>
#include <map>
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
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class TokenizerCommandTest : public ::testing::Test {
 protected:
  TokenizerCommandTest() {
    Rng rng(4);
    const char* const words[] = {"the ", "quick ", "brown ", "fox ", "jumps\n", "caf\xc3\xa9 "};
    while (text_.size() < 40000) text_ += words[rng.Below(6)];
    WriteFileText(Path("a.txt"), text_);
    WriteFileText(Path("b.jsonl"), "{\"text\": \"lazy dogs, lazy dogs\"}\n");
  }

  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STARLING_PROGRAM);
    return RunToEnd(std::move(arguments));
  }
  // Through a shell, which is what has a standard input here.
  Finished Pipe(const std::string& input, const std::string& arguments) {
    WriteFileText(Path("input"), input);
    return RunToEnd(
        {"/bin/sh", "-c", std::string(STARLING_PROGRAM) + " " + arguments + " < " + Path("input")});
  }
  void MakeTokenizer(const std::string& name, const std::string& size = "300") {
    const Finished end = Run({"tokenizer", "train", "--vocab", size, "--out", Path(name),
                              Path("a.txt"), Path("b.jsonl")});
    ASSERT_EQ(end.exit_code, 0) << end.errors;
  }
  void MakeShards(const std::string& tokenizer, const std::string& name) {
    const Finished end =
        Run({"tokenize", Path("a.txt"), "--tokenizer", Path(tokenizer), "--out", Path(name)});
    ASSERT_EQ(end.exit_code, 0) << end.errors;
  }
  std::string RunFile(const std::string& data, const std::string& vocabulary = "300") {
    WriteFileText(Path("run.toml"),
                  "[data]\n" + data + "\n[model]\nvocabulary = " + vocabulary +
                      "\nlayers = 2\nwidth = 16\nheads = 2\ncontext = 16\n"
                      "[train]\nsteps = 2\nglobal_batch = 4\nmicrobatch = 2\neval_every = 2\n"
                      "[swarm]\nstages = 2\n[local]\nreplicas = 1\n");
    return Path("run.toml");
  }
  std::string Shards(const std::string& name) const {
    return "shards = [\"" + Path(name) + "/train_*.bin\"]";
  }
  void ExpectOneLine(const Finished& end, const std::string& says) {
    EXPECT_GT(end.exit_code, 0) << end.output;
    EXPECT_LT(end.exit_code, 128) << "killed";
    EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), HasSubstr(says)));
    EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  }

  TemporaryFolder folder_;
  std::string text_;
};

TEST_F(TokenizerCommandTest, TrainedTokenizerIsTheSameWhateverTheThreads) {
  std::map<std::string, std::string> first;
  for (const char* threads : {"1", "3"}) {
    const Finished end = Run({"tokenizer", "train", "--vocab", "300", "--out", Path("t"),
                              Path("a.txt"), Path("b.jsonl"), "--threads", threads});
    ASSERT_EQ(end.exit_code, 0) << end.errors;
    EXPECT_THAT(end.output, HasSubstr("vocabulary  "));
    std::map<std::string, std::string> files;
    for (const char* name : {"tokenizer.json", "vocab.json", "merges.txt"}) {
      files[name] = FileText(Path("t/") + name);
      EXPECT_GT(files[name].size(), 20u) << name;
    }
    if (first.empty()) first = files;
    EXPECT_EQ(files, first);
    std::filesystem::remove_all(Path("t"));
  }
  EXPECT_TRUE(nlohmann::json::accept(first["tokenizer.json"]));
  EXPECT_TRUE(nlohmann::json::accept(first["vocab.json"]));
}

TEST_F(TokenizerCommandTest, TextGoesToTokensAndBack) {
  MakeTokenizer("t");
  EXPECT_THAT(Run({"tokenizer", "info", Path("t")}).output,
              AllOf(HasSubstr("name        bpe-"), HasSubstr("byte-level BPE"),
                    HasSubstr("GPT-2's pattern")));
  const std::string odd = std::string("the quick\0\xff\xc0\x80 fox\n\n", 20) + "\xf0\x9f\x98\x80";
  for (const std::string& path : {Path("t"), Path("t/vocab.json"), std::string("bytes")}) {
    const Finished encoded = Pipe(odd, "tokenizer encode " + path);
    ASSERT_EQ(encoded.exit_code, 0) << encoded.errors;
    EXPECT_EQ(Pipe(encoded.output, "tokenizer decode " + path).output, odd);
  }
  EXPECT_EQ(Pipe("AB", "tokenizer encode bytes").output, "65 66\n");
  ExpectOneLine(Pipe("1 x", "tokenizer decode bytes"), "\"x\" is no token");
  ExpectOneLine(Pipe("70000", "tokenizer decode bytes"), "there is no token 70000");
}

TEST_F(TokenizerCommandTest, BadInputIsOneLineAndNothingIsMade) {
  ExpectOneLine(Run({"tokenizer"}), "tokenizer needs a command");
  ExpectOneLine(Run({"tokenizer", "info", Path("none")}), "there is no tokenizer");
  WriteFileText(Path("tokenizer.json"), "{\"model\": {\"type\": \"Unigram\"}}");
  ExpectOneLine(Run({"tokenizer", "info", Path("tokenizer.json")}),
                "tokenizer.json: model.type \"Unigram\"");
  const auto train = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"tokenizer", "train", "--out", Path("t")});
    return Run(more);
  };
  ExpectOneLine(train({Path("a.txt"), "--vocab", "256"}), "--vocab");
  ExpectOneLine(train({Path("*.none"), "--vocab", "300"}), "matches no file");
  WriteFileText(Path("bad.jsonl"), "{\"text\": \"a\"}\n{\"text\": 3}\n");
  ExpectOneLine(train({Path("bad.jsonl"), "--vocab", "300"}), "bad.jsonl:2: \"text\" is no text");
  WriteFileText(Path("empty.txt"), "");
  ExpectOneLine(train({Path("empty.txt"), "--vocab", "300"}), "there is no text to learn from");
  EXPECT_FALSE(std::filesystem::exists(Path("t")));
  EXPECT_FALSE(std::filesystem::exists(Path("t.tmp")));
  MakeTokenizer("t");
  const std::string before = FileText(Path("t/tokenizer.json"));
  ExpectOneLine(train({Path("a.txt"), "--vocab", "260"}), "nothing is overwritten");
  EXPECT_EQ(FileText(Path("t/tokenizer.json")), before);
}

TEST_F(TokenizerCommandTest, RunKeepsItsTokenizerThroughResumeAndGenerate) {
  MakeTokenizer("t");
  MakeShards("t", "shards");
  const auto index = nlohmann::json::parse(FileText(Path("shards/shards.json")));
  EXPECT_THAT(index["tokenizer"].get<std::string>(), StartsWith("bpe-"));
  const std::string run = Path("run");
  const Finished end =
      Run({"train", RunFile(Shards("shards")), "--run-dir", run, "--single-process"});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_THAT(end.output, HasSubstr("A sample from the model"));
  EXPECT_EQ(FileText(run + "/tokenizer/tokenizer.json"), FileText(Path("t/tokenizer.json")));
  EXPECT_THAT(FileText(run + "/run.toml"),
              HasSubstr("tokenizer = \"" + index["tokenizer"].get<std::string>() + "\""));
  // The run is all that is needed from now on.
  std::filesystem::remove_all(Path("t"));
  std::filesystem::remove_all(Path("shards/tokenizer"));
  const std::vector<std::string> generate = {"--prompt", "the caf\xc3\xa9", "--tokens", "20"};
  for (const std::string& path : {run, run + "/checkpoints/step-00000002"}) {
    std::vector<std::string> arguments = {"generate", path};
    arguments.insert(arguments.end(), generate.begin(), generate.end());
    const Finished text = Run(arguments);
    EXPECT_EQ(text.exit_code, 0) << text.errors;
    EXPECT_THAT(text.output, StartsWith("the caf\xc3\xa9"));
  }
  // An empty prompt begins as a document does, behind the separator.
  const Finished unprompted = Run({"generate", run, "--prompt", "", "--tokens", "20"});
  EXPECT_EQ(unprompted.exit_code, 0) << unprompted.errors;
  EXPECT_THAT(unprompted.output, EndsWith("\n"));
  const Finished more = Run({"resume", run, "--train.steps=3"});
  EXPECT_EQ(more.exit_code, 0) << more.errors;
  // Files that were changed are noticed.
  const std::string kept = FileText(run + "/tokenizer/tokenizer.json");
  WriteFileText(run + "/tokenizer/tokenizer.json", kept + "\n");
  ExpectOneLine(Run({"resume", run, "--train.steps=4"}), "it was changed");
  ExpectOneLine(Run({"generate", run, "--prompt", "x"}), "it was changed");
}

TEST_F(TokenizerCommandTest, TokenizerThatDoesNotFitIsRefusedAtTheStart) {
  MakeTokenizer("t");
  MakeTokenizer("other", "280");
  MakeShards("t", "shards");
  const std::string run = Path("run");
  const auto train = [&](const std::string& file) {
    return Run({"train", file, "--run-dir", run, "--single-process"});
  };
  ExpectOneLine(train(RunFile(Shards("shards") + "\ntokenizer = \"" + Path("other") + "\"")),
                "but data.tokenizer says \"bpe-");
  ExpectOneLine(train(RunFile(Shards("shards") + "\ntokenizer = \"gpt2\"")),
                "data.tokenizer: there is no tokenizer \"gpt2\"");
  ExpectOneLine(train(RunFile(Shards("shards") + "\ntokenizer = \"" + Path("t") + "\"", "260")),
                "more than model.vocabulary = 260");
  ExpectOneLine(train(RunFile("text = [\"" + Path("a.txt") + "\"]\ntokenizer = \"t\"")),
                "starling tokenize --tokenizer");
  std::filesystem::remove_all(Path("shards/tokenizer"));
  std::filesystem::copy(Path("other"), Path("shards/tokenizer"));
  ExpectOneLine(train(RunFile(Shards("shards"))), "shards/tokenizer: is bpe-");
  EXPECT_FALSE(std::filesystem::exists(run));
}

TEST_F(TokenizerCommandTest, ShardsOfMegatronTrainWithTheTokenizerThatIsNamed) {
  MakeTokenizer("t");
  std::string tokens;
  Rng rng(2);
  for (int i = 0; i < 4000; ++i) {
    const uint64_t token = rng.Below(290);
    tokens.push_back(static_cast<char>(token));
    tokens.push_back(static_cast<char>(token >> 8));
  }
  const auto little = [](uint64_t value, int size) {
    std::string bytes;
    for (int i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
    return bytes;
  };
  WriteFileText(Path("m_document.bin"), tokens);
  WriteFileText(Path("m_document.idx"), std::string("MMIDIDX\0\0", 9) + little(1, 8) +
                                            little(8, 1) + little(2, 8) + little(2, 8) +
                                            little(1000, 4) + little(3000, 4) + little(0, 8) +
                                            little(2000, 8) + little(0, 8) + little(2, 8));
  const std::string data =
      "shards = [\"" + Path("m_document.bin") + "\"]\ntokenizer = \"" + Path("t") + "\"";
  const std::string run = Path("run");
  const Finished end = Run({"train", RunFile(data), "--run-dir", run, "--single-process"});
  ASSERT_EQ(end.exit_code, 0) << end.errors;
  EXPECT_THAT(end.output, HasSubstr("3,600 tokens to learn from"));
  EXPECT_EQ(Run({"generate", run, "--prompt", "the ", "--tokens", "5"}).exit_code, 0);
  std::filesystem::resize_file(Path("m_document.bin"), 7000);
  ExpectOneLine(Run({"train", RunFile(data), "--run-dir", run + "2"}), "m_document.idx: its seq");
}

}  // namespace
}  // namespace starling
