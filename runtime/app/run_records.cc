#include "runtime/app/run_records.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "runtime/app/child_process.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/data/sample_feed.h"
#include "stages/model_layout.h"

namespace starling {
namespace {

constexpr int kSampleTokens = 200;
constexpr int kSampleLimitMs = 30000;
constexpr int kPromptBytes = 48;
constexpr uint64_t kPromptSearch = 4096;  // tokens

std::string Plural(int64_t count, const std::string& what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

std::string StageLine(const RunPlan& plan, uint32_t stage) {
  const LayerRange range = StageRanges(plan.config)[stage];
  const StageLayout& layout = plan.layouts[stage];
  const int64_t plane = layout.size * static_cast<int64_t>(sizeof(float));
  const std::string layers = range.end - range.begin == 1
                                 ? absl::StrCat("layer ", range.begin)
                                 : absl::StrCat("layers ", range.begin, "-", range.end - 1);
  return absl::StrCat("  stage ", stage, ": ", layers, ", ", FormatCount(layout.parameter_count()),
                      " parameters (", FormatBytes(plane), "), state ",
                      FormatBytes(kStatePlanes * plane), ", gradients ", FormatBytes(plane));
}

// A line from the middle of what the model is judged by, to begin the sample with.
std::string SamplePrompt(const RunPlan& plan) {
  const Corpus& corpus = *plan.feed->corpus();
  const TokenStream& from = corpus.validation.empty() ? corpus.train : corpus.validation;
  std::vector<int32_t> tokens(std::min(from.size() - from.size() / 2, kPromptSearch));
  if (!from.Read(from.size() / 2, plan.config.model.vocabulary, absl::MakeSpan(tokens)).ok()) {
    return " ";
  }
  std::string bytes;
  if (plan.tokenizer != nullptr) {
    bytes = plan.tokenizer->Decode(std::vector<uint32_t>(tokens.begin(), tokens.end()));
  } else {
    for (const int32_t token : tokens) {
      bytes.push_back(token < 256 ? static_cast<char>(token) : '\n');
    }
  }
  size_t at = bytes.find('\n');
  at = at == std::string::npos ? 0 : bytes.find_first_not_of("\n ", at);
  if (at == std::string::npos) at = 0;
  bytes = bytes.substr(at, std::min<size_t>(kPromptBytes, bytes.find('\n', at) - at));
  return bytes.empty() ? " " : bytes;
}

// What a loss is of.
std::string LossUnit(const RunPlan& plan) {
  const Corpus* const corpus = plan.feed->corpus();
  if (corpus == nullptr) return "target";
  return corpus->from_shards ? "token" : "byte";
}

std::string ModelLine(const RunPlan& plan) {
  const ModelConfig& model = plan.config.model;
  int64_t parameters = 0;
  for (const StageLayout& layout : plan.layouts) parameters += layout.stored_count();
  const std::string begin = absl::StrCat("model: ", FormatCount(parameters), " parameters, ",
                                         Plural(model.layers, "layer"));
  const std::string end = absl::StrCat(", ", Plural(plan.layouts.size(), "stage"));
  if (model.own()) return absl::StrCat(begin, " of your own", end);
  return absl::StrCat(begin, " of width ", model.width, ", context ", model.context, end);
}

std::string SamplesLine(const RunPlan& plan) {
  const auto& feed = static_cast<const SampleFeed&>(*plan.feed);
  const uint64_t all = feed.samples().count();
  return absl::StrCat("samples: ", feed.train_samples(), " to learn from, ",
                      all - feed.train_samples(), " to be judged by, of ",
                      plan.config.data.samples);
}

std::string DataLine(const RunPlan& plan) {
  if (plan.feed->corpus() == nullptr) return SamplesLine(plan);
  const Corpus& corpus = *plan.feed->corpus();
  const auto amount = [&](const TokenStream& tokens) {
    const auto count = static_cast<int64_t>(tokens.size());
    return corpus.from_shards ? FormatCount(count) + " tokens" : FormatBytes(count);
  };
  return absl::StrCat(corpus.from_shards ? "shards: " : "text: ", amount(corpus.train),
                      " to learn from (", Plural(corpus.train_files, "file"), "), ",
                      amount(corpus.validation), " to be judged by");
}

// The trainer has no LibTorch: another process makes the sample.
void PrintSample(const RunPlan& plan) {
  PrintLine("");
  PrintLine("A sample from the model, which goes on with a line of the validation text:");
  SpawnOptions options;
  options.program = TorchProgramPath();
  options.arguments = {"starling",
                       "generate",
                       plan.directory,
                       "--prompt",
                       SamplePrompt(plan),
                       "--tokens",
                       absl::StrCat(kSampleTokens)};
  const absl::StatusOr<pid_t> pid = Spawn(options);
  if (!pid.ok()) return PrintWarning(std::string(pid.status().message()));
  int status = 0;
  for (int waited_ms = 0; waitpid(*pid, &status, WNOHANG) == 0; waited_ms += 10) {
    poll(nullptr, 0, 10);
    if (waited_ms == kSampleLimitMs) kill(*pid, SIGKILL);
  }
}

}  // namespace

RunRecords::RunRecords(const RunPlan& plan, std::unique_ptr<LineFile> metrics,
                       std::unique_ptr<LineFile> events)
    : metrics_(std::move(metrics)),
      events_(std::move(events)),
      progress_({plan.config.train.steps, StdoutIsTerminal()}, PrintLine),
      loss_unit_(LossUnit(plan)),
      checkpoint_(plan.start.path) {}

absl::StatusOr<std::unique_ptr<RunRecords>> RunRecords::Open(Disk& disk, const RunPlan& plan) {
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<LineFile> metrics,
                            LineFile::Open(disk, plan.directory + "/metrics.jsonl", PrintWarning));
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<LineFile> events,
                            LineFile::Open(disk, plan.directory + "/events.jsonl", PrintWarning));
  return std::unique_ptr<RunRecords>(new RunRecords(plan, std::move(metrics), std::move(events)));
}

