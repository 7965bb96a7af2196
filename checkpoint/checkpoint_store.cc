#include "checkpoint/checkpoint_store.h"

#include <algorithm>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/checkpoint_layout.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr char kTemporary[] = "tmp-";      // torn saves and removals
constexpr char kReplaced[] = "replaced-";  // put aside while a newer era's takes the name
constexpr char kStep[] = "step-";

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// The version of "step-00000050"; false for any other name.
bool VersionOf(const std::string& name, Version* version) {
  if (!StartsWith(name, kStep)) return false;
  const std::string digits = name.substr(sizeof(kStep) - 1);
  uint64_t number = 0;
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos ||
      !absl::SimpleAtoi(digits, &number)) {
    return false;
  }
  *version = static_cast<Version>(number);
  return CheckpointName(*version) == name;
}

absl::Status CannotSave(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat("cannot save checkpoint ", path, ": ", status.message()));
}

// A checkpoint of the shards: their parameters in order, none twice.
absl::StatusOr<Manifest> ManifestOf(const CheckpointMeta& meta, const std::vector<Shard>& shards) {
  Manifest manifest;
  manifest.meta = meta;
  std::set<std::string> taken;
  for (const Shard& shard : shards) {
    for (const ManifestFile& file : shard.files) {
      if (!taken.insert("file " + file.name).second) {
        return absl::InvalidArgumentError(absl::StrCat("file ", file.name, " comes twice"));
      }
      manifest.files.push_back(file);
    }
    for (const ManifestParameter& parameter : shard.parameters) {
      if (!taken.insert("tensor " + parameter.name).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", parameter.name, " comes twice"));
      }
      manifest.parameters.push_back(parameter);
    }
  }
  std::sort(manifest.parameters.begin(), manifest.parameters.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return manifest;
}

// Makes `folder`, which holds all shards, a complete checkpoint, synced.
absl::Status WriteManifest(Disk& disk, const std::string& folder, const Manifest& manifest) {
  STARLING_RETURN_IF_ERROR(CheckFiles(disk, folder, manifest.files));
  const std::string text = PrintManifest(manifest);
  STARLING_ASSIGN_OR_RETURN(auto file, disk.Create(folder + "/" + kManifestName));
  STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
  STARLING_RETURN_IF_ERROR(file->Sync());
  return disk.SyncDirectory(folder);
}

}  // namespace

std::string CheckpointName(Version version) {
  return absl::StrFormat("%s%08d", kStep, Value(version));
}

bool IsStagingPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash != std::string::npos &&
         StartsWith(path.substr(slash + 1), std::string(kTemporary) + kStep);
}

CheckpointInfo CheckpointStore::At(Era era, Version version) const {
  CheckpointInfo info;
  info.name = CheckpointName(version);
  info.path = Path(info.name);
  info.version = version;
  info.era = era;
  return info;
}

absl::StatusOr<std::vector<CheckpointInfo>> CheckpointStore::List(Disk& disk) const {
  std::vector<CheckpointInfo> infos;
  if (!disk.Exists(folder_)) return infos;
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> entries, disk.List(folder_));
  Era latest{0};
  for (const std::string& entry : entries) {
    CheckpointInfo info;
    info.name = entry;
    // A crash between the two renames of a replacement leaves the old one under its other name.
    if (StartsWith(entry, kReplaced)) info.name = entry.substr(sizeof(kReplaced) - 1);
    if (!VersionOf(info.name, &info.version)) continue;
    if (info.name != entry && disk.Exists(Path(info.name))) continue;
    info.path = Path(entry);
    if (!disk.Exists(info.path + "/" + kManifestName)) continue;
    const absl::StatusOr<Manifest> manifest = LoadManifest(disk, info);
    if (manifest.ok()) {
      info.era = manifest->meta.era;
      latest = std::max(latest, info.era);
    } else {
      info.problem = std::string(manifest.status().message());
    }
    infos.push_back(std::move(info));
  }
  for (CheckpointInfo& info : infos) {
    if (!info.problem.empty()) info.era = latest;
  }
  std::sort(infos.begin(), infos.end(), [](const CheckpointInfo& a, const CheckpointInfo& b) {
    return std::tie(a.era, a.version) < std::tie(b.era, b.version);
  });
  return infos;
}

