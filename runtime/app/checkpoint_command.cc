#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/checkpoint_store.h"
#include "runtime/app/checkpoint_path.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/reactor/file_lock.h"
#include "runtime/reactor/posix_disk.h"

namespace starling {
namespace {

std::string Plural(uint64_t count, const char* what) {
  return absl::StrCat(count, " ", what, count == 1 ? "" : "s");
}

uint64_t BytesOf(const Manifest& manifest) {
  uint64_t bytes = 0;
  for (const ManifestFile& file : manifest.files) bytes += file.bytes;
  return bytes;
}

// How long ago the file was written, in its largest unit: "3 min".
std::string AgeOf(const std::string& path) {
  std::error_code error;
  const auto written = std::filesystem::last_write_time(path, error);
  if (error) return "";
  const auto age = std::filesystem::file_time_type::clock::now() - written;
  const auto seconds = std::max<int64_t>(
      0, static_cast<int64_t>(std::chrono::duration_cast<std::chrono::seconds>(age).count()));
  if (seconds < 120) return absl::StrCat(seconds, " s");
  if (seconds < 120 * 60) return absl::StrCat(seconds / 60, " min");
  if (seconds < 48 * 3600) return absl::StrCat(seconds / 3600, " h");
  return absl::StrCat(seconds / (24 * 3600), " days");
}

// The run that the newest checkpoint with a manifest is of.
std::optional<RunId> RunOf(Disk& disk, const std::vector<CheckpointInfo>& checkpoints) {
  for (auto info = checkpoints.rbegin(); info != checkpoints.rend(); ++info) {
    const absl::StatusOr<Manifest> manifest = LoadManifest(disk, *info);
    if (manifest.ok()) return manifest->meta.run;
  }
  return std::nullopt;
}

std::string OfAnotherRun(RunId run) {
  return absl::StrFormat("of another run (%016x) than the newest", Value(run));
}

// Without the checkpoint's path in front, which stands in the line already.
std::string Cause(const CheckpointInfo& info, const std::string& message) {
  const std::string prefix = absl::StrCat("checkpoint ", info.path, ": ");
  return message.compare(0, prefix.size(), prefix) == 0 ? message.substr(prefix.size()) : message;
}

void PrintRow(const std::string& name, const std::string& version, const std::string& era,
              const std::string& size, const std::string& age, const std::string& state) {
  PrintLine(absl::StrFormat("%-22s %9s %5s %11s %8s  %s", name, version, era, size, age, state));
}

void PrintCheckpoint(Disk& disk, const CheckpointInfo& info, const std::optional<RunId>& run) {
  const std::string age = AgeOf(info.path + "/manifest.json");
  const std::string version = absl::StrCat(Value(info.version));
  const absl::StatusOr<Manifest> manifest = LoadManifest(disk, info);
  if (!manifest.ok()) {
    return PrintRow(info.name, version, "", "", age,
                    "damaged: " + Cause(info, std::string(manifest.status().message())));
  }
  const absl::Status complete = CheckComplete(disk, info);
  std::string state =
      complete.ok() ? "complete" : "damaged: " + Cause(info, std::string(complete.message()));
  if (manifest->meta.run != run) absl::StrAppend(&state, ", ", OfAnotherRun(manifest->meta.run));
  PrintRow(info.name, version, absl::StrCat(Value(info.era)),
           FormatBytes(static_cast<int64_t>(BytesOf(*manifest))), age, state);
}

// What is wrong with it, a line each; `sound` gets what is right.
std::vector<std::string> ProblemsOf(Disk& disk, const CheckpointInfo& info,
                                    const std::optional<RunId>& run, std::string* sound) {
  const absl::StatusOr<VerifyReport> report = Verify(disk, info);
  if (!report.ok()) return {Cause(info, std::string(report.status().message()))};
  std::vector<std::string> problems = report->problems;
  for (const std::string& name : report->strangers) {
    problems.push_back(absl::StrCat(name, ": is not in the manifest, and is read by nobody"));
  }
  const absl::StatusOr<Manifest> manifest = LoadManifest(disk, info);
  if (manifest.ok() && manifest->meta.run != run) {
    problems.push_back(OfAnotherRun(manifest->meta.run));
  }
  *sound = absl::StrCat("ok, ", report->tensors, " tensors in ", report->files, " files, ",
                        FormatBytes(static_cast<int64_t>(report->bytes)));
  return problems;
}

std::string CheckpointFolder(const std::string& run_directory) {
  return run_directory + "/checkpoints";
}

// Before older ones go, one that stays must be found to be sound, to the last byte.
absl::Status CheckNewestStays(Disk& disk, const CheckpointStore& store) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> all, store.List(disk));
  for (auto info = all.rbegin(); info != all.rend(); ++info) {
    if (!CheckComplete(disk, *info).ok()) continue;
    const absl::StatusOr<VerifyReport> report = Verify(disk, *info);
    if (report.ok() && report->ok()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(
        info->path, " is damaged: ",
        report.ok() ? report->problems[0] : Cause(*info, std::string(report.status().message())),
        "; nothing is removed: move it away first"));
  }
  return absl::NotFoundError("no checkpoint is complete; nothing is removed");
}

