// A Disk in memory, for tests of code that writes files. It can be full, and can fail at a chosen
// call. Durability is not modelled; the virtual world's disk does that.
#ifndef STARLING_TESTS_TESTING_MEMORY_DISK_H_
#define STARLING_TESTS_TESTING_MEMORY_DISK_H_

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/env/file_system.h"

namespace starling::testing {

class MemoryDisk : public Disk {
 public:
  // --- for the test ---
  uint64_t budget_bytes = std::numeric_limits<uint64_t>::max();  // appends beyond it find it full
  uint64_t calls_until_failure = std::numeric_limits<uint64_t>::max();  // of changing calls
  bool keeps_failing = false;  // else only that one call fails
  uint64_t changing_calls = 0;
  std::string failed_call;                   // the last one that was made to fail, as in `log`
  std::map<std::string, std::string> files;  // path -> bytes
  std::set<std::string> folders = {"", "/"};
  std::vector<std::string> log;  // "create a", "sync a", "rename a b", "sync folder a", ...

  uint64_t used_bytes() const {
    uint64_t total = 0;
    for (const auto& file : files) total += file.second.size();
    return total;
  }

  // --- Disk ---
  absl::StatusOr<std::string> Read(const std::string& path) override {
    const auto found = files.find(path);
    if (found == files.end()) return absl::NotFoundError(path + ": no such file");
    return found->second;
  }

  absl::StatusOr<Blob> Map(const std::string& path) override {
    const auto found = files.find(path);
    if (found == files.end()) return absl::NotFoundError(path + ": no such file");
    return Blob::OfString(found->second);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return Open(path, true);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    return Open(path, false);
  }

  absl::StatusOr<uint64_t> FileSize(const std::string& path) override {
    const auto found = files.find(path);
    if (found == files.end()) return absl::NotFoundError(path + ": no such file");
    return uint64_t{found->second.size()};
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    if (folders.count(path) == 0) return absl::NotFoundError(path + ": no such folder");
    std::set<std::string> names;
    const std::string prefix = Within(path);
    const auto add = [&](const std::string& entry) {
      if (entry.size() <= prefix.size() || entry.compare(0, prefix.size(), prefix) != 0) return;
      names.insert(entry.substr(prefix.size(), entry.find('/', prefix.size()) - prefix.size()));
    };
    for (const auto& file : files) add(file.first);
    for (const std::string& folder : folders) add(folder);
    return std::vector<std::string>(names.begin(), names.end());
  }

  bool Exists(const std::string& path) override {
    return files.count(path) > 0 || folders.count(path) > 0;
  }

  absl::Status MakeDirectories(const std::string& path) override {
    if (auto status = Change("make " + path); !status.ok()) return status;
    for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
      folders.insert(path.substr(0, slash));
      if (slash == std::string::npos) return absl::OkStatus();
    }
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (auto status = Change(absl::StrCat("rename ", from, " ", to)); !status.ok()) return status;
    if (!Exists(from)) return absl::NotFoundError(from + ": no such file or folder");
    if (folders.count(to) > 0 && !List(to)->empty()) {
      return absl::AlreadyExistsError(to + ": folder is not empty");
    }
    folders.erase(to);
    if (const auto file = files.find(from); file != files.end()) {
      std::string bytes = std::move(file->second);
      files.erase(file);
      files[to] = std::move(bytes);
      return absl::OkStatus();
    }
    const std::string prefix = Within(from);
    std::map<std::string, std::string> moved_files;
    for (auto& file : files) {
      moved_files[Moved(file.first, prefix, to)] = std::move(file.second);
    }
    std::set<std::string> moved_folders;
    for (const std::string& folder : folders) {
      moved_folders.insert(folder == from ? to : Moved(folder, prefix, to));
    }
    files = std::move(moved_files);
    folders = std::move(moved_folders);
    return absl::OkStatus();
  }

  absl::Status RemoveFile(const std::string& path) override {
    if (auto status = Change("remove " + path); !status.ok()) return status;
    if (files.erase(path) == 0) return absl::NotFoundError(path + ": no such file");
    return absl::OkStatus();
  }

  absl::Status RemoveTree(const std::string& path) override {
    log.push_back("remove tree " + path);  // frees space, so it works on a full disk too
    files.erase(path);
    folders.erase(path);
    const std::string prefix = Within(path);
    const auto inside = [&](const std::string& entry) {
      return entry.compare(0, prefix.size(), prefix) == 0;
    };
    for (auto it = files.begin(); it != files.end();) {
      it = inside(it->first) ? files.erase(it) : std::next(it);
    }
    for (auto it = folders.begin(); it != folders.end();) {
      it = inside(*it) ? folders.erase(it) : std::next(it);
    }
    return absl::OkStatus();
  }

  absl::Status SyncDirectory(const std::string& path) override {
    if (auto status = Change("sync folder " + path); !status.ok()) return status;
    if (folders.count(path) == 0) return absl::NotFoundError(path + ": no such folder");
    return absl::OkStatus();
  }

 private:
  class File : public WritableFile {
   public:
    File(MemoryDisk* disk, std::string path) : disk_(disk), path_(std::move(path)) {}

    absl::Status Append(const void* data, size_t size) override {
      if (auto status = disk_->Change("append " + path_); !status.ok()) return status;
      if (disk_->used_bytes() + size > disk_->budget_bytes) {
        return absl::ResourceExhaustedError(path_ + ": no space left on device");
      }
      disk_->files[path_].append(static_cast<const char*>(data), size);
      return absl::OkStatus();
    }

    absl::Status Sync() override { return disk_->Change("sync " + path_); }

   private:
    MemoryDisk* disk_;
    const std::string path_;
  };

  static std::string Within(const std::string& folder) {
    return folder.empty() || folder.back() == '/' ? folder : folder + "/";
  }

  static std::string Moved(const std::string& path, const std::string& prefix,
                           const std::string& to) {
    if (path.compare(0, prefix.size(), prefix) != 0) return path;
    return Within(to) + path.substr(prefix.size());
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> Open(const std::string& path, bool truncate) {
    if (auto status = Change("create " + path); !status.ok()) return status;
    const size_t slash = path.rfind('/');
    if (slash != std::string::npos && folders.count(path.substr(0, slash)) == 0) {
      return absl::NotFoundError(path + ": no such folder");
    }
    std::string& bytes = files[path];
    if (truncate) bytes.clear();
    return std::unique_ptr<WritableFile>(std::make_unique<File>(this, path));
  }

  absl::Status Change(const std::string& what) {
    log.push_back(what);
    const uint64_t call = changing_calls++;
    if (call == calls_until_failure || (keeps_failing && call > calls_until_failure)) {
      failed_call = what;
      return absl::InternalError(what + ": input/output error");
    }
    return absl::OkStatus();
  }
};

}  // namespace starling::testing

#endif  // STARLING_TESTS_TESTING_MEMORY_DISK_H_