absl::StatusOr<CheckpointInfo> CheckpointStore::Newest(Disk& disk) const {
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> infos, List(disk));
  if (infos.empty()) {
    return absl::NotFoundError(absl::StrCat("there is no complete checkpoint in ", folder_));
  }
  return infos.back();
}

absl::Status CheckpointStore::Save(Disk& disk, const CheckpointMeta& meta,
                                   const std::vector<StagePart>& parts) {
  STARLING_ASSIGN_OR_RETURN(const Staging staging, Begin(disk, meta));
  if (staging.already_published) return absl::OkStatus();
  std::vector<Shard> shards;
  for (const StagePart& part : parts) {
    absl::StatusOr<Shard> shard =
        WriteShard(disk, staging.path, static_cast<uint32_t>(shards.size()), part);
    if (!shard.ok()) {
      Abandon(disk, staging);
      return CannotSave(Path(CheckpointName(meta.version)), shard.status());
    }
    shards.push_back(*std::move(shard));
  }
  return Publish(disk, staging, shards);
}

absl::StatusOr<Staging> CheckpointStore::Begin(Disk& disk, const CheckpointMeta& meta,
                                               const std::string& attempt) {
  const CheckpointInfo info = At(meta.era, meta.version);
  Staging staging{meta, Path(kTemporary + info.name), false};
  if (!attempt.empty()) absl::StrAppend(&staging.path, ".", attempt);
  const auto begin = [&]() -> absl::Status {
    STARLING_RETURN_IF_ERROR(disk.MakeDirectories(folder_));
    STARLING_RETURN_IF_ERROR(SyncWhereItStands(disk));
    if (absl::Status cleared = ClearLeftovers(disk); attempt.empty() && !cleared.ok()) {
      return cleared;
    }
    if (CheckComplete(disk, info).ok()) {
      const auto there = LoadManifest(disk, info);
      staging.already_published =
          there.ok() && there->meta.run == meta.run && there->meta.era == meta.era;
    }
    // A process killed before its last sync may have published it.
    if (staging.already_published) return disk.SyncDirectory(folder_);
    return disk.MakeDirectories(staging.path);
  };
  if (absl::Status status = begin(); !status.ok()) return CannotSave(info.path, status);
  return staging;
}

absl::Status CheckpointStore::Publish(Disk& disk, const Staging& staging,
                                      const std::vector<Shard>& shards) {
  const std::string name = CheckpointName(staging.meta.version);
  const auto publish = [&]() -> absl::Status {
    STARLING_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(staging.meta, shards));
    STARLING_RETURN_IF_ERROR(WriteManifest(disk, staging.path, manifest));
    return TakeTheName(disk, staging.path, name);
  };
  const absl::Status status = publish();
  if (status.ok()) return status;
  Abandon(disk, staging);
  return CannotSave(Path(name), status);
}

void CheckpointStore::Abandon(Disk& disk, const Staging& staging) {
  disk.RemoveTree(staging.path).IgnoreError();
}

// Names are synced before what the disk may still hold under them is removed: else a crash could
// bring the name back and not the files.
absl::Status CheckpointStore::TakeTheName(Disk& disk, const std::string& temporary,
                                          const std::string& name) {
  const std::string aside = Path(kReplaced + name);
  const bool replaces = disk.Exists(Path(name));
  if (replaces) {
    STARLING_RETURN_IF_ERROR(disk.Rename(Path(name), aside));
    STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder_));
  }
  if (auto status = disk.Rename(temporary, Path(name)); !status.ok()) {
    if (replaces) disk.Rename(aside, Path(name)).IgnoreError();  // List finds it there, too
    return status;
  }
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder_));
  return replaces ? disk.RemoveTree(aside) : absl::OkStatus();
}

