#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/app/checkpoint_path.h"
#include "runtime/app/commands.h"
#include "runtime/app/line_reader.h"
#include "runtime/app/run_tokenizer.h"
#include "runtime/app/terminal.h"
#include "runtime/app/threads.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"
#include "runtime/reactor/signal_pipe.h"
#include "runtime/tokenizer/stop_strings.h"
#include "runtime/tokenizer/text_stream.h"
#include "stages/model_layout.h"
#include "stages/torch_generate.h"

namespace starling {
namespace {

struct LoadedModel {
  RunConfig config;
  Blob state;
};

absl::StatusOr<LoadedModel> Load(Disk& disk, const CheckpointInfo& info) {
  LoadedModel model;
  STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, info));
  STARLING_ASSIGN_OR_RETURN(
      model.config, ParseRunFile(manifest.meta.config_toml, info.path + "/manifest.json", {}));
  if (model.config.model.own()) {
    return absl::FailedPreconditionError(
        absl::StrCat(info.path,
                     " is of a run with layers of your own: generate makes text with the built-in "
                     "layers only"));
  }
  STARLING_ASSIGN_OR_RETURN(model.state,
                            LoadStage(disk, info, WholeModelLayout(model.config.model)));
  return model;
}

// Of the newest checkpoint that loads. LoadStage checks the hashes of what it reads.
absl::StatusOr<LoadedModel> LoadNewest(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> all, FindCheckpoints(disk, path));
  absl::Status first_problem;
  for (auto info = all.rbegin(); info != all.rend(); ++info) {
    absl::StatusOr<LoadedModel> model = Load(disk, *info);
    if (model.ok() || absl::IsFailedPrecondition(model.status())) return model;
    if (!first_problem.ok() || all.size() == 1) return model.status();
    first_problem = model.status();
    PrintWarning(absl::StrCat(first_problem.message(), "; taking the one before"));
  }
  return first_problem;
}

Sampling SamplingOf(const GenerateArgs& args) {
  Sampling sampling;
  sampling.temperature = args.temperature;
  sampling.top_k = args.top_k;
  sampling.top_p = args.top_p;
  sampling.seed = args.seed;
  return sampling;
}

// A prompt as the model has seen texts begin; an empty one is the begin of a document.
absl::StatusOr<std::vector<int32_t>> PromptTokens(const Tokenizer& tokenizer, int64_t vocabulary,
                                                  const std::string& prompt) {
  std::vector<uint32_t> tokens = tokenizer.prefix();
  const absl::Status status = tokenizer.Encode(prompt.data(), prompt.size(), &tokens);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt: ", status.message()));
  }
  if (tokens.empty()) {
    if (static_cast<int64_t>(tokenizer.separator()) >= vocabulary) {
      return absl::InvalidArgumentError(
          "the prompt is empty, and this model has no token that stands between documents: give at "
          "least one character");
    }
    tokens.push_back(tokenizer.separator());
  }
  return std::vector<int32_t>(tokens.begin(), tokens.end());
}

// Texts of one model on the standard output, until a signal ends the text or everything.
class Session {
 public:
  Session(const GenerateArgs& args, int64_t vocabulary, const Tokenizer* tokenizer,
          Generator* generator)
      : args_(args), vocabulary_(vocabulary), tokenizer_(tokenizer), generator_(generator) {}

  absl::Status CatchSignals() {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      STARLING_RETURN_IF_ERROR(signals_.Add(signal));
    }
    return absl::OkStatus();
  }

  // Begins a text, which Write then goes on with. Invalid argument: the prompt cannot be one.
  absl::Status Begin(const std::string& prompt);
  // Writes what follows, and a newline.
  absl::Status Write();
  // Prompts from the standard input, to its end.
  absl::Status Interact();
  // On the standard output, unless nobody reads it.
  absl::Status Show(const std::string& text);

 private:
  bool Interrupted();

  const GenerateArgs& args_;
  const int64_t vocabulary_;
  const Tokenizer* const tokenizer_;
  Generator* const generator_;
  SignalPipe signals_;
  uint64_t texts_ = 0;        // begun
  bool interrupted_ = false;  // this text
  bool over_ = false;         // told to end, or nobody reads
  bool unread_ = false;
};

