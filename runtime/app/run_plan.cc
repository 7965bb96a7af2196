#include "runtime/app/run_plan.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"
#include "runtime/app/run_tokenizer.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/data/corpus.h"
#include "runtime/tokenizer/tokenizer_name.h"
#include "runtime/trainer/decision_log.h"
#include "runtime/trainer/epoch_store.h"
#include "stages/initial_state.h"
#include "stages/model_layout.h"

namespace starling {
namespace {

RunId DrawRunId() {
  std::random_device device;
  const uint64_t high = device();
  return RunId{(high << 32 | device()) | 1};  // 0 means "not known yet"
}

std::vector<StageLayout> LayoutsOf(const RunConfig& config, const RunLayers& own) {
  std::vector<StageLayout> layouts;
  for (const LayerRange& range : StageRanges(config)) {
    layouts.push_back(config.model.own() ? OwnStageLayout(own.layers, range)
                                         : ModelStageLayout(config.model, range));
  }
  return layouts;
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// The run may be resumed from another working folder.
void MakePatternsAbsolute(RunConfig* config) {
  std::error_code error;
  const std::string here = std::filesystem::current_path(error).string();
  DataConfig& data = config->data;
  if (!data.samples.empty() && data.samples[0] != '/') {
    data.samples = absl::StrCat(here, "/", data.samples);
  }
  for (auto* patterns : {&data.text, &data.shards, &data.validation_shards}) {
    for (std::string& pattern : *patterns) {
      if (!pattern.empty() && pattern[0] != '/') pattern = absl::StrCat(here, "/", pattern);
    }
  }
}

absl::StatusOr<std::vector<Shard>> WriteVersionZeroShards(Disk& disk, const RunPlan& plan,
                                                          const StateSource& state,
                                                          const std::string& folder) {
  std::vector<Shard> shards;
  for (const StageLayout& layout : plan.layouts) {
    STARLING_ASSIGN_OR_RETURN(
        std::unique_ptr<ShardWriter> writer,
        ShardWriter::Create(disk, folder, static_cast<uint32_t>(shards.size()), layout));
    STARLING_RETURN_IF_ERROR(state(
        layout, [&writer](const void* data, size_t size) { return writer->Append(data, size); }));
    STARLING_ASSIGN_OR_RETURN(Shard shard, writer->Finish());
    shards.push_back(std::move(shard));
  }
  return shards;
}

absl::Status WriteVersionZero(Disk& disk, const StateSource& state, RunPlan* plan) {
  CheckpointMeta meta;
  meta.run = plan->run;
  if (plan->feed != nullptr) meta.text_sha256 = plan->feed->sha256();
  meta.config_toml = plan->config_toml;
  CheckpointStore store(plan->directory + "/checkpoints");
  STARLING_ASSIGN_OR_RETURN(const Staging staging, store.Begin(disk, meta));
  absl::StatusOr<std::vector<Shard>> shards =
      WriteVersionZeroShards(disk, *plan, state, staging.path);
  if (!shards.ok()) {
    store.Abandon(disk, staging);
    return shards.status();
  }
  STARLING_RETURN_IF_ERROR(store.Publish(disk, staging, *shards));
  STARLING_ASSIGN_OR_RETURN(plan->start, store.Newest(disk));
  plan->start_meta = meta;
  return absl::OkStatus();
}

absl::Status KeepTokenizer(Disk& disk, RunPlan* plan) {
  const std::string& name = plan->config.data.tokenizer;
  STARLING_ASSIGN_OR_RETURN(
      plan->tokenizer, KeepRunTokenizer(disk, plan->directory, name, std::move(plan->tokenizer)));
  if (plan->tokenizer == nullptr && IsTokenizerName(name)) {
    plan->notices.push_back(absl::StrCat("the tokenizer ", name,
                                         " is not beside the shards: generate will want it, as "
                                         "--tokenizer"));
  }
  return absl::OkStatus();
}

absl::Status FillRunDirectory(Disk& disk, const StateSource& state, RunPlan* plan) {
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(plan->directory + "/logs"));
  STARLING_ASSIGN_OR_RETURN(plan->lock, FileLock::Acquire(plan->directory + "/lock"));
  STARLING_RETURN_IF_ERROR(WriteWholeFile(disk, plan->directory + "/run.toml", plan->config_toml));
  STARLING_RETURN_IF_ERROR(
      CreateDecisionLog(disk, plan->directory + "/decisions.jsonl", plan->run));
  STARLING_RETURN_IF_ERROR(KeepTokenizer(disk, plan));
  STARLING_RETURN_IF_ERROR(KeepRunLayers(disk, plan->directory, plan->own));
  FileEpochStore epochs(&disk, plan->directory + "/epoch");
  STARLING_ASSIGN_OR_RETURN(plan->epoch, TakeNextEpoch(&epochs, Epoch{0}));
  return WriteVersionZero(disk, state, plan);
}

// The step of the last whole line of metrics.jsonl; 0: there is none.
uint64_t LastReportedStep(Disk& disk, const std::string& path) {
  const absl::StatusOr<std::string> text = disk.Read(path);
  if (!text.ok()) return 0;
  const std::vector<std::string> lines = absl::StrSplit(*text, '\n');
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    const auto json = nlohmann::json::parse(*line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("step") && json["step"].is_number_unsigned()) {
      return json["step"].get<uint64_t>();
    }
  }
  return 0;
}

bool CutAlike(const RunConfig& a, const RunConfig& b) {
  const std::vector<LayerRange> left = StageRanges(a);
  const std::vector<LayerRange> right = StageRanges(b);
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](const LayerRange& x, const LayerRange& y) {
                      return x.begin == y.begin && x.end == y.end;
                    });
}

