// Saves checkpoints one after another until it is killed: `saver_process FOLDER`. Before every call
// that reaches the disk it writes a byte to stdout, so that a parent can kill it anywhere; "S"
// after a save has returned.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <utility>

#include "checkpoint/checkpoint_store.h"
#include "runtime/reactor/posix_disk.h"
#include "tests/checkpoint/checkpoint_testing.h"
#include "tests/testing/forwarding_disk.h"

namespace starling {
namespace {

void Tell(char what) {
  if (write(STDOUT_FILENO, &what, 1) != 1) _exit(3);
}

// A disk that says before every change that it comes.
class TellingDisk : public testing::ForwardingDisk {
 public:
  using ForwardingDisk::ForwardingDisk;

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    Tell('.');
    auto file = ForwardingDisk::Create(path);
    if (!file.ok()) return file;
    return std::unique_ptr<WritableFile>(std::make_unique<File>(*std::move(file)));
  }
  absl::Status MakeDirectories(const std::string& path) override {
    Tell('.');
    return ForwardingDisk::MakeDirectories(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    Tell('.');
    return ForwardingDisk::Rename(from, to);
  }
  absl::Status RemoveTree(const std::string& path) override {
    Tell('.');
    return ForwardingDisk::RemoveTree(path);
  }
  absl::Status SyncDirectory(const std::string& path) override {
    Tell('.');
    return ForwardingDisk::SyncDirectory(path);
  }

 private:
  class File : public testing::ForwardingFile {
   public:
    using ForwardingFile::ForwardingFile;
    absl::Status Append(const void* data, size_t size) override {
      Tell('.');
      return ForwardingFile::Append(data, size);
    }
    absl::Status Sync() override {
      Tell('.');
      return ForwardingFile::Sync();
    }
  };
};

int Main(const char* folder) {
  PosixDisk real;
  TellingDisk disk(&real);
  CheckpointStore store(folder);
  const auto newest = store.Newest(disk);
  // Every other save takes the place of the former one, as a later era's does.
  uint64_t save = newest.ok() ? uint64_t{Value(newest->era)} + 1 : 0;
  for (;; ++save) {
    const CheckpointMeta meta = testing::Meta(save / 2, static_cast<uint32_t>(save));
    const auto parts = testing::Parts(testing::Layouts({1, 1}, 64), save);
    absl::Status status = store.Save(disk, meta, parts);
    if (status.ok()) status = store.Prune(disk, 2);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
    Tell('S');
  }
}

}  // namespace
}  // namespace starling

int main(int argc, char** argv) { return argc == 2 ? starling::Main(argv[1]) : 2; }
