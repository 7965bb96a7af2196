#include "checkpoint/checkpoint_store.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "checkpoint/checkpoint_layout.h"
#include "checkpoint/safetensors.h"
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

Blob Plane(const StagePart& part, const TensorSpec& spec, int64_t plane) {
  return part.state.Slice(plane * part.layout.size + spec.offset, spec.count).Reshaped(spec.shape);
}

absl::Status CheckParts(const std::vector<StagePart>& parts) {
  std::set<std::string> names;
  for (const StagePart& part : parts) {
    if (part.state.dtype() != DType::kF32 ||
        part.state.element_count() != kStatePlanes * part.layout.size) {
      return absl::InvalidArgumentError("a stage's state is not f32 [3 * size]");
    }
    for (const TensorSpec& spec : part.layout.tensors) {
      if (!names.insert(spec.name).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.name, " comes twice"));
      }
    }
  }
  return absl::OkStatus();
}

// Writes one file with planes [begin, end) of a part.
absl::StatusOr<ManifestFile> WritePlanes(Disk& disk, const std::string& folder,
                                         const std::string& name, const StagePart& part,
                                         int64_t begin, int64_t end) {
  std::vector<TensorEntry> entries;
  for (int64_t plane = begin; plane < end; ++plane) {
    for (const TensorSpec& spec : part.layout.tensors) {
      TensorEntry entry;
      entry.name = kPlanePrefix[plane] + spec.name;
      entry.dtype = DType::kF32;
      entry.shape = spec.shape;
      entries.push_back(std::move(entry));
    }
  }
  STARLING_ASSIGN_OR_RETURN(
      auto writer,
      SafetensorsWriter::Create(disk, folder + "/" + name, std::move(entries), {{"format", "pt"}}));
  for (int64_t plane = begin; plane < end; ++plane) {
    for (const TensorSpec& spec : part.layout.tensors) {
      STARLING_RETURN_IF_ERROR(writer->Append(Plane(part, spec, plane)));
    }
  }
  STARLING_ASSIGN_OR_RETURN(const SafetensorsWriter::WrittenFile written, writer->Finish());
  return ManifestFile{name, written.bytes, written.sha256};
}

// Fills `folder` with a complete checkpoint, synced.
absl::Status WriteAll(Disk& disk, const std::string& folder, const CheckpointMeta& meta,
                      const std::vector<StagePart>& parts) {
  Manifest manifest;
  manifest.meta = meta;
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(folder));
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string suffix = absl::StrFormat("-%05d.safetensors", i);
    STARLING_ASSIGN_OR_RETURN(ManifestFile parameters,
                              WritePlanes(disk, folder, "parameters" + suffix, parts[i], 0, 1));
    STARLING_ASSIGN_OR_RETURN(
        ManifestFile optimizer,
        WritePlanes(disk, folder, "optimizer" + suffix, parts[i], 1, kStatePlanes));
    manifest.files.push_back(std::move(parameters));
    manifest.files.push_back(std::move(optimizer));
    for (const TensorSpec& spec : parts[i].layout.tensors) {
      manifest.parameters.push_back({spec.name, spec.shape});
    }
  }
  std::sort(manifest.parameters.begin(), manifest.parameters.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  const std::string text = PrintManifest(manifest);
  STARLING_ASSIGN_OR_RETURN(auto file, disk.Create(folder + "/" + kManifestName));
  STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
  STARLING_RETURN_IF_ERROR(file->Sync());
  return disk.SyncDirectory(folder);
}

absl::Status MakeFolder(Disk& disk, const std::string& folder) {
  if (disk.Exists(folder)) return absl::OkStatus();
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(folder));
  const size_t slash = folder.rfind('/');
  if (slash == std::string::npos) return disk.SyncDirectory(".");
  return disk.SyncDirectory(slash == 0 ? "/" : folder.substr(0, slash));
}

}  // namespace

std::string CheckpointName(Version version) {
  return absl::StrFormat("%s%08d", kStep, Value(version));
}