// What replicas may still hold: the newest decision, unless none can go on with it, because the run
// is cut otherwise from now on, or wants another device.
absl::Status FindLiveState(Disk& disk, const DecisionLogState& log, RunPlan* plan) {
  STARLING_ASSIGN_OR_RETURN(const RunConfig before, ReadRunConfig(disk, plan->directory, {}));
  if (!log.newest || log.members.empty() || !CutAlike(before, plan->config) ||
      !SameDevice(before, plan->config)) {
    return absl::OkStatus();
  }
  LiveState live;
  live.newest = *log.newest;
  live.members = log.members;
  for (const Step& step : log.skipped) {
    if (VersionAfter(step) > plan->start.version && step <= live.newest.step) ++live.skipped;
  }
  live.reported =
      LastReportedStep(disk, plan->directory + "/metrics.jsonl") == Value(live.newest.step);
  plan->live = std::move(live);
  return absl::OkStatus();
}

absl::Status CheckText(const RunPlan& plan, bool accept_new_text) {
  const std::string& learned_from = plan.start_meta.text_sha256;
  const bool from_none = learned_from.empty();  // imported
  if (from_none || learned_from == plan.feed->sha256() || accept_new_text) return absl::OkStatus();
  const DataConfig& data = plan.config.data;
  std::string source = data.samples;
  if (source.empty()) source = absl::StrJoin(data.shards.empty() ? data.text : data.shards, ", ");
  return absl::FailedPreconditionError(
      absl::StrCat(plan.feed->corpus() == nullptr ? "the data of " : "the text of ", source,
                   " is not the one this run has learned from; put it back, or give "
                   "--accept-new-text to go on with it"));
}

// It would be gone on from with other numbers of records, eras and data than are in the log.
absl::Status CheckRun(const CheckpointInfo& checkpoint, RunId saved_by, RunId run) {
  if (saved_by == run) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "checkpoint ", checkpoint.path, " is of another run, ",
      absl::Hex(Value(saved_by), absl::kZeroPad16), ", not of this one, ",
      absl::Hex(Value(run), absl::kZeroPad16), ": move it away to go on from an older one"));
}

// The layers, with the samples that they are for, if any.
absl::StatusOr<std::optional<Samples>> OpenModel(Disk& disk, const std::string& layers_folder,
                                                 const ProbeLayers& probe, RunPlan* plan) {
  std::optional<Samples> samples;
  RunConfig& config = plan->config;
  const DataConfig& data = config.data;
  if (config.model.own() && data.samples.empty() && data.text.empty() && data.shards.empty()) {
    return absl::InvalidArgumentError(
        "nothing to learn from: give data.samples, data.text or data.shards");
  }
  if (!config.data.samples.empty()) {
    STARLING_ASSIGN_OR_RETURN(samples, Samples::Open(disk, config.data.samples));
  }
  if (config.model.own()) {
    STARLING_ASSIGN_OR_RETURN(plan->own, OpenRunLayers(disk, layers_folder, probe,
                                                       samples ? &*samples : nullptr, &config));
  }
  plan->layouts = LayoutsOf(config, plan->own);
  return samples;
}

// What the shards' tokens are stays with the run.
absl::StatusOr<Corpus> LoadTokens(Disk& disk, RunPlan* plan) {
  STARLING_ASSIGN_OR_RETURN(plan->tokenizer, OpenGivenTokenizer(disk, &plan->config));
  STARLING_ASSIGN_OR_RETURN(Corpus corpus, LoadCorpus(disk, plan->config));
  if (corpus.from_shards) plan->config.data.tokenizer = corpus.tokenizer;
  if (plan->tokenizer == nullptr) {
    STARLING_ASSIGN_OR_RETURN(plan->tokenizer, FindShardsTokenizer(disk, corpus));
  }
  return corpus;
}