absl::Status CollectGarbage(Disk& disk, const CheckpointGcArgs& args, uint64_t keep,
                            uint64_t keep_every) {
  CheckpointStore store(CheckpointFolder(args.run_directory));
  STARLING_RETURN_IF_ERROR(CheckNewestStays(disk, store));
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> leftovers, store.Leftovers(disk));
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> doomed,
                            store.Doomed(disk, keep, keep_every));
  uint64_t bytes = 0;
  for (const CheckpointInfo& info : doomed) {
    STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, info));
    bytes += BytesOf(manifest);
  }
  if (!args.dry_run) {
    STARLING_RETURN_IF_ERROR(store.Prune(disk, keep, keep_every));
    STARLING_RETURN_IF_ERROR(store.ClearLeftovers(disk));
  }
  const char* const what = args.dry_run ? "would remove " : "removed ";
  for (const CheckpointInfo& info : doomed) PrintLine(what + info.name);
  for (const std::string& name : leftovers) {
    PrintLine(absl::StrCat(what, name, ", left by a save or removal that was cut short"));
  }
  PrintLine(absl::StrCat(what, Plural(doomed.size(), "checkpoint"), ", ",
                         FormatBytes(static_cast<int64_t>(bytes)), "; keeps the newest ", keep,
                         keep_every == 0 ? "" : absl::StrCat(" and every ", keep_every, " steps")));
  return absl::OkStatus();
}

}  // namespace

absl::Status ListCheckpoints(const std::string& run_directory) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                            FindCheckpoints(disk, run_directory));
  const std::optional<RunId> run = RunOf(disk, checkpoints);
  PrintRow("checkpoint", "version", "era", "size", "age", "state");
  for (const CheckpointInfo& info : checkpoints) PrintCheckpoint(disk, info, run);
  const CheckpointStore store(CheckpointFolder(run_directory));
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> leftovers, store.Leftovers(disk));
  for (const std::string& name : leftovers) {
    PrintRow(name, "", "", "", "", "under way or cut short: the next save clears it");
  }
  return absl::OkStatus();
}

absl::Status VerifyCheckpoints(const std::string& path) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                            FindCheckpoints(disk, path));
  const std::optional<RunId> run = RunOf(disk, checkpoints);
  std::vector<std::string> damaged;
  for (const CheckpointInfo& info : checkpoints) {
    std::string sound;
    const std::vector<std::string> problems = ProblemsOf(disk, info, run, &sound);
    if (problems.empty()) {
      PrintLine(absl::StrCat(info.path, ": ", sound));
      continue;
    }
    damaged.push_back(info.name);
    for (const std::string& problem : problems) {
      PrintLine(absl::StrCat(info.path, ": ", problem));
    }
  }
  if (damaged.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      damaged.size(), " of ", Plural(checkpoints.size(), "checkpoint"),
      " not as written, the first is ", damaged[0], "; resume takes the newest that is whole"));
}

absl::Status CollectCheckpoints(const CheckpointGcArgs& args) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const RunConfig config, ReadRunConfig(disk, args.run_directory, {}));
  const int64_t keep = args.keep.value_or(config.checkpoint.keep);
  const int64_t keep_every = args.keep_every.value_or(config.checkpoint.keep_every);
  std::unique_ptr<FileLock> lock;
  if (!args.dry_run) {
    absl::StatusOr<std::unique_ptr<FileLock>> held =
        FileLock::Acquire(args.run_directory + "/lock");
    if (absl::IsUnavailable(held.status())) {
      return absl::UnavailableError(
          absl::StrCat(args.run_directory, " is in use: ", held.status().message(),
                       ", the run's trainer, which removes old checkpoints itself"));
    }
    STARLING_RETURN_IF_ERROR(held.status());
    lock = *std::move(held);
  }
  return CollectGarbage(disk, args, static_cast<uint64_t>(keep), static_cast<uint64_t>(keep_every));
}

}  // namespace starling
