// EpochStore: whose reign it is. A trainer takes a new epoch, greater than any before, by
// compare-and-set before it says anything to anyone; of two that try at the same time one gets it.
//
// One decision maker is enough for that: the lock of the run directory keeps others out, and
// FileEpochStore writes the number down there. Take-over by another machine needs an arbiter that
// both can reach, as another EpochStore.
//
// Blocking: called before the trainer starts, off any reactor thread.
#ifndef STARLING_RUNTIME_TRAINER_EPOCH_STORE_H_
#define STARLING_RUNTIME_TRAINER_EPOCH_STORE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/env/file_system.h"

namespace starling {

class EpochStore {
 public:
  virtual ~EpochStore() = default;

  // The newest epoch that anyone took; 0: none yet.
  //   data loss: it cannot be told.
  virtual absl::StatusOr<Epoch> Newest() = 0;

  // Takes `next`, if `newest` still is the newest; afterwards it survives everything.
  //   aborted: somebody took another one meanwhile; this trainer must not go on.
  //   invalid argument: `next` is not above `newest`.
  virtual absl::Status Take(Epoch newest, Epoch next) = 0;
};

// A file with the number in it, replaced as a whole. Whoever calls Take holds the run directory's
// lock: nothing else keeps two from reading the same number.
class FileEpochStore : public EpochStore {
 public:
  // `disk` outlives it.
  FileEpochStore(Disk* disk, std::string path) : disk_(disk), path_(std::move(path)) {}

  absl::StatusOr<Epoch> Newest() override;
  absl::Status Take(Epoch newest, Epoch next) override;

 private:
  Disk* const disk_;
  const std::string path_;
};

// Takes the first epoch above `floor` and the newest one taken. `floor` is what the decision log
// says, for directories in which no epoch was written down.
absl::StatusOr<Epoch> TakeNextEpoch(EpochStore* store, Epoch floor);

}  // namespace starling

#endif  // STARLING_RUNTIME_TRAINER_EPOCH_STORE_H_
