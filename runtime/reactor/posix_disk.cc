#include "runtime/reactor/posix_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "runtime/base/status_macros.h"
#include "runtime/reactor/system_error.h"

namespace starling {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr size_t kFlushBytes = size_t{8} << 20;

// Repeats a system call that a signal has interrupted.
template <typename Call>
auto Retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::StatusOr<Descriptor> Open(const std::string& path, int flags, const char* what) {
  const int fd = Retry([&] { return open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (fd < 0) return FileError(std::string("cannot ") + what + " " + path, errno);
  return Descriptor(fd);
}

class PosixWritableFile final : public WritableFile {
 public:
  PosixWritableFile(Descriptor file, std::string path)
      : file_(std::move(file)), path_(std::move(path)) {}

  absl::Status Append(const void* data, size_t size) override {
    const char* next = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = Retry([&] { return write(file_.get(), next, size); });
      if (written < 0) return FileError("cannot write " + path_, errno);
      next += written;
      size -= static_cast<size_t>(written);
      unflushed_ += static_cast<size_t>(written);
    }
    if (unflushed_ >= kFlushBytes) StartFlush();
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    // The size is synced with the data; times and modes need not be.
    if (Retry([&] { return fdatasync(file_.get()); }) == 0) return absl::OkStatus();
    return FileError("cannot sync " + path_, errno);
  }

 private:
  // The disk begins with what has come so far, so that Sync has little to wait for and a large file
  // does not fill memory with bytes to be written. Errors show at Sync.
  void StartFlush() {
    unflushed_ = 0;
#ifdef SYNC_FILE_RANGE_WRITE
    sync_file_range(file_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
  }

  const Descriptor file_;
  const std::string path_;
  size_t unflushed_ = 0;  // bytes
};

class PosixReadableFile final : public ReadableFile {
 public:
  PosixReadableFile(Descriptor file, uint64_t size_bytes, std::string path)
      : file_(std::move(file)), size_bytes_(size_bytes), path_(std::move(path)) {}

  uint64_t size_bytes() const override { return size_bytes_; }

  absl::Status Read(uint64_t offset, void* to, size_t size) override {
    char* next = static_cast<char*>(to);
    Populate(next, size);
    while (size > 0) {
      const ssize_t got =
          Retry([&] { return pread(file_.get(), next, size, static_cast<off_t>(offset)); });
      if (got < 0) return FileError("cannot read " + path_, errno);
      if (got == 0) return absl::DataLossError(path_ + ": has become shorter while it was read");
      next += got;
      offset += static_cast<uint64_t>(got);
      size -= static_cast<size_t>(got);
    }
    return absl::OkStatus();
  }

 private:
  // Fresh memory is had in one call for a piece, and not by a fault for every page of it.
  static void Populate(char* to, size_t size) {
#ifdef MADV_POPULATE_WRITE
    constexpr uintptr_t kPage = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(to) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(to) + size) / kPage * kPage;
    // Where the kernel knows no such advice, the faults come.
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);
#endif
  }

  const Descriptor file_;
  const uint64_t size_bytes_;
  const std::string path_;
};

absl::StatusOr<std::unique_ptr<WritableFile>> OpenToWrite(const std::string& path, int flags) {
  STARLING_ASSIGN_OR_RETURN(Descriptor file, Open(path, O_WRONLY | O_CREAT | flags, "write"));
  return std::unique_ptr<WritableFile>(std::make_unique<PosixWritableFile>(std::move(file), path));
}

}  // namespace

absl::StatusOr<std::string> PosixDisk::Read(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const Descriptor file, Open(path, O_RDONLY, "read"));
  struct stat info = {};
  if (fstat(file.get(), &info) != 0) return FileError("cannot read " + path, errno);
  std::string bytes;
  bytes.reserve(static_cast<size_t>(std::max<off_t>(info.st_size, 0)) + 1);
  size_t used = 0;
  while (true) {
    bytes.resize(std::max(std::min(bytes.capacity(), used + kReadBytes), used + 1));
    const ssize_t got =
        Retry([&] { return read(file.get(), bytes.data() + used, bytes.size() - used); });
    if (got < 0) return FileError("cannot read " + path, errno);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  bytes.resize(used);
  return bytes;
}

absl::StatusOr<Blob> PosixDisk::Map(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const Descriptor file, Open(path, O_RDONLY, "read"));
  struct stat info = {};
  if (fstat(file.get(), &info) != 0) return FileError("cannot read " + path, errno);
  const size_t size = static_cast<size_t>(info.st_size);
  if (!S_ISREG(info.st_mode)) return FileError("cannot map " + path, ENODEV);
  if (size == 0) return Blob();
  void* const bytes = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (bytes == MAP_FAILED) return FileError("cannot map " + path, errno);
  std::shared_ptr<const void> owner(static_cast<const void*>(bytes), [size](const void* mapped) {
    munmap(const_cast<void*>(mapped), size);
  });
  return Blob(std::move(owner), bytes, DType::kU8, {static_cast<int64_t>(size)});
}

absl::StatusOr<std::unique_ptr<ReadableFile>> PosixDisk::OpenToRead(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(Descriptor file, Open(path, O_RDONLY, "read"));
  struct stat info = {};
  if (fstat(file.get(), &info) != 0) return FileError("cannot read " + path, errno);
  if (!S_ISREG(info.st_mode)) return FileError("cannot read " + path, EISDIR);
  posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::unique_ptr<ReadableFile>(std::make_unique<PosixReadableFile>(
      std::move(file), static_cast<uint64_t>(info.st_size), path));
}

absl::StatusOr<std::unique_ptr<WritableFile>> PosixDisk::Create(const std::string& path) {
  return OpenToWrite(path, O_TRUNC);
}

absl::StatusOr<std::unique_ptr<WritableFile>> PosixDisk::OpenForAppend(const std::string& path) {
  return OpenToWrite(path, O_APPEND);
}

absl::StatusOr<uint64_t> PosixDisk::FileSize(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0) return FileError("cannot look at " + path, errno);
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<std::vector<std::string>> PosixDisk::List(const std::string& path) {
  std::error_code error;
  std::filesystem::directory_iterator entry(path, error);
  std::vector<std::string> names;
  while (!error && entry != std::filesystem::directory_iterator()) {
    names.push_back(entry->path().filename().string());
    entry.increment(error);
  }
  if (error) return FileError("cannot list " + path, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

bool PosixDisk::Exists(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0;
}

absl::Status PosixDisk::MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return FileError("cannot make the folder " + path, error.value());
  return absl::OkStatus();
}

absl::Status PosixDisk::Rename(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
  return FileError("cannot rename " + from + " to " + to, errno);
}

absl::Status PosixDisk::RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) == 0) return absl::OkStatus();
  return FileError("cannot remove " + path, errno);
}

absl::Status PosixDisk::RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error && error.value() != ENOENT) return FileError("cannot remove " + path, error.value());
  return absl::OkStatus();
}

absl::Status PosixDisk::SyncDirectory(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const Descriptor folder, Open(path, O_RDONLY | O_DIRECTORY, "sync"));
  if (Retry([&] { return fsync(folder.get()); }) == 0) return absl::OkStatus();
  return FileError("cannot sync " + path, errno);
}

}  // namespace starling