// The names of the folder and of all above it. Those above the run's directory need not be open to
// this user.
absl::Status CheckpointStore::SyncWhereItStands(Disk& disk) const {
  std::string above = ParentOf(folder_);
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(above));
  while (above != "/" && above != ".") {
    above = ParentOf(above);
    disk.SyncDirectory(above).IgnoreError();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> CheckpointStore::Leftovers(Disk& disk) const {
  std::vector<std::string> leftovers;
  if (!disk.Exists(folder_)) return leftovers;
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> entries, disk.List(folder_));
  for (const std::string& entry : entries) {
    if (StartsWith(entry, std::string(kTemporary) + kStep) ||
        StartsWith(entry, std::string(kReplaced) + kStep)) {
      leftovers.push_back(entry);
    }
  }
  return leftovers;
}

absl::Status CheckpointStore::ClearLeftovers(Disk& disk) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> leftovers, Leftovers(disk));
  // The process that left them may have been killed between a rename and its sync.
  if (!leftovers.empty()) STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder_));
  for (const std::string& entry : leftovers) {
    const std::string name =
        StartsWith(entry, kReplaced) ? entry.substr(sizeof(kReplaced) - 1) : "";
    if (name.empty() || disk.Exists(Path(name))) {
      STARLING_RETURN_IF_ERROR(disk.RemoveTree(Path(entry)));
    } else {
      STARLING_RETURN_IF_ERROR(disk.Rename(Path(entry), Path(name)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CheckpointInfo>> CheckpointStore::Doomed(Disk& disk, uint64_t keep,
                                                                    uint64_t keep_every) const {
  STARLING_CHECK_GE(keep, uint64_t{1});
  STARLING_ASSIGN_OR_RETURN(std::vector<CheckpointInfo> infos, List(disk));
  infos.erase(std::remove_if(infos.begin(), infos.end(),
                             [&](const auto& info) { return !CheckComplete(disk, info).ok(); }),
              infos.end());
  if (infos.size() <= keep) return std::vector<CheckpointInfo>();
  infos.resize(infos.size() - static_cast<size_t>(keep));
  if (keep_every == 0) return infos;
  infos.erase(std::remove_if(infos.begin(), infos.end(),
                             [&](const auto& info) {
                               const uint64_t version = Value(info.version);
                               return version > 0 && version % keep_every == 0;
                             }),
              infos.end());
  return infos;
}

absl::Status CheckpointStore::Prune(Disk& disk, uint64_t keep, uint64_t keep_every) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> doomed,
                            Doomed(disk, keep, keep_every));
  if (!doomed.empty()) STARLING_RETURN_IF_ERROR(ClearLeftovers(disk));
  for (const CheckpointInfo& info : doomed) STARLING_RETURN_IF_ERROR(Remove(disk, info));
  return absl::OkStatus();
}

// Renamed first: a half-removed one must never be listed.
absl::Status CheckpointStore::Remove(Disk& disk, const CheckpointInfo& info) {
  const std::string doomed = Path(kTemporary + info.name);
  // ClearLeftovers may have given it its name back.
  const std::string path = disk.Exists(info.path) ? info.path : Path(info.name);
  STARLING_RETURN_IF_ERROR(disk.Rename(path, doomed));
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder_));
  return disk.RemoveTree(doomed);
}

absl::Status CheckFiles(Disk& disk, const std::string& folder,
                        const std::vector<ManifestFile>& files) {
  for (const ManifestFile& file : files) {
    const absl::StatusOr<uint64_t> bytes = disk.FileSize(folder + "/" + file.name);
    if (!bytes.ok()) return absl::DataLossError(bytes.status().message());
    if (*bytes != file.bytes) {
      return absl::DataLossError(
          absl::StrCat(file.name, ": ", *bytes, " bytes, should be ", file.bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckComplete(Disk& disk, const CheckpointInfo& info) {
  STARLING_ASSIGN_OR_RETURN(const Manifest manifest, LoadManifest(disk, info));
  if (auto status = CheckFiles(disk, info.path, manifest.files); !status.ok()) {
    return InCheckpoint(info, status);
  }
  return absl::OkStatus();
}

}  // namespace starling
