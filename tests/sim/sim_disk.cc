#include "tests/sim/sim_disk.h"

#include <algorithm>

#include "runtime/base/status_macros.h"

namespace starling::sim {
namespace {

std::vector<std::string> Parts(const std::string& path) {
  std::vector<std::string> parts;
  std::string part;
  for (char c : path + "/") {
    if (c != '/') {
      part += c;
      continue;
    }
    if (!part.empty() && part != ".") parts.push_back(part);
    part.clear();
  }
  return parts;
}

absl::Status NotFound(const std::string& path) {
  return absl::NotFoundError(path + ": no such file or directory");
}

}  // namespace

// An open file. It holds the file itself, so a rename does not matter to it.
class SimWritableFile : public WritableFile {
 public:
  SimWritableFile(SimDisk* disk, std::shared_ptr<SimDisk::Node> file, std::string path)
      : disk_(disk), file_(std::move(file)), path_(std::move(path)), handle_(disk->handles_) {}

  absl::Status Append(const void* data, size_t size) override {
    STARLING_RETURN_IF_ERROR(Alive());
    STARLING_RETURN_IF_ERROR(disk_->Changing());
    const size_t fits = static_cast<size_t>(std::min<uint64_t>(disk_->RoomAt(path_), size));
    file_->bytes.append(static_cast<const char*>(data), fits);
    if (fits == size) return absl::OkStatus();
    return absl::ResourceExhaustedError(path_ + ": no space left on device");
  }

  absl::Status Sync() override {
    STARLING_RETURN_IF_ERROR(Alive());
    STARLING_RETURN_IF_ERROR(disk_->Changing());
    file_->durable_bytes = file_->bytes;
    return absl::OkStatus();
  }

  void Forget() { file_->bytes = file_->durable_bytes; }

 private:
  absl::Status Alive() const {
    if (handle_ == disk_->handles_) return absl::OkStatus();
    return absl::InternalError(path_ + ": the process that opened it has died");
  }

  SimDisk* const disk_;
  const std::shared_ptr<SimDisk::Node> file_;
  const std::string path_;
  const uint64_t handle_;
};

void SimDisk::Forget(WritableFile* file) { static_cast<SimWritableFile*>(file)->Forget(); }

SimDisk::SimDisk() : root_(std::make_shared<Node>()) { root_->folder = true; }

absl::Status SimDisk::Powered() const {
  return changes_left_ > 0 ? absl::OkStatus() : absl::InternalError("the power is cut");
}

absl::Status SimDisk::Changing() {
  STARLING_RETURN_IF_ERROR(Powered());
  if (changes_left_ != std::numeric_limits<uint64_t>::max()) --changes_left_;
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<SimDisk::Node>> SimDisk::Find(const std::string& path) const {
  STARLING_RETURN_IF_ERROR(Powered());
  std::shared_ptr<Node> node = root_;
  for (const std::string& part : Parts(path)) {
    auto found = node->entries.find(part);
    if (found == node->entries.end()) return NotFound(path);
    node = found->second;
  }
  return node;
}

absl::StatusOr<std::shared_ptr<SimDisk::Node>> SimDisk::FindFile(const std::string& path) const {
  STARLING_ASSIGN_OR_RETURN(std::shared_ptr<Node> node, Find(path));
  if (node->folder) return absl::InternalError(path + ": is a directory");
  return node;
}

absl::StatusOr<std::shared_ptr<SimDisk::Node>> SimDisk::FindParent(const std::string& path,
                                                                   std::string* name) const {
  STARLING_RETURN_IF_ERROR(Powered());
  std::vector<std::string> parts = Parts(path);
  if (parts.empty()) return absl::InternalError("'" + path + "' names no file");
  *name = parts.back();
  parts.pop_back();
  std::shared_ptr<Node> node = root_;
  for (const std::string& part : parts) {
    auto found = node->entries.find(part);
    if (found == node->entries.end()) return NotFound(path);
    node = found->second;
  }
  if (!node->folder) return absl::InternalError(path + ": not a directory");
  return node;
}

absl::StatusOr<std::string> SimDisk::Read(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> file, FindFile(path));
  return file->bytes;
}

absl::StatusOr<Blob> SimDisk::Map(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> file, FindFile(path));
  return Blob::OfString(file->bytes);
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimDisk::Open(const std::string& path,
                                                            bool truncate) {
  std::string name;
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, FindParent(path, &name));
  STARLING_RETURN_IF_ERROR(Changing());
  if (parent->entries.count(name) == 0) Apply({"", name, std::make_shared<Node>()}, parent.get());
  const std::shared_ptr<Node> file = parent->entries[name];
  if (file->folder) return absl::InternalError(path + ": is a directory");
  if (truncate) file->bytes.clear();
  return std::unique_ptr<WritableFile>(new SimWritableFile(this, file, path));
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimDisk::Create(const std::string& path) {
  return Open(path, /*truncate=*/true);
}

absl::StatusOr<std::unique_ptr<WritableFile>> SimDisk::OpenForAppend(const std::string& path) {
  return Open(path, /*truncate=*/false);
}

absl::StatusOr<uint64_t> SimDisk::FileSize(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> file, FindFile(path));
  return static_cast<uint64_t>(file->bytes.size());
}

