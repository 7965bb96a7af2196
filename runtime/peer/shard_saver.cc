#include "runtime/peer/shard_saver.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_store.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

// Nothing heard of a save for so long: the trainer has forgotten it.
constexpr absl::Duration kForget = absl::Minutes(2);

ShardSaved Refusal(const absl::Status& status) {
  return ShardSaved{status.code(), std::string(status.message()), {}};
}

absl::StatusOr<Shard> WriteState(Disk& disk, const SaveShard& order, const StagePart& part,
                                 const std::string& writer) {
  if (!IsStagingPath(order.folder)) {
    return absl::InvalidArgumentError(
        absl::StrCat(order.folder, " is not the folder of a checkpoint that is being written"));
  }
  if (!disk.Exists(order.folder)) {
    return absl::NotFoundError(
        absl::StrCat(order.folder,
                     " does not exist here; with checkpoint.store = \"shared\" every "
                     "replica must see the run's directory under the same path"));
  }
  if (HashBytes(part.state.data(), part.state.size_bytes()) != order.state.hash) {
    return absl::DataLossError("the snapshot is not the state that this replica is known to hold");
  }
  return WriteShard(disk, order.folder, Value(order.stage), part, writer);
}

}  // namespace

ShardSaver::ShardSaver(StageId stage, StageLayout layout, Env* env, Files* files, StateDonor* donor,
                       PeerLinks* links)
    : stage_(stage),
      layout_(std::move(layout)),
      env_(env),
      files_(files),
      donor_(donor),
      links_(links) {}

void ShardSaver::OnSaveShard(const SaveShard& order, uint64_t request) {
  if (files_ == nullptr) {
    return Answer(request, Refusal(absl::FailedPreconditionError("it writes no checkpoints")));
  }
  if (order.stage != stage_) {
    return Answer(request, Refusal(absl::AbortedError("it serves another stage")));
  }
  const bool known = save_ && save_->number == order.save;
  if (known) save_->heard = env_->Now();
  switch (order.order) {
    case ShardOrder::kHold:
      return Hold(order, request);
    case ShardOrder::kWrite:
      return Write(order, request);
    case ShardOrder::kRelease:
      if (known) save_.reset();
      return;
  }
}

void ShardSaver::Hold(const SaveShard& order, uint64_t request) {
  if (save_ && save_->number == order.save) {
    save_->hold_request = request;
    if (save_->held) Answer(request, *save_->held);
    return;
  }
  save_.emplace();
  save_->number = order.save;
  save_->state = order.state;
  save_->hold_request = request;
  save_->heard = env_->Now();
  donor_->Give(order.state.era, order.state.version,
               [this, number = order.save,
                alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Blob> snapshot) {
                 if (!alive.expired()) OnSnapshot(number, std::move(snapshot));
               });
}

void ShardSaver::OnSnapshot(uint64_t number, absl::StatusOr<Blob> snapshot) {
  if (!save_ || save_->number != number) return;
  save_->held = snapshot.ok() ? ShardSaved() : Refusal(snapshot.status());
  if (snapshot.ok()) save_->snapshot = *std::move(snapshot);
  Answer(save_->hold_request, *save_->held);
}

void ShardSaver::Write(const SaveShard& order, uint64_t request) {
  const bool known = save_ && save_->number == order.save && save_->state == order.state;
  if (known && (save_->writing || save_->written)) {
    save_->write_request = request;
    if (save_->written) Answer(request, *save_->written);
    return;
  }
  if (!known || !save_->snapshot) {
    return Answer(request, Refusal(absl::AbortedError("it holds no snapshot for this save")));
  }
  save_->writing = true;
  save_->write_request = request;
  const std::string writer =
      absl::StrCat("w", Value(links_->self().epoch), "x", links_->self().counter);
  auto shard = std::make_shared<Shard>();
  files_->Run(
      [order, writer, shard, part = StagePart{layout_, *save_->snapshot}](Disk& disk) {
        STARLING_ASSIGN_OR_RETURN(*shard, WriteState(disk, order, part, writer));
        return absl::OkStatus();
      },
      [this, number = order.save, shard,
       alive = std::weak_ptr<bool>(alive_)](const absl::Status& status) {
        if (!alive.expired()) OnWritten(number, status, *shard);
      });
}

void ShardSaver::OnWritten(uint64_t number, const absl::Status& status, const Shard& shard) {
  if (!save_ || save_->number != number) return;
  save_->snapshot.reset();
  save_->heard = env_->Now();
  save_->writing = false;
  save_->written = status.ok() ? ShardSaved() : Refusal(status);
  if (status.ok()) {
    for (const ManifestFile& file : shard.files) {
      save_->written->files.push_back({file.name, file.bytes, file.hash});
    }
  } else {
    links_->Emit(Event("shard_failed").With("reason", std::string(status.message())));
  }
  Answer(save_->write_request, *save_->written);
}

void ShardSaver::Tidy() {
  if (save_ && !save_->writing && env_->Now() - save_->heard > kForget) save_.reset();
}

void ShardSaver::Answer(uint64_t request, const ShardSaved& answer) {
  links_->ReplyToTrainer(request, answer);
}

}  // namespace starling