absl::StatusOr<std::vector<CheckpointInfo>> CheckpointStore::List(Disk& disk) const {
  std::vector<CheckpointInfo> infos;
  if (!disk.Exists(folder_)) return infos;
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> entries, disk.List(folder_));
  for (const std::string& entry : entries) {
    CheckpointInfo info;
    info.name = entry;
    // A crash between the two renames of a replacement leaves the old one under its other name.
    if (StartsWith(entry, kReplaced)) info.name = entry.substr(sizeof(kReplaced) - 1);
    if (!VersionOf(info.name, &info.version)) continue;
    if (info.name != entry && disk.Exists(Path(info.name))) continue;
    info.path = Path(entry);
    if (disk.Exists(info.path + "/" + kManifestName)) infos.push_back(std::move(info));
  }
  std::sort(infos.begin(), infos.end(),
            [](const CheckpointInfo& a, const CheckpointInfo& b) { return a.version < b.version; });
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
  const std::string name = CheckpointName(meta.version);
  const auto failed = [&](const absl::Status& status) {
    return absl::Status(
        status.code(), absl::StrCat("cannot save checkpoint ", Path(name), ": ", status.message()));
  };
  if (auto status = CheckParts(parts); !status.ok()) return failed(status);
  if (auto status = MakeFolder(disk, folder_); !status.ok()) return failed(status);
  if (auto status = ClearLeftovers(disk); !status.ok()) return failed(status);
  if (disk.Exists(Path(name))) {
    const auto there = LoadManifest(disk, {name, Path(name), meta.version});
    if (there.ok() && there->meta.run == meta.run && there->meta.era == meta.era) {
      return absl::OkStatus();
    }
  }
  const std::string temporary = Path(kTemporary + name);
  absl::Status status = WriteAll(disk, temporary, meta, parts);
  if (status.ok()) status = Publish(disk, temporary, name);
  if (status.ok()) return status;
  disk.RemoveTree(temporary).IgnoreError();  // what stays is cleared by the next save
  return failed(status);
}

absl::Status CheckpointStore::Publish(Disk& disk, const std::string& temporary,
                                      const std::string& name) {
  const std::string aside = Path(kReplaced + name);
  const bool replaces = disk.Exists(Path(name));
  if (replaces) STARLING_RETURN_IF_ERROR(disk.Rename(Path(name), aside));
  if (auto status = disk.Rename(temporary, Path(name)); !status.ok()) {
    if (replaces) disk.Rename(aside, Path(name)).IgnoreError();  // List finds it there, too
    return status;
  }
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder_));
  return replaces ? disk.RemoveTree(aside) : absl::OkStatus();
}

absl::Status CheckpointStore::ClearLeftovers(Disk& disk) {
  STARLING_ASSIGN_OR_RETURN(const std::vector<std::string> entries, disk.List(folder_));
  for (const std::string& entry : entries) {
    if (StartsWith(entry, std::string(kTemporary) + kStep)) {
      STARLING_RETURN_IF_ERROR(disk.RemoveTree(Path(entry)));
    }
    if (!StartsWith(entry, std::string(kReplaced) + kStep)) continue;
    const std::string name = entry.substr(sizeof(kReplaced) - 1);
    if (disk.Exists(Path(name))) {
      STARLING_RETURN_IF_ERROR(disk.RemoveTree(Path(entry)));
    } else {
      STARLING_RETURN_IF_ERROR(disk.Rename(Path(entry), Path(name)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointStore::Prune(Disk& disk, uint64_t keep) {
  STARLING_CHECK_GE(keep, uint64_t{1});
  STARLING_ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> infos, List(disk));
  for (size_t i = 0; i + keep < infos.size(); ++i) {
    // Renamed first: a half-removed one must never be listed.
    const std::string doomed = Path(kTemporary + infos[i].name);
    STARLING_RETURN_IF_ERROR(disk.RemoveTree(doomed));
    STARLING_RETURN_IF_ERROR(disk.Rename(infos[i].path, doomed));
    STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder_));
    STARLING_RETURN_IF_ERROR(disk.RemoveTree(doomed));
  }
  return absl::OkStatus();
}

}  // namespace starling