absl::StatusOr<std::vector<std::string>> SimDisk::List(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> folder, Find(path));
  if (!folder->folder) return absl::InternalError(path + ": not a directory");
  std::vector<std::string> names;
  for (const auto& entry : folder->entries) names.push_back(entry.first);
  return names;
}

bool SimDisk::Exists(const std::string& path) { return Find(path).ok(); }

absl::Status SimDisk::MakeDirectories(const std::string& path) {
  STARLING_RETURN_IF_ERROR(Changing());
  std::shared_ptr<Node> node = root_;
  for (const std::string& part : Parts(path)) {
    if (node->entries.count(part) == 0) {
      auto made = std::make_shared<Node>();
      made->folder = true;
      Apply({"", part, std::move(made)}, node.get());
    }
    const std::shared_ptr<Node> next = node->entries[part];
    if (!next->folder) return absl::InternalError(path + ": not a directory");
    node = next;
  }
  return absl::OkStatus();
}

absl::Status SimDisk::Rename(const std::string& from, const std::string& to) {
  std::string from_name, to_name;
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> from_parent, FindParent(from, &from_name));
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> to_parent, FindParent(to, &to_name));
  auto source = from_parent->entries.find(from_name);
  if (source == from_parent->entries.end()) return NotFound(from);
  const std::shared_ptr<Node> node = source->second;
  auto target = to_parent->entries.find(to_name);
  if (target != to_parent->entries.end() && target->second != node) {
    const Node& there = *target->second;
    if (there.folder != node->folder) return absl::InternalError(to + ": of another kind");
    if (there.folder && !there.entries.empty()) {
      return absl::AlreadyExistsError(to + ": directory not empty");
    }
  }
  STARLING_RETURN_IF_ERROR(Changing());
  if (from_parent == to_parent) {
    Apply({from_name, to_name, node}, from_parent.get());
  } else {
    Apply({from_name, "", nullptr}, from_parent.get());
    Apply({"", to_name, node}, to_parent.get());
  }
  return absl::OkStatus();
}

absl::Status SimDisk::RemoveFile(const std::string& path) {
  std::string name;
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, FindParent(path, &name));
  STARLING_RETURN_IF_ERROR(FindFile(path).status());
  return RemoveFrom(parent.get(), name);
}

// A tree goes leaf by leaf, as it does on a real disk.
absl::Status SimDisk::RemoveFrom(Node* folder, const std::string& name) {
  const std::shared_ptr<Node> node = folder->entries.at(name);
  while (!node->entries.empty()) {
    STARLING_RETURN_IF_ERROR(RemoveFrom(node.get(), node->entries.begin()->first));
  }
  STARLING_RETURN_IF_ERROR(Changing());
  Apply({name, "", nullptr}, folder);
  return absl::OkStatus();
}

absl::Status SimDisk::RemoveTree(const std::string& path) {
  std::string name;
  absl::StatusOr<std::shared_ptr<Node>> parent = FindParent(path, &name);
  if (absl::IsNotFound(parent.status())) return absl::OkStatus();
  STARLING_RETURN_IF_ERROR(parent.status());
  if ((*parent)->entries.count(name) == 0) return absl::OkStatus();
  return RemoveFrom(parent->get(), name);
}

absl::Status SimDisk::SyncDirectory(const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::shared_ptr<Node> folder, Find(path));
  if (!folder->folder) return absl::InternalError(path + ": not a directory");
  STARLING_RETURN_IF_ERROR(Changing());
  folder->durable_entries = folder->entries;
  folder->unsynced.clear();
  return absl::OkStatus();
}

uint64_t SimDisk::UsedBy(const Node& node) {
  uint64_t bytes = node.bytes.size();
  for (const auto& entry : node.entries) bytes += UsedBy(*entry.second);
  return bytes;
}

