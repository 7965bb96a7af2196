#include <atomic>
#include <cstdio>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "runtime/app/commands.h"
#include "runtime/app/progress_bar.h"
#include "runtime/app/terminal.h"
#include "runtime/app/threads.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/documents.h"
#include "runtime/data/glob.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/tokenizer/bpe_trainer.h"
#include "runtime/tokenizer/tokenizer_files.h"
#include "runtime/tokenizer/tokenizer_json.h"

namespace starling {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
constexpr uint32_t kByteTokens = 256;
constexpr char kSeparator[] = "<|endoftext|>";
constexpr absl::Duration kLookEvery = absl::Milliseconds(50);

// Counts the words of documents instead of making tokens of them. Of one thread.
class CountingTokenizer final : public Tokenizer {
 public:
  explicit CountingTokenizer(WordCounts* counts) : counts_(counts) {}

  std::string name() const override { return "words"; }
  uint32_t vocabulary() const override { return 0; }
  uint32_t separator() const override { return 0; }
  bool divisible() const override { return true; }  // a word in two per chunk does not matter
  absl::Status Encode(const char* text, size_t bytes, std::vector<uint32_t>*) const override {
    return counts_->AddText(text, bytes);
  }
  std::string Decode(const std::vector<uint32_t>&) const override { return ""; }

 private:
  WordCounts* const counts_;
};

// Chunks of fixed size go to whichever thread is free: the sums do not depend on which.
class CountRun {
 public:
  explicit CountRun(const TokenizerTrainArgs& args) : args_(args) {
    options_.text_key = args.text_key;
    options_.separate = false;
    options_.chunk_bytes = kChunkBytes;
  }

  absl::StatusOr<WordCounts> Run() {
    STARLING_RETURN_IF_ERROR(Begin());
    const auto count = static_cast<size_t>(GivenOrAllCores(args_.threads));
    std::vector<WordCounts> counts(count);
    std::vector<std::thread> threads;
    for (WordCounts& mine : counts) threads.emplace_back([this, &mine] { Count(&mine); });
    ProgressBar progress("read", total_);
    while (done_chunks_ < chunks_.size()) {
      absl::SleepFor(kLookEvery);
      progress.Show(done_bytes_);
    }
    for (std::thread& thread : threads) thread.join();
    progress.Clear();
    STARLING_RETURN_IF_ERROR(FirstProblem());
    for (size_t i = 1; i < counts.size(); ++i) counts[0].Add(counts[i]);
    return std::move(counts[0]);
  }

  size_t files() const { return files_.size(); }
  uint64_t bytes() const { return total_; }

 private:
  struct Chunk {
    size_t file = 0;
    FileChunk part;
    TokenizedChunk result;
  };

  absl::Status Begin() {
    STARLING_ASSIGN_OR_RETURN(files_, ExpandGlobs(args_.inputs, "tokenizer train"));
    WordCounts none;
    const CountingTokenizer tokenizer(&none);
    for (size_t file = 0; file < files_.size(); ++file) {
      STARLING_ASSIGN_OR_RETURN(Blob bytes, disk_.Map(files_[file]));
      total_ += bytes.size_bytes();
      for (const FileChunk& part :
           ChunksOf(bytes.size_bytes(), IsJsonLines(files_[file]), tokenizer, options_)) {
        chunks_.push_back({file, part, {}});
      }
      maps_.push_back(std::move(bytes));
    }
    return absl::OkStatus();
  }

  void Count(WordCounts* counts) {
    const CountingTokenizer tokenizer(counts);
    while (true) {
      const size_t next = next_chunk_++;
      if (next >= chunks_.size()) return;
      Chunk& chunk = chunks_[next];
      chunk.result = TokenizeChunk(tokenizer, maps_[chunk.file], IsJsonLines(files_[chunk.file]),
                                   chunk.part, options_);
      done_bytes_ += chunk.part.end - chunk.part.begin;
      ++done_chunks_;
    }
  }

  absl::Status FirstProblem() const {
    uint64_t lines = 0;
    for (size_t i = 0; i < chunks_.size(); ++i) {
      const Chunk& chunk = chunks_[i];
      if (i > 0 && chunk.file != chunks_[i - 1].file) lines = 0;
      if (!chunk.result.problem.empty()) {
        const std::string line = chunk.result.problem_line == 0
                                     ? ""
                                     : absl::StrCat(":", lines + chunk.result.problem_line);
        return absl::InvalidArgumentError(absl::StrCat(
            files_[chunk.file], line, ": ", chunk.result.problem, "; nothing was written"));
      }
      lines += chunk.result.lines;
    }
    return absl::OkStatus();
  }