absl::Status LoadData(Disk& disk, DataPosition position, std::optional<Samples> samples,
                      RunPlan* plan) {
  if (samples) {
    STARLING_ASSIGN_OR_RETURN(plan->feed,
                              SampleFeed::Make(plan->config, *std::move(samples), position));
  } else {
    STARLING_ASSIGN_OR_RETURN(Corpus corpus, LoadTokens(disk, plan));
    STARLING_ASSIGN_OR_RETURN(plan->feed,
                              WindowFeed::Make(plan->config, std::move(corpus), position));
  }
  plan->config_toml = ToToml(plan->config);
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteWholeFile(Disk& disk, const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp";
  {
    STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(temporary));
    STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
    STARLING_RETURN_IF_ERROR(file->Sync());
  }
  return disk.Rename(temporary, path);
}

absl::StatusOr<RunConfig> ReadRunConfig(Disk& disk, const std::string& directory,
                                        const std::vector<std::string>& overrides) {
  const std::string path = directory + "/run.toml";
  if (!disk.Exists(path)) {
    return absl::NotFoundError(absl::StrCat(
        directory, disk.Exists(directory) ? " is not a run directory: it has no run.toml"
                                          : " does not exist: give the directory of a run"));
  }
  STARLING_ASSIGN_OR_RETURN(const std::string text, disk.Read(path));
  return ParseRunFile(text, path, overrides);
}

absl::StatusOr<std::string> ReadAddress(Disk& disk, const std::string& directory) {
  const absl::StatusOr<std::string> text = disk.Read(directory + "/address");
  if (!text.ok()) {
    return absl::NotFoundError(
        absl::StrCat(directory, " has no trainer's address: no trainer has been started there"));
  }
  return text->substr(0, text->find('\n'));
}

absl::Status FindStart(Disk& disk, const std::string& folder, RunPlan* plan) {
  STARLING_ASSIGN_OR_RETURN(std::vector<CheckpointInfo> all, CheckpointStore(folder).List(disk));
  if (all.empty()) return absl::NotFoundError(absl::StrCat("there is no checkpoint in ", folder));
  std::string newest_problem;
  for (auto info = all.rbegin(); info != all.rend(); ++info) {
    const absl::StatusOr<VerifyReport> report = Verify(disk, *info);
    if (report.ok() && report->ok()) {
      plan->start = *info;
      return absl::OkStatus();
    }
    const std::string problem =
        report.ok() ? absl::StrCat("checkpoint ", info->path, ": ", report->problems.front())
                    : std::string(report.status().message());
    if (newest_problem.empty()) newest_problem = problem;
    plan->damaged.push_back(*info);
    plan->notices.push_back(absl::StrCat("skipped a damaged checkpoint: ", problem));
  }
  return absl::DataLossError(
      absl::StrCat("no checkpoint in ", folder, " is whole; the newest: ", newest_problem));
}

std::string ResumedFromCheckpoint(const RunPlan& plan) {
  return absl::StrCat("resumed at step ", Value(plan.start.version), " from ", plan.start.path,
                      ", data position ", plan.start_meta.sequences);
}

absl::Status SetDamagedAside(Disk& disk, const RunPlan& plan) {
  const std::string folder = plan.directory + "/checkpoints";
  for (const CheckpointInfo& info : plan.damaged) {
    const std::string aside = absl::StrCat(folder, "/damaged-", info.name);
    STARLING_RETURN_IF_ERROR(disk.RemoveTree(aside));
    STARLING_RETURN_IF_ERROR(disk.Rename(info.path, aside));
  }
  return plan.damaged.empty() ? absl::OkStatus() : disk.SyncDirectory(folder);
}

absl::StatusOr<RunPlan> PlanNewRun(Disk& disk, const std::string& run_file,
                                   const std::vector<std::string>& overrides, std::string directory,
                                   const ProbeLayers& probe) {
  RunPlan plan;
  STARLING_ASSIGN_OR_RETURN(const std::string file_text, disk.Read(run_file));
  STARLING_ASSIGN_OR_RETURN(plan.config, ParseRunFile(file_text, run_file, overrides));
  if (directory.empty()) {
    directory = absl::StrCat("runs/",
                             absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone()));
  }
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  if (disk.Exists(directory)) {
    return absl::AlreadyExistsError(
        absl::StrCat(directory,
                     " exists already: give another --run-dir, or go on with the run in it with "
                     "`starling resume ",
                     directory, "`"));
  }
  plan.directory = directory;
  std::string& samples = plan.config.data.samples;
  if (!samples.empty() && samples[0] != '/') {
    samples = absl::StrCat(FolderOf(run_file), "/", samples);
  }
  MakePatternsAbsolute(&plan.config);
  plan.run = DrawRunId();
  STARLING_ASSIGN_OR_RETURN(std::optional<Samples> opened,
                            OpenModel(disk, FolderOf(run_file), probe, &plan));
  STARLING_RETURN_IF_ERROR(LoadData(disk, DataPosition{}, std::move(opened), &plan));
  return plan;
}

