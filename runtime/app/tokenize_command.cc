#include <signal.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/app/commands.h"
#include "runtime/app/progress_bar.h"
#include "runtime/app/terminal.h"
#include "runtime/app/threads.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/documents.h"
#include "runtime/data/glob.h"
#include "runtime/data/token_writer.h"
#include "runtime/observe/progress_printer.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/worker.h"
#include "runtime/tokenizer/tokenizer_files.h"

namespace starling {
namespace {

constexpr size_t kAhead = 3;  // chunks per thread that are out or wait for their turn
constexpr uint64_t kChunkBytes = uint64_t{1} << 18;

// Chunks go to the threads in turn; what comes back is written in the order of the chunks, so that
// the shards do not depend on the threads.
class TokenizeRun {
 public:
  TokenizeRun(const TokenizeArgs& args, std::unique_ptr<Tokenizer> tokenizer)
      : args_(args), tokenizer_(std::move(tokenizer)) {
    options_.text_key = args.text_key;
    options_.separate = !args.no_separator;
    options_.chunk_bytes = kChunkBytes;
  }

  absl::Status Run();

 private:
  // A chunk that was given to a thread.
  struct Out {
    size_t file = 0;
    uint64_t bytes = 0;
  };

  absl::Status Begin();
  void StartThreads();
  absl::Status Fill();
  absl::Status NextFile();
  void Dispatch(FileChunk chunk);
  void OnChunk(uint64_t number, TokenizedChunk chunk);
  absl::Status Take(const Out& out, const TokenizedChunk& chunk);
  void Stop(absl::Status status);
  void PrintSummary() const;

  const TokenizeArgs& args_;
  const std::unique_ptr<Tokenizer> tokenizer_;
  DocumentOptions options_;
  PosixDisk disk_;
  EventLoop loop_;
  std::vector<std::string> files_;
  std::unique_ptr<TokenWriter> writer_;
  std::unique_ptr<ProgressBar> progress_;

  size_t next_file_ = 0;
  Blob file_;                     // mapped, the one before next_file_
  std::deque<FileChunk> chunks_;  // of file_, not yet given out

  uint64_t next_number_ = 0;
  std::deque<Out> out_;                      // given out and not yet written, in order
  std::map<uint64_t, TokenizedChunk> back_;  // by number, not yet written
  uint64_t done_bytes_ = 0;
  size_t line_file_ = 0;  // the file that `lines_` counts in
  uint64_t lines_ = 0;

