#include "runtime/trainer/saver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr absl::Duration kFetchAgain = absl::Milliseconds(50);

}  // namespace

Saver::Saver(Env* env, Files* files, Swarm* swarm, Endpoint self, CheckpointStore store, int keep,
             std::vector<StageLayout> layouts)
    : env_(env),
      files_(files),
      swarm_(swarm),
      self_(std::move(self)),
      store_(std::move(store)),
      keep_(keep),
      layouts_(std::move(layouts)) {}

void Saver::Begin(CheckpointMeta meta, std::function<void()> changed, OnSaved done) {
  meta_ = std::move(meta);
  changed_ = std::move(changed);
  done_ = std::move(done);
  states_.assign(layouts_.size(), Blob());
  for (uint32_t stage = 0; stage < layouts_.size(); ++stage) missing_[stage] = Download();
  FetchMissing();
}

void Saver::FetchMissing() {
  for (auto& [stage, download] : missing_) {
    if (download.fetcher != nullptr) continue;
    for (const Incarnation& incarnation : swarm_->OfStage(StageId{stage})) {
      const Replica* replica = swarm_->Find(incarnation);
      if (replica->state.era != meta_.era || replica->state.version != meta_.version) continue;
      FetchFrom(StageId{stage}, *replica);
      break;
    }
  }
  // Replicas acknowledge the version one by one.
  env_->Cancel(retry_);
  if (fetching()) retry_ = env_->Schedule(kFetchAgain, [this] { FetchMissing(); });
}

void Saver::FetchFrom(StageId stage, const Replica& donor) {
  StateFetcher::Want want;
  want.stage = stage;
  want.era = meta_.era;
  want.version = meta_.version;
  want.elements = kStatePlanes * layouts_[Value(stage)].size;
  const Incarnation incarnation = donor.member.incarnation;
  Download& download = missing_[Value(stage)];
  download.donor = incarnation;
  download.fetcher = std::make_unique<StateFetcher>(
      want, self_,
      [this, incarnation](Fetch fetch, std::function<void(const Chunk&)> reply) {
        swarm_->Ask(incarnation, std::move(fetch), [reply](const Message& message) {
          if (const auto* chunk = std::get_if<Chunk>(&message.body)) reply(*chunk);
        });
      },
      [this, stage](absl::StatusOr<Blob> state) { OnFetched(stage, std::move(state)); });
  download.fetcher->Start();
}

void Saver::OnFetched(StageId stage, absl::StatusOr<Blob> state) {
  const auto it = missing_.find(Value(stage));
  if (it == missing_.end()) return;
  // The fetcher is what called this: it goes when the call is over.
  std::shared_ptr<StateFetcher> fetcher = std::move(it->second.fetcher);
  env_->Schedule(absl::ZeroDuration(), [fetcher] {});
  if (!state.ok()) return;  // FetchMissing asks another one, or the same again
  states_[Value(stage)] = *std::move(state);
  missing_.erase(it);
  if (!missing_.empty()) return;
  env_->Cancel(retry_);
  Write();
  changed_();
}

void Saver::OnFenced(Incarnation incarnation) {
  for (auto& [stage, download] : missing_) {
    if (download.donor == incarnation) download.fetcher.reset();
  }
}

void Saver::Abandon() {
  if (!fetching()) return;
  missing_.clear();
  env_->Cancel(retry_);
  Finish(absl::AbortedError("the state to be saved is no more"));
}

void Saver::Write() {
  std::vector<StagePart> parts;
  for (size_t stage = 0; stage < layouts_.size(); ++stage) {
    parts.push_back({layouts_[stage], std::move(states_[stage])});
  }
  auto info = std::make_shared<CheckpointInfo>();
  files_->Run(
      [store = store_, meta = meta_, parts = std::move(parts), keep = keep_,
       info](Disk& disk) mutable {
        STARLING_RETURN_IF_ERROR(store.Save(disk, meta, parts));
        STARLING_ASSIGN_OR_RETURN(*info, store.Newest(disk));
        return store.Prune(disk, static_cast<uint64_t>(keep));
      },
      [this, info](absl::Status status) {
        if (status.ok()) {
          Finish(*info);
        } else {
          Finish(std::move(status));
        }
      });
}

void Saver::Finish(absl::StatusOr<CheckpointInfo> result) {
  OnSaved done = std::move(done_);
  done_ = nullptr;
  done(std::move(result));
}

}  // namespace starling
