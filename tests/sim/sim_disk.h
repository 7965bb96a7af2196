// SimDisk: a disk in memory that forgets what was not synced, and SimFiles: jobs on it in virtual
// time.
//
// A file's bytes survive a crash as they were at its last Sync; a name, a rename or a removal only
// after SyncDirectory of its folder. A disk belongs to a machine, not to a process: it survives
// restarts. Faults: a byte budget (disk full, with what still fits written), a power cut after so
// many more changes (everything fails from then on, until Crash), torn tails.
//
// Crash forgets as much as it may. CrashedCopy gives any of the disks that a crash may leave: of
// the changes to a folder since its SyncDirectory (a new name, a removal, a rename within it, each
// whole or not at all) any subset, and of a file's unsynced bytes none, all, a part, or zeros.
//
// Files of a process that has died are dead: what it still writes through an old handle is lost.
#ifndef STARLING_TESTS_SIM_SIM_DISK_H_
#define STARLING_TESTS_SIM_SIM_DISK_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/rng.h"
#include "runtime/env/file_system.h"
#include "tests/sim/scheduler.h"

namespace starling::sim {

class SimDisk : public Disk {
 public:
  SimDisk();

  absl::StatusOr<std::string> Read(const std::string& path) override;
  absl::StatusOr<Blob> Map(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override;
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  bool Exists(const std::string& path) override;
  absl::Status MakeDirectories(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status RemoveFile(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;

  // Forgets what was not synced. With `torn`, a file that grew keeps a drawn part of what was
  // appended since its Sync.
  void Crash(Rng* torn = nullptr);
  // A process died, the machine did not: everything written stays, handles die.
  void CloseHandles() { ++handles_; }
  // What would be left if the power failed now.
  std::unique_ptr<SimDisk> AsAfterPowerCut() const;
  // Bytes of all files together; more is resource exhausted. With a folder ("run/checkpoints") only
  // what is written there is refused.
  void SetBudget(uint64_t bytes, std::string folder = "") {
    budget_bytes_ = bytes;
    budget_folder_ = std::move(folder);
  }
  void LiftBudget() { budget_bytes_ = std::numeric_limits<uint64_t>::max(); }
  // Of one of its open files, what was written since its Sync: as when one of several machines that
  // share the disk dies.
  static void Forget(WritableFile* file);
  // The process that met CutPowerAfter was killed there instead: nothing is forgotten.
  void Revive();
  // The disk as a crash now may leave it. `choose(n)` draws each choice from [0, n): 0 forgets the
  // change, the last one keeps it.
  using Choose = std::function<uint64_t(uint64_t options)>;
  std::unique_ptr<SimDisk> CrashedCopy(const Choose& choose) const;
  // Every path and what it holds, as text: equal disks have equal texts.
  std::string Contents() const;
  // After `changes` more changes every call fails with internal, until Crash.
  void CutPowerAfter(uint64_t changes) { changes_left_ = changes; }
  bool power_is_cut() const { return changes_left_ == 0; }
  bool powered() const { return Powered().ok(); }
  uint64_t used_bytes() const { return UsedBy(*root_); }

 private:
  friend class SimWritableFile;
  struct Node;
  using Entries = std::map<std::string, std::shared_ptr<Node>>;
  // What happened to a folder: `from` vanished, `to` became `node`; either name may be empty.
  struct Change {
    std::string from;
    std::string to;
    std::shared_ptr<Node> node;
  };
  struct Node {
    bool folder = false;
    std::string bytes;
    std::string durable_bytes;
    Entries entries;
    Entries durable_entries;
    std::vector<Change> unsynced;  // of a folder, in order
  };

  absl::StatusOr<std::shared_ptr<Node>> Find(const std::string& path) const;
  absl::StatusOr<std::shared_ptr<Node>> FindFile(const std::string& path) const;
  // The folder `path` lies in; `name` becomes the last part.
  absl::StatusOr<std::shared_ptr<Node>> FindParent(const std::string& path,
                                                   std::string* name) const;
  absl::StatusOr<std::unique_ptr<WritableFile>> Open(const std::string& path, bool truncate);
  absl::Status Changing();  // counts a change; internal when the power is cut
  absl::Status Powered() const;
  uint64_t RoomAt(const std::string& path) const;
  static uint64_t UsedBy(const Node& node);
  static std::shared_ptr<Node> AfterCrash(const Node& node, Rng* torn);
  static std::shared_ptr<Node> Outcome(const Node& node, const Choose& choose);
  static void Describe(const Node& node, const std::string& path, std::string* out);
  static void Apply(Change change, Node* folder);
  absl::Status RemoveFrom(Node* folder, const std::string& name);

  std::shared_ptr<Node> root_;
  uint64_t budget_bytes_ = std::numeric_limits<uint64_t>::max();
  std::string budget_folder_;
  uint64_t changes_left_ = std::numeric_limits<uint64_t>::max();
  uint64_t handles_ = 0;  // generation: handles of an earlier one are dead
};

// Jobs of one life of a process, one after another, each after a drawn delay; a crash drops them.
class SimFiles : public Files {
 public:
  // All outlive it. Each job takes a draw from [0, max_delay).
  SimFiles(Scheduler* scheduler, NodeId node, Disk* disk, absl::Duration max_delay, uint64_t seed);

  void Run(std::function<absl::Status(Disk&)> job, std::function<void(absl::Status)> done) override;
  void Stop() { stopped_ = true; }

 private:
  struct Job {
    std::function<absl::Status(Disk&)> job;
    std::function<void(absl::Status)> done;
  };
  void StartNext();

  Scheduler* const scheduler_;
  const NodeId node_;
  Disk* const disk_;
  const absl::Duration max_delay_;
  Rng rng_;
  std::deque<Job> jobs_;  // the front one runs
  bool stopped_ = false;
};

}  // namespace starling::sim

#endif  // STARLING_TESTS_SIM_SIM_DISK_H_