  bool stopped_ = false;
  absl::Status status_;
  std::vector<std::unique_ptr<Worker>> threads_;  // last: they answer as they are destroyed
};

absl::Status TokenizeRun::Begin() {
  STARLING_ASSIGN_OR_RETURN(files_, ExpandGlobs(args_.inputs, "tokenize"));
  uint64_t total = 0;
  for (const std::string& file : files_) {
    STARLING_ASSIGN_OR_RETURN(const uint64_t bytes, disk_.FileSize(file));
    total += bytes;
  }
  progress_ = std::make_unique<ProgressBar>("tokenized", total);
  TokenWriterOptions options;
  options.shard_tokens = args_.shard_tokens;
  options.validation = args_.validation;
  options.separate = options_.separate;
  STARLING_ASSIGN_OR_RETURN(writer_, TokenWriter::Begin(&disk_, args_.out, *tokenizer_, options));
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    STARLING_RETURN_IF_ERROR(loop_.AddSignal(
        signal, [this] { Stop(absl::CancelledError("interrupted; nothing was written")); }));
  }
  return absl::OkStatus();
}

void TokenizeRun::StartThreads() {
  const auto count = static_cast<size_t>(GivenOrAllCores(args_.threads));
  for (size_t i = 0; i < count; ++i) {
    Worker::Options options;
    options.name = "tokenize";
    options.bound = kAhead * count;
    threads_.push_back(std::make_unique<Worker>(&loop_, std::move(options)));
  }
}

absl::Status TokenizeRun::Run() {
  STARLING_RETURN_IF_ERROR(Begin());
  StartThreads();
  Stop(Fill());
  loop_.RunUntil([this] { return stopped_ || (out_.empty() && next_file_ == files_.size()); },
                 absl::InfiniteDuration());
  progress_->Clear();
  STARLING_RETURN_IF_ERROR(status_);
  STARLING_RETURN_IF_ERROR(writer_->Publish());
  PrintSummary();
  return absl::OkStatus();
}

// Keeps the threads busy.
absl::Status TokenizeRun::Fill() {
  while (out_.size() < kAhead * threads_.size()) {
    while (chunks_.empty()) {
      if (next_file_ == files_.size()) return absl::OkStatus();
      STARLING_RETURN_IF_ERROR(NextFile());
    }
    Dispatch(chunks_.front());
    chunks_.pop_front();
  }
  return absl::OkStatus();
}

absl::Status TokenizeRun::NextFile() {
  const std::string& path = files_[next_file_];
  STARLING_ASSIGN_OR_RETURN(file_, disk_.Map(path));
  const std::vector<FileChunk> chunks =
      ChunksOf(file_.size_bytes(), IsJsonLines(path), *tokenizer_, options_);
  chunks_.assign(chunks.begin(), chunks.end());
  ++next_file_;
  return absl::OkStatus();
}

void TokenizeRun::Dispatch(FileChunk chunk) {
  const uint64_t number = next_number_++;
  out_.push_back({next_file_ - 1, chunk.end - chunk.begin});
  const bool json_lines = IsJsonLines(files_[next_file_ - 1]);
  threads_[number % threads_.size()]->Run<TokenizedChunk>(
      [this, file = file_, json_lines, chunk]() -> absl::StatusOr<TokenizedChunk> {
        return TokenizeChunk(*tokenizer_, file, json_lines, chunk, options_);
      },
      [this, number](absl::StatusOr<TokenizedChunk> result) {
        if (!stopped_ && result.ok()) OnChunk(number, *std::move(result));
      });
}

void TokenizeRun::OnChunk(uint64_t number, TokenizedChunk chunk) {
  back_.emplace(number, std::move(chunk));
  while (!out_.empty() && !back_.empty() && back_.begin()->first == next_number_ - out_.size()) {
    const absl::Status status = Take(out_.front(), back_.begin()->second);
    if (!status.ok()) return Stop(status);
    done_bytes_ += out_.front().bytes;
    out_.pop_front();
    back_.erase(back_.begin());
  }
  progress_->Show(done_bytes_);
  Stop(Fill());
}

absl::Status TokenizeRun::Take(const Out& out, const TokenizedChunk& chunk) {
  if (out.file != line_file_) lines_ = 0;
  line_file_ = out.file;
  if (!chunk.problem.empty()) {
    const std::string line =
        chunk.problem_line == 0 ? "" : absl::StrCat(":", lines_ + chunk.problem_line);
    return absl::InvalidArgumentError(
        absl::StrCat(files_[out.file], line, ": ", chunk.problem, "; nothing was written"));
  }
  lines_ += chunk.lines;
  size_t begin = 0;
  for (const size_t end : chunk.document_ends) {
    STARLING_RETURN_IF_ERROR(writer_->Add(chunk.tokens.data() + begin, end - begin, true));
    begin = end;
  }
  return writer_->Add(chunk.tokens.data() + begin, chunk.tokens.size() - begin, false);
}

// Ends the run at the first thing that is not ok.
void TokenizeRun::Stop(absl::Status status) {
  if (status.ok() || stopped_) return;
  stopped_ = true;
  status_ = std::move(status);
}

void TokenizeRun::PrintSummary() const {
  const TokenWriter::Totals& totals = writer_->totals();
  const auto count = [](uint64_t number, const char* what) {
    return absl::StrCat(FormatCount(static_cast<int64_t>(number)), " ", what,
                        number == 1 ? "" : "s");
  };
  PrintLine(absl::StrCat(count(files_.size(), "file"), ", ", count(totals.documents, "document")));
  PrintLine(absl::StrCat("training    ", count(totals.train_tokens, "token"), " in ",
                         count(totals.train_shards, "shard")));
  if (totals.validation_shards > 0) {
    PrintLine(absl::StrCat("validation  ", count(totals.validation_tokens, "token"), " in ",
                           count(totals.validation_shards, "shard")));
  }
  PrintLine(absl::StrCat("vocabulary  ", writer_->vocabulary()));
  PrintLine(absl::StrCat("wrote       ", writer_->folder()));
  PrintLine("next, in a run file:");
  PrintLine(absl::StrCat("  [data]\n  shards = [\"", writer_->folder(), "/train_*.bin\"]"));
  if (totals.validation_shards > 0) {
    PrintLine(absl::StrCat("  validation_shards = [\"", writer_->folder(), "/val_*.bin\"]"));
  }
  PrintLine(absl::StrCat("  [model]\n  vocabulary = ", std::max(256u, writer_->vocabulary())));
}

}  // namespace

absl::Status Tokenize(const TokenizeArgs& args) {
  PosixDisk disk;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(disk, args.tokenizer);
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        absl::StrCat("--tokenizer: ", tokenizer.status().message()));
  }
  return TokenizeRun(args, *std::move(tokenizer)).Run();
}

}  // namespace starling