std::shared_ptr<SimDisk::Node> SimDisk::AfterCrash(const Node& node, Rng* torn) {
  auto kept = std::make_shared<Node>();
  kept->folder = node.folder;
  kept->durable_bytes = node.durable_bytes;
  const size_t synced = node.durable_bytes.size();
  if (torn != nullptr && node.bytes.size() > synced &&
      node.bytes.compare(0, synced, node.durable_bytes) == 0) {
    kept->durable_bytes.append(node.bytes, synced, torn->Below(node.bytes.size() - synced + 1));
  }
  kept->bytes = kept->durable_bytes;
  for (const auto& [name, child] : node.durable_entries) {
    kept->durable_entries[name] = AfterCrash(*child, torn);
  }
  kept->entries = kept->durable_entries;
  return kept;
}

uint64_t SimDisk::RoomAt(const std::string& path) const {
  const bool limited = budget_bytes_ != std::numeric_limits<uint64_t>::max() &&
                       path.compare(0, budget_folder_.size(), budget_folder_) == 0;
  if (!limited) return std::numeric_limits<uint64_t>::max();
  const uint64_t used = used_bytes();
  return budget_bytes_ > used ? budget_bytes_ - used : 0;
}

std::unique_ptr<SimDisk> SimDisk::AsAfterPowerCut() const {
  auto copy = std::make_unique<SimDisk>();
  copy->root_ = AfterCrash(*root_, nullptr);
  return copy;
}

void SimDisk::Crash(Rng* torn) {
  root_ = AfterCrash(*root_, torn);
  changes_left_ = std::numeric_limits<uint64_t>::max();
  CloseHandles();
}

void SimDisk::Revive() {
  changes_left_ = std::numeric_limits<uint64_t>::max();
  CloseHandles();
}

void SimDisk::Apply(Change change, Node* folder) {
  if (!change.from.empty()) folder->entries.erase(change.from);
  if (!change.to.empty()) folder->entries[change.to] = change.node;
  folder->unsynced.push_back(std::move(change));
}

std::shared_ptr<SimDisk::Node> SimDisk::Outcome(const Node& node, const Choose& choose) {
  auto kept = std::make_shared<Node>();
  kept->folder = node.folder;
  kept->durable_bytes = node.durable_bytes;
  if (node.bytes != node.durable_bytes) {
    const bool grew = node.bytes.compare(0, node.durable_bytes.size(), node.durable_bytes) == 0;
    const size_t synced = grew ? node.durable_bytes.size() : 0;
    const size_t fresh = node.bytes.size() - synced;
    const uint64_t choice = choose(4);
    if (choice == 1) kept->durable_bytes = node.bytes.substr(0, synced + fresh / 2);
    if (choice == 2) kept->durable_bytes = node.bytes.substr(0, synced) + std::string(fresh, '\0');
    if (choice == 3) kept->durable_bytes = node.bytes;
  }
  kept->bytes = kept->durable_bytes;
  Entries entries = node.durable_entries;
  for (const Change& change : node.unsynced) {
    if (choose(2) == 0) continue;
    if (!change.from.empty()) entries.erase(change.from);
    if (!change.to.empty()) entries[change.to] = change.node;
  }
  for (const auto& [name, child] : entries) kept->durable_entries[name] = Outcome(*child, choose);
  kept->entries = kept->durable_entries;
  return kept;
}

std::unique_ptr<SimDisk> SimDisk::CrashedCopy(const Choose& choose) const {
  auto copy = std::make_unique<SimDisk>();
  copy->root_ = Outcome(*root_, choose);
  copy->budget_bytes_ = budget_bytes_;
  return copy;
}

void SimDisk::Describe(const Node& node, const std::string& path, std::string* out) {
  *out += path + (node.folder ? "/\n" : "=" + std::to_string(node.bytes.size()) + ":" + node.bytes);
  for (const auto& [name, child] : node.entries) Describe(*child, path + "/" + name, out);
}

std::string SimDisk::Contents() const {
  std::string out;
  Describe(*root_, "", &out);
  return out;
}

SimFiles::SimFiles(Scheduler* scheduler, NodeId node, Disk* disk, absl::Duration max_delay,
                   uint64_t seed)
    : scheduler_(scheduler), node_(node), disk_(disk), max_delay_(max_delay), rng_(seed) {}

void SimFiles::Run(std::function<absl::Status(Disk&)> job, std::function<void(absl::Status)> done) {
  if (stopped_) return;
  jobs_.push_back(Job{std::move(job), std::move(done)});
  if (jobs_.size() == 1) StartNext();
}

void SimFiles::StartNext() {
  scheduler_->After(max_delay_ * rng_.Unit(), node_, EventKind::kCompletion, "file job", [this] {
    Job job = std::move(jobs_.front());
    const absl::Status status = job.job(*disk_);
    scheduler_->After(absl::ZeroDuration(), node_, EventKind::kCompletion, "file done",
                      [done = std::move(job.done), status] { done(status); });
    jobs_.pop_front();
    if (!jobs_.empty()) StartNext();
  });
}

}  // namespace starling::sim