void RunRecords::OnStep(const StepReport& report) {
  metrics_.Write(report);
  progress_.OnStep(report);
}

void RunRecords::OnEvent(const Event& event) {
  events_.Write(absl::Now(), event);
  progress_.OnEvent(event);
  if (event.name != "checkpoint_saved") return;
  for (const auto& [key, value] : event.fields) {
    if (key == "path") checkpoint_ = std::get<std::string>(value);
  }
}

void RunRecords::OnEvaluation(Version version, double loss) {
  validation_loss_ = loss;
  Event event("evaluated");
  event.With("step", Value(version)).With("validation_loss", loss);
  if (loss_unit_ != "byte") event.With("per", loss_unit_);
  OnEvent(event);
}

void PrintRunHeader(const RunPlan& plan) {
  PrintLine(absl::StrCat("run ", plan.directory));
  PrintLine(ModelLine(plan));
  for (uint32_t stage = 0; stage < plan.layouts.size(); ++stage) PrintLine(StageLine(plan, stage));
  PrintLine(DataLine(plan));
}

void PrintRunEnd(const RunPlan& plan, const RunRecords& records, bool complete) {
  const Corpus* const corpus = plan.feed->corpus();
  const bool speaks = !plan.config.model.own() && corpus != nullptr &&
                      (corpus->tokens_are_bytes() || plan.tokenizer != nullptr);
  if (complete && speaks) PrintSample(plan);
  PrintLine("");
  if (records.validation_loss()) {
    PrintLine(absl::StrFormat("validation loss  %.4f nats/%s", *records.validation_loss(),
                              LossUnit(plan)));
  }
  PrintLine(absl::StrCat("checkpoint       ", records.checkpoint()));
  PrintLine("next:");
  const std::string resume = absl::StrCat("  ", plan.program, " resume ", plan.directory);
  if (complete) {
    PrintLine(absl::StrCat(resume, " --train.steps=", 2 * plan.config.train.steps,
                           "   # train it further"));
  } else {
    PrintLine(absl::StrCat(resume, "   # go on"));
  }
  if (speaks) {
    PrintLine(
        absl::StrCat("  ", plan.program, " generate ", plan.directory, " --prompt \"namespace \""));
  }
  PrintLine(absl::StrCat("  ", plan.program, " stage --join ADDRESS",
                         plan.config.model.own() ? " --layers-dir FOLDER" : "",
                         "   # while a run trains, from another terminal: one "
                         "replica more"));
}

}  // namespace starling
