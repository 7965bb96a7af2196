// Files that are not what they should be, given to the command: truncated, oversized, of another
// dtype, shape, place, encoding or name. One clear line that names the file, a non-zero exit, and
// nothing is made or overwritten.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/app/run_plan.h"
#include "runtime/base/hash.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/runtime/reactor/temporary_folder.h"
#include "tests/testing/subprocess.h"

namespace starling {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// The hash of each file below `folder`, but of the lock, which says who has looked.
std::map<std::string, std::string> Contents(const std::string& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.path().filename() == "lock") continue;
    const std::string bytes = FileText(entry.path().string());
    contents[entry.path().string()] = ToHex(HashBytes(bytes.data(), bytes.size()));
  }
  return contents;
}

void ExpectOneLine(const Finished& end, const std::string& first, const std::string& second) {
  EXPECT_GT(end.exit_code, 0);
  EXPECT_LT(end.exit_code, 128) << "killed";
  EXPECT_THAT(end.errors, AllOf(StartsWith("starling: "), HasSubstr(first), HasSubstr(second)));
  EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
}

class BadFilesTest : public ::testing::Test {
 protected:
  BadFilesTest() : run_(folder_.path() + "/run"), file_(folder_.path() + "/run.toml") {
    std::string text;
    while (text.size() < 4000) text += "The quick brown fox. ";
    WriteFileText(folder_.path() + "/text", text);
    WriteFileText(file_,
                  "[model]\nlayers = 2\nwidth = 8\nheads = 2\ncontext = 8\n[data]\ntext = [\"" +
                      folder_.path() +
                      "/text\"]\n[train]\nsteps = 10\nglobal_batch = 4\nmicrobatch = 2\n"
                      "[swarm]\nstages = 2\n");
  }

  Finished Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), STARLING_PROGRAM);
    return RunToEnd(std::move(arguments));
  }

  // A run that has not begun: its only checkpoint is version 0.
  void MakeRun() {
    std::filesystem::remove_all(run_);
    auto plan = PlanNewRun(disk_, file_, {}, run_);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const absl::Status made = MakeRunDirectory(disk_, &*plan);
    ASSERT_TRUE(made.ok()) << made;
    checkpoint_ = plan->start;
  }

  // The manifest says of the file what it is now: only its content can show that it is wrong.
  void ListAsItIs(const std::string& name) {
    auto manifest = LoadManifest(disk_, checkpoint_);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    const std::string bytes = FileText(checkpoint_.path + "/" + name);
    for (ManifestFile& file : manifest->files) {
      if (file.name != name) continue;
      file.bytes = bytes.size();
      file.hash = HashBytes(bytes.data(), bytes.size());
    }
    WriteFileText(checkpoint_.path + "/manifest.json", PrintManifest(*manifest));
  }

  void ExpectRefusedByName(const std::string& name, const std::string& says) {
    SCOPED_TRACE(name + ": " + says);
    const auto before = Contents(run_);
    const Finished verified = Run({"checkpoint", "verify", run_});
    EXPECT_EQ(verified.exit_code, 1);
    EXPECT_THAT(verified.output + verified.errors, AllOf(HasSubstr(name), HasSubstr(says)));
    ExpectOneLine(Run({"resume", run_}), name, says);
    EXPECT_EQ(Contents(run_), before);
  }

  const TemporaryFolder folder_;
  PosixDisk disk_;
  const std::string run_;
  const std::string file_;
  CheckpointInfo checkpoint_;
};

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST_F(BadFilesTest, TensorFileIsRefusedByVerifyAndResume) {
  const std::string name = "parameters-00000.safetensors";
  const struct {
    bool listed;  // in the manifest, as it is
    std::function<std::string(std::string)> change;
    const char* says;
  } cases[] = {
      {false, [](auto bytes) { return bytes.substr(0, bytes.size() / 2); }, "bytes, should be"},
      {false, [](auto bytes) { return bytes + "x"; }, "bytes, should be"},
      {false, [](auto) { return ""; }, "should be"},
      {false, [](auto bytes) { return bytes.back() ^= 1, bytes; }, "have changed"},
      {true, [](auto bytes) { return bytes.substr(0, bytes.size() / 2); }, "bytes, but it holds"},
      {true, [](auto bytes) { return bytes + "x"; }, "bytes, but it holds"},
      {true, [](auto) { return ""; }, "not a safetensors file: shorter than 8 bytes"},
      {true, [](auto bytes) { return bytes.substr(0, 7); }, "shorter than 8 bytes"},
      {true, [](auto bytes) { return std::string(8, '\xff') + bytes.substr(8); }, "does not fit"},
      {true, [](auto bytes) { return Replaced(bytes, "\"F32\"", "\"I32\""); },
       "another shape or type"},
      {true, [](auto bytes) { return Replaced(bytes, "\"F32\"", "\"F64\""); }, "embed.weight"},
      {true, [](auto bytes) { return Replaced(bytes, "\"F32\"", "\"Q32\""); }, "Q32"},
      {true, [](auto bytes) { return Replaced(bytes, "[256,8]", "[8,256]"); }, "another shape"},
      {true, [](auto bytes) { return Replaced(bytes, "[256,8]", "[256,9]"); }, "embed.weight"},
      {true, [](auto bytes) { return Replaced(bytes, "[0,", "[4,"); }, "embed.weight"},
      {true, [](auto bytes) { return Replaced(bytes, "embed.weight", "embed.height"); },
       "embed.height"},
      {true, [](auto bytes) { return Replaced(bytes, "embed.weight", "embed.w\xffight"); },
       "not JSON"},
      {true, [](auto bytes) { return Replaced(bytes, "{", "["); }, "not JSON"},
  };
  for (const auto& one : cases) {
    MakeRun();
    const std::string path = checkpoint_.path + "/" + name;
    WriteFileText(path, one.change(FileText(path)));
    if (one.listed) ListAsItIs(name);
    ExpectRefusedByName(name, one.says);
  }
}

