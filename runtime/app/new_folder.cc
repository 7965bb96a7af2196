#include "runtime/app/new_folder.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status FillAndRename(Disk& disk, const std::string& temporary, const std::string& path,
                           const std::function<absl::Status(const std::string&)>& fill) {
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(temporary));
  STARLING_RETURN_IF_ERROR(fill(temporary));
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(temporary));
  // Not over what has come meanwhile, if only an empty folder.
  if (disk.Exists(path)) return CheckNewFolder(disk, path);
  return disk.Rename(temporary, path);
}

}  // namespace

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

absl::Status CheckNewFolder(Disk& disk, const std::string& path) {
  for (const std::string& taken : {path, path + ".tmp"}) {
    if (!disk.Exists(taken)) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        taken, " exists: nothing is overwritten; give a folder that does not exist yet"));
  }
  return absl::OkStatus();
}

absl::Status MakeNewFolder(Disk& disk, const std::string& path,
                           const std::function<absl::Status(const std::string& folder)>& fill) {
  STARLING_RETURN_IF_ERROR(CheckNewFolder(disk, path));
  const std::string temporary = path + ".tmp";
  const absl::Status status = FillAndRename(disk, temporary, path, fill);
  if (!status.ok()) {
    disk.RemoveTree(temporary).IgnoreError();
    return status;
  }
  return disk.SyncDirectory(ParentOf(path));
}

absl::Status WriteNewFile(Disk& disk, const std::string& path, const std::string& bytes) {
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  STARLING_RETURN_IF_ERROR(file->Append(bytes.data(), bytes.size()));
  return file->Sync();
}

}  // namespace starling
