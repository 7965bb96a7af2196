// SharedDisk: how one process sees a SimDisk that several machines share, as a network file system.
//
// When its process dies, what it has written and not synced is lost; the disk and everyone else's
// files stay. It can be made to die in the middle of a job of files, after so many changes.
#ifndef STARLING_TESTS_SIM_SHARED_DISK_H_
#define STARLING_TESTS_SIM_SHARED_DISK_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "tests/sim/sim_disk.h"
#include "tests/testing/forwarding_disk.h"

namespace starling::sim {

class SharedDisk : public testing::ForwardingDisk {
 public:
  explicit SharedDisk(SimDisk* disk) : ForwardingDisk(disk) {}

  // After `changes` more changes nothing of it works any more, and `died` is called.
  void DieAfter(uint64_t changes, std::function<void()> died);
  bool dead() const { return changes_left_ == 0; }
  // It is not the disk that the others share, though the same folders are there: every folder that
  // is looked for exists.
  void HasEveryFolder() { has_every_folder_ = true; }

  bool Exists(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override;
  absl::Status MakeDirectories(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status RemoveFile(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

 private:
  friend class SharedFile;
  absl::Status Change();  // counts one; internal once it is dead

  uint64_t changes_left_ = std::numeric_limits<uint64_t>::max();
  std::function<void()> died_;
  bool has_every_folder_ = false;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SHARED_DISK_H_