  const TokenizerTrainArgs& args_;
  DocumentOptions options_;
  PosixDisk disk_;
  std::vector<std::string> files_;
  std::vector<Blob> maps_;
  std::vector<Chunk> chunks_;
  uint64_t total_ = 0;
  std::atomic<size_t> next_chunk_{0};
  std::atomic<size_t> done_chunks_{0};
  std::atomic<uint64_t> done_bytes_{0};
};

absl::Status WriteFile(Disk& disk, const std::string& path, const std::string& bytes) {
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  STARLING_RETURN_IF_ERROR(file->Append(bytes.data(), bytes.size()));
  return file->Sync();
}

absl::Status WriteGpt2Files(Disk& disk, const std::string& folder, const Gpt2Files& files) {
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(folder));
  STARLING_RETURN_IF_ERROR(WriteFile(disk, folder + "/tokenizer.json", files.tokenizer_json));
  STARLING_RETURN_IF_ERROR(WriteFile(disk, folder + "/vocab.json", files.vocab_json));
  STARLING_RETURN_IF_ERROR(WriteFile(disk, folder + "/merges.txt", files.merges_txt));
  return disk.SyncDirectory(folder);
}

// All or nothing: a temporary folder, renamed.
absl::Status Publish(Disk& disk, const std::string& out, const Gpt2Files& files) {
  const std::string temporary = out + ".tmp";
  absl::Status status = WriteGpt2Files(disk, temporary, files);
  if (status.ok()) status = disk.Rename(temporary, out);
  if (!status.ok()) disk.RemoveTree(temporary).IgnoreError();
  return status;
}

absl::Status CheckOut(Disk& disk, const std::string& out) {
  for (const std::string& path : {out, out + ".tmp"}) {
    if (!disk.Exists(path)) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        path, " exists: nothing is overwritten; give a folder that does not exist yet"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Open(const std::string& path) {
  PosixDisk disk;
  return OpenTokenizer(disk, path);
}

absl::StatusOr<std::string> ReadInput() {
  std::string text;
  char buffer[65536];
  for (size_t got = 0; (got = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0;) {
    text.append(buffer, got);
  }
  if (std::ferror(stdin) != 0) return absl::InternalError("cannot read the standard input");
  return text;
}

}  // namespace

absl::Status TrainTokenizer(const TokenizerTrainArgs& args) {
  PosixDisk disk;
  std::string out = args.out;
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  STARLING_RETURN_IF_ERROR(CheckOut(disk, out));
  CountRun count(args);
  STARLING_ASSIGN_OR_RETURN(const WordCounts counts, count.Run());
  const auto size = static_cast<uint32_t>(args.vocabulary) - 1;  // and the separator
  ProgressBar progress("made", size, "tokens");
  const TrainedBpe trained =
      TrainBpe(counts, size, [&](uint32_t tokens) { progress.Show(tokens); });
  progress.Clear();
  if (trained.merges.empty()) {
    return absl::InvalidArgumentError(
        "there is no text to learn from: no two bytes stand beside each other twice");
  }
  STARLING_RETURN_IF_ERROR(
      Publish(disk, out, PrintGpt2Files(trained.tokens, trained.merges, kSeparator)));
  const size_t made = trained.tokens.size() + 1;
  PrintLine(absl::StrCat("read        ", FormatBytes(static_cast<int64_t>(count.bytes())), " in ",
                         count.files(), count.files() == 1 ? " file" : " files"));
  PrintLine(absl::StrCat("vocabulary  ", made,
                         made < static_cast<size_t>(args.vocabulary)
                             ? ": the text has no more pairs that are there twice"
                             : ""));
  PrintLine(absl::StrCat("wrote       ", out, "/tokenizer.json, vocab.json, merges.txt"));
  PrintLine("next:");
  PrintLine(absl::StrCat("  ", args.program, " tokenize FILES --tokenizer ", out, " --out SHARDS"));
  return absl::OkStatus();
}

absl::Status ShowTokenizer(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Open(path));
  const bool beyond = tokenizer->separator() >= tokenizer->vocabulary();
  PrintLine(absl::StrCat("name        ", tokenizer->name()));
  PrintLine(absl::StrCat("kind        ", tokenizer->description()));
  PrintLine(absl::StrCat("vocabulary  ", tokenizer->vocabulary(),
                         beyond ? ", and one for the separator" : ""));
  PrintLine(absl::StrCat("separator   ", tokenizer->separator(), ", behind each document"));
  if (!tokenizer->prefix().empty()) {
    PrintLine(absl::StrCat("prefix      ", absl::StrJoin(tokenizer->prefix(), " "),
                           ", before each document"));
  }
  return absl::OkStatus();
}

absl::Status EncodeInput(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Open(path));
  STARLING_ASSIGN_OR_RETURN(const std::string text, ReadInput());
  std::vector<uint32_t> tokens;
  STARLING_RETURN_IF_ERROR(tokenizer->Encode(text.data(), text.size(), &tokens));
  PrintLine(absl::StrJoin(tokens, " "));
  return absl::OkStatus();
}

absl::Status DecodeInput(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Open(path));
  STARLING_ASSIGN_OR_RETURN(const std::string text, ReadInput());
  std::vector<uint32_t> tokens;
  for (const auto& word : absl::StrSplit(text, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty())) {
    uint32_t token = 0;
    if (!absl::SimpleAtoi(word, &token)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", word, "\" is no token: give numbers with spaces between them"));
    }
    if (token >= tokenizer->vocabulary() && token != tokenizer->separator()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "there is no token ", token, ": the vocabulary is ", tokenizer->vocabulary()));
    }
    tokens.push_back(token);
  }
  const std::string decoded = tokenizer->Decode(tokens);
  std::fwrite(decoded.data(), 1, decoded.size(), stdout);
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace starling
