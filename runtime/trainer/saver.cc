#include "runtime/trainer/saver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/layout.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr absl::Duration kLookAgain = absl::Milliseconds(10);
constexpr absl::Duration kLongestHold = absl::Seconds(1);

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
  begun_ = env_->Now();
  held_ = true;
  states_.assign(layouts_.size(), Blob());
  for (uint32_t stage = 0; stage < layouts_.size(); ++stage) missing_[stage] = Download();
  FetchMissing();
}

bool Saver::holds() const {
  if (!fetching() || env_->Now() - begun_ >= kLongestHold) return false;
  for (const auto& [stage, download] : missing_) {
    if (download.fetcher == nullptr || download.fetcher->progress().total_bytes == 0) return true;
  }
  return false;
}

void Saver::FetchMissing() {
  bool moved_on = false;
  for (auto& [stage, download] : missing_) {
    FetchStage(StageId{stage}, &download);
    if (download.fetcher != nullptr) continue;
    for (const Incarnation& incarnation : swarm_->OfStage(StageId{stage})) {
      const StateName& state = swarm_->Find(incarnation)->state;
      moved_on = moved_on || (state.era == meta_.era && state.version > meta_.version);
    }
  }
  env_->Cancel(retry_);
  if (moved_on) {
    missing_.clear();
    Finish(absl::AbortedError("the replicas have gone on without giving this version"));
  } else if (fetching()) {
    retry_ = env_->Schedule(kLookAgain, [this] { FetchMissing(); });
  }
  if (held_ && !holds()) {
    held_ = false;
    changed_();
  }
}

// From all that are at the version; more may come to it.
void Saver::FetchStage(StageId stage, Download* download) {
  std::vector<Endpoint> donors;
  ChunkFetcher::Want want;
  for (const Incarnation& incarnation : swarm_->OfStage(stage)) {
    const Replica* replica = swarm_->Find(incarnation);
    if (replica->state.era != meta_.era || replica->state.version != meta_.version) continue;
    if (download->fetcher != nullptr) download->fetcher->AddDonor(replica->member.address);
    donors.push_back(replica->member.address);
    want.hash = replica->state.hash;
  }
  if (donors.empty() || download->fetcher != nullptr) return;
  want.stage = stage;
  want.era = meta_.era;
  want.version = meta_.version;
  want.elements = kStatePlanes * layouts_[Value(stage)].size;
  FetchLinks links;
  links.ask = [this](const Endpoint& donor, MessageBody body, FetchLinks::OnReply reply) {
    return swarm_->AskAt(donor, Incarnation{}, std::move(body),
                         [reply](const Message& message) { reply(message.body); });
  };
  links.cancel = [this](uint64_t request) { swarm_->outbox().Cancel(request); };
  ChunkFetcher::Events events;
  events.done = [this, stage](absl::StatusOr<ChunkFetcher::Fetched> fetched) {
    if (fetched.ok()) {
      OnFetched(stage, std::move(fetched->bytes));
    } else {
      OnFetched(stage, fetched.status());
    }
  };
  download->fetcher = std::make_unique<ChunkFetcher>(env_, ChunkFetcher::Options(), want, self_,
                                                     donors, std::move(links), std::move(events));
  download->fetcher->Start();
}

void Saver::OnFetched(StageId stage, absl::StatusOr<Blob> state) {
  const auto it = missing_.find(Value(stage));
  if (it == missing_.end()) return;
  it->second.fetcher.reset();
  if (!state.ok()) return;  // FetchMissing asks those that are there, or gives up
  states_[Value(stage)] = *std::move(state);
  missing_.erase(it);
  if (!missing_.empty()) return;
  env_->Cancel(retry_);
  Write();
  if (std::exchange(held_, false)) changed_();
}

void Saver::OnFenced(const Endpoint& address) {
  for (auto& [stage, download] : missing_) {
    if (download.fetcher != nullptr) download.fetcher->RemoveDonor(address, "it is gone");
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