RunPlan PlanImportedRun(RunConfig config, std::string directory) {
  RunPlan plan;
  plan.config = std::move(config);
  plan.directory = std::move(directory);
  MakePatternsAbsolute(&plan.config);
  plan.config_toml = ToToml(plan.config);
  plan.layouts = LayoutsOf(plan.config, plan.own);
  plan.run = DrawRunId();
  return plan;
}

absl::Status MakeRunDirectory(Disk& disk, RunPlan* plan) {
  return MakeRunDirectory(
      disk,
      [plan](const StageLayout& layout, const AppendBytes& append) {
        const Blob state = plan->config.model.own() ? OwnInitialState(plan->own.layers, layout)
                                                    : InitialState(layout, plan->config.train.seed);
        return append(state.data(), state.size_bytes());
      },
      plan);
}

absl::Status MakeRunDirectory(Disk& disk, const StateSource& state, RunPlan* plan) {
  const absl::Status status = FillRunDirectory(disk, state, plan);
  plan->own = RunLayers();  // it is all in the directory
  if (!status.ok()) {
    plan->lock.reset();
    disk.RemoveTree(plan->directory).IgnoreError();
  }
  return status;
}

absl::StatusOr<RunPlan> ReopenRun(Disk& disk, const std::string& directory,
                                  const std::vector<std::string>& overrides, bool accept_new_text,
                                  const ProbeLayers& probe) {
  RunPlan plan;
  plan.directory = directory;
  while (plan.directory.size() > 1 && plan.directory.back() == '/') plan.directory.pop_back();
  STARLING_ASSIGN_OR_RETURN(plan.config, ReadRunConfig(disk, plan.directory, overrides));
  MakePatternsAbsolute(&plan.config);
  STARLING_ASSIGN_OR_RETURN(std::optional<Samples> samples,
                            OpenModel(disk, LayersFolder(plan.directory), probe, &plan));
  absl::StatusOr<std::unique_ptr<FileLock>> lock = FileLock::Acquire(plan.directory + "/lock");
  if (absl::IsUnavailable(lock.status())) {
    return absl::UnavailableError(absl::StrCat(
        plan.directory, " is in use: ", lock.status().message(), ", the run's trainer"));
  }
  STARLING_RETURN_IF_ERROR(lock.status());
  plan.lock = *std::move(lock);

  STARLING_ASSIGN_OR_RETURN(const DecisionLogState log,
                            ReadDecisionLog(disk, plan.directory + "/decisions.jsonl"));
  STARLING_RETURN_IF_ERROR(FindStart(disk, plan.directory + "/checkpoints", &plan));
  STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, plan.start));
  STARLING_RETURN_IF_ERROR(CheckRun(plan.start, manifest.meta.run, log.run));
  STARLING_RETURN_IF_ERROR(CheckModelShape(plan.start, manifest, plan.layouts));
  plan.start_meta = manifest.meta;
  plan.run = log.run;
  plan.era = Next(std::max(log.era, manifest.meta.era));
  plan.last_record = log.last_number;
  if (static_cast<int64_t>(Value(plan.start.version)) >= plan.config.train.steps) {
    return absl::FailedPreconditionError(
        absl::StrCat("all ", plan.config.train.steps, " steps of ", plan.directory,
                     " are done: give --train.steps=N with more to train it further"));
  }
  const DataPosition position{Step{Value(plan.start.version)}, plan.start_meta.sequences};
  STARLING_RETURN_IF_ERROR(LoadData(disk, position, std::move(samples), &plan));
  STARLING_RETURN_IF_ERROR(CheckText(plan, accept_new_text));
  STARLING_RETURN_IF_ERROR(KeepTokenizer(disk, &plan));
  plan.start_meta.text_sha256 = plan.feed->sha256();
  plan.own = RunLayers();  // their files are loaded where they are hosted
  STARLING_RETURN_IF_ERROR(FindLiveState(disk, log, &plan));
  FileEpochStore epochs(&disk, plan.directory + "/epoch");
  STARLING_ASSIGN_OR_RETURN(plan.epoch, TakeNextEpoch(&epochs, log.epoch));
  return plan;
}

}  // namespace starling
