#include "runtime/trainer/epoch_store.h"

#include <algorithm>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {

absl::StatusOr<Epoch> FileEpochStore::Newest() {
  if (!disk_->Exists(path_)) return Epoch{0};
  STARLING_ASSIGN_OR_RETURN(const std::string text, disk_->Read(path_));
  uint32_t epoch = 0;
  if (!absl::SimpleAtoi(text, &epoch)) {
    return absl::DataLossError(absl::StrCat(path_, " holds no epoch"));
  }
  return Epoch{epoch};
}

absl::Status FileEpochStore::Take(Epoch newest, Epoch next) {
  if (next <= newest) return absl::InvalidArgumentError("an epoch must be above the one before it");
  STARLING_ASSIGN_OR_RETURN(const Epoch now, Newest());
  if (now != newest) {
    return absl::AbortedError(absl::StrCat("another trainer took epoch ", Value(now)));
  }
  const std::string temporary = path_ + ".tmp";
  const std::string text = absl::StrCat(Value(next), "\n");
  {
    STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk_->Create(temporary));
    STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
    STARLING_RETURN_IF_ERROR(file->Sync());
  }
  STARLING_RETURN_IF_ERROR(disk_->Rename(temporary, path_));
  return disk_->SyncDirectory(path_.substr(0, path_.find_last_of('/')));
}

absl::StatusOr<Epoch> TakeNextEpoch(EpochStore* store, Epoch floor) {
  STARLING_ASSIGN_OR_RETURN(const Epoch newest, store->Newest());
  const Epoch next = Next(std::max(newest, floor));
  STARLING_RETURN_IF_ERROR(store->Take(newest, next));
  return next;
}

}  // namespace starling