TEST_F(BadFilesTest, ManifestIsRefusedByVerifyAndResume) {
  const struct {
    std::function<std::string(std::string)> change;
    const char* says;
  } cases[] = {
      {[](auto text) { return text.substr(0, text.size() / 2); }, "manifest"},
      {[](auto text) { return text + "x"; }, "manifest"},
      {[](auto) { return ""; }, "manifest"},
      {[](auto text) { return Replaced(text, "\"format_version\": 2", "\"format_version\": 99"); },
       "99"},
      {[](auto text) { return Replaced(text, "embed.weight", "embed.w\xffight"); }, "manifest"},
      {[](auto text) { return Replaced(text, "\"era\": 0", "\"era\": 1"); }, "manifest"},
  };
  for (const auto& one : cases) {
    MakeRun();
    const std::string path = checkpoint_.path + "/manifest.json";
    WriteFileText(path, one.change(FileText(path)));
    ExpectRefusedByName("step-00000000", one.says);
  }
  MakeRun();
  std::filesystem::resize_file(checkpoint_.path + "/manifest.json", kMaxManifestBytes + 1);
  ExpectRefusedByName("step-00000000", "too large");
}

TEST_F(BadFilesTest, TokenShardIsRefusedByTrainAndNoRunIsMade) {
  std::string header(1024, '\0');
  const auto put = [&header](size_t word, uint32_t value) {
    for (size_t i = 0; i < 4; ++i)
      header[4 * word + i] = static_cast<char>(value >> (8 * i) & 0xff);
  };
  put(0, 20240520);
  put(1, 1);
  put(2, 2000);
  const std::string tokens(4000, '\x01');
  std::string other_version = header;
  other_version[4] = 9;
  const struct {
    std::string bytes;
    const char* says;
  } cases[] = {
      {"", "no tokens"},
      {"abc", "no whole number"},
      {header.substr(0, 1000), "too few"},
      {header + tokens.substr(0, 3998), "2000 tokens"},
      {header + tokens + "xx", "2000 tokens"},
      {other_version + tokens, "version 9"},
  };
  const std::string shard = folder_.path() + "/train.bin";
  for (const auto& one : cases) {
    WriteFileText(shard, one.bytes);
    ExpectOneLine(Run({"train", file_, "--run-dir", run_, "--data.text=[]",
                       "--data.shards=[\"" + shard + "\"]"}),
                  shard, one.says);
    EXPECT_FALSE(std::filesystem::exists(run_));
    EXPECT_EQ(FileText(shard), one.bytes);
  }
}

}  // namespace
}  // namespace starling