absl::Status Session::Begin(const std::string& prompt) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                            PromptTokens(*tokenizer_, vocabulary_, prompt));
  Sampling sampling = SamplingOf(args_);
  sampling.seed += texts_;
  STARLING_RETURN_IF_ERROR(generator_->Begin(tokens, sampling));
  ++texts_;
  return absl::OkStatus();
}

absl::Status Session::Write() {
  TextStream characters(tokenizer_);
  StopStrings stop(args_.stops);
  interrupted_ = false;
  for (int64_t count = 0; count < args_.tokens && !Interrupted() && !stop.stopped(); ++count) {
    const absl::StatusOr<int32_t> token = generator_->Next([this] { return Interrupted(); });
    if (absl::IsCancelled(token.status())) break;
    STARLING_RETURN_IF_ERROR(token.status());
    const auto number = static_cast<uint32_t>(*token);
    if (number == tokenizer_->separator() || number >= tokenizer_->vocabulary()) break;
    STARLING_RETURN_IF_ERROR(Show(stop.Push(characters.Push(number))));
  }
  const std::string rest = stop.Push(characters.Finish());
  return Show(rest + stop.Finish() + "\n");
}

absl::Status Session::Interact() {
  const bool terminal = isatty(STDIN_FILENO) == 1 && StdoutIsTerminal();
  if (terminal) {
    STARLING_RETURN_IF_ERROR(
        Show("A line begins a text, an empty line goes on with it. Ctrl-C ends a text, Ctrl-D the "
             "session.\n"));
  }
  LineReader lines(STDIN_FILENO, signals_.fd());
  while (!over_) {
    if (terminal) STARLING_RETURN_IF_ERROR(Show("> "));
    STARLING_ASSIGN_OR_RETURN(const LineReader::Read read, lines.Next());
    if (read.kind != LineReader::Kind::kLine) {
      return terminal ? Show("\n") : absl::OkStatus();
    }
    const bool goes_on = read.line.empty() && texts_ > 0;
    const absl::Status begun = goes_on ? absl::OkStatus() : Begin(read.line);
    if (absl::IsInvalidArgument(begun)) {
      PrintWarning(std::string(begun.message()));
      continue;
    }
    STARLING_RETURN_IF_ERROR(begun);
    STARLING_RETURN_IF_ERROR(Write());
  }
  return absl::OkStatus();
}

bool Session::Interrupted() {
  for (const int signal : signals_.Take()) {
    interrupted_ = true;
    if (signal != SIGINT) over_ = true;
  }
  return interrupted_ || over_;
}

absl::Status Session::Show(const std::string& text) {
  if (text.empty() || unread_) return absl::OkStatus();
  STARLING_ASSIGN_OR_RETURN(const bool read, WriteOut(text));
  if (!read) unread_ = over_ = true;
  return absl::OkStatus();
}

absl::Status CheckArguments(const GenerateArgs& args) {
  // A closed descriptor is given to whatever is opened next.
  if (args.interactive && fcntl(STDIN_FILENO, F_GETFD) < 0) {
    return absl::FailedPreconditionError(
        "--interactive reads prompts from the standard input, which is closed");
  }
  return CheckSampling(SamplingOf(args));
}

}  // namespace

absl::Status Generate(const GenerateArgs& args) {
  STARLING_RETURN_IF_ERROR(CheckArguments(args));
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const LoadedModel model, LoadNewest(disk, args.run_directory));
  STARLING_ASSIGN_OR_RETURN(
      const std::unique_ptr<Tokenizer> tokenizer,
      FindModelTokenizer(disk, args.run_directory, model.config, args.tokenizer));
  const int threads = args.threads > 0 ? static_cast<int>(args.threads) : HalfOfTheCores();
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<Generator> generator,
                            Generator::Create(model.config.model, model.state, threads));
  Session session(args, model.config.model.vocabulary, tokenizer.get(), generator.get());
  STARLING_RETURN_IF_ERROR(session.CatchSignals());
  if (!args.interactive || !args.prompt.empty()) {
    STARLING_RETURN_IF_ERROR(session.Begin(args.prompt));
    STARLING_RETURN_IF_ERROR(session.Show(args.prompt));
    STARLING_RETURN_IF_ERROR(session.Write());
  }
  return args.interactive ? session.Interact() : absl::OkStatus();
}

}  // namespace starling
