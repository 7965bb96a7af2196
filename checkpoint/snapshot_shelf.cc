#include "checkpoint/snapshot_shelf.h"

#include <algorithm>
#include <utility>

namespace starling {

void SnapshotShelf::Put(Era era, Version version, Blob snapshot, absl::Time now) {
  if (Holds(era, version) || options_.snapshots == 0) return;
  Expire(now);
  if (shelf_.size() >= options_.snapshots) {
    shelf_.erase(std::min_element(shelf_.begin(), shelf_.end(), [](const auto& a, const auto& b) {
      return a.second.asked < b.second.asked;
    }));
  }
  shelf_.emplace(std::make_pair(era, version),
                 Entry{ChunkedBytes({std::move(snapshot)}, options_.chunk_bytes), now});
}

ChunkedBytes* SnapshotShelf::Find(Era era, Version version, absl::Time now) {
  const auto it = shelf_.find({era, version});
  if (it == shelf_.end()) return nullptr;
  it->second.asked = now;
  return &it->second.bytes;
}

void SnapshotShelf::Expire(absl::Time now) {
  for (auto it = shelf_.begin(); it != shelf_.end();) {
    it = now - it->second.asked > options_.keep ? shelf_.erase(it) : std::next(it);
  }
}

uint64_t SnapshotShelf::held_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, entry] : shelf_) bytes += entry.bytes.size_bytes();
  return bytes;
}

}  // namespace starling
