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

Saver::Saver(Env* env, Files* files, Swarm* swarm, Endpoint self, CheckpointStore store,
             int64_t keep, std::vector<StageLayout> layouts, int64_t keep_every)
    : env_(env),
      files_(files),
      swarm_(swarm),
      self_(std::move(self)),
      store_(std::move(store)),
      keep_(static_cast<uint64_t>(keep)),
      keep_every_(static_cast<uint64_t>(keep_every)),
      layouts_(std::move(layouts)) {}

void Saver::Begin(CheckpointMeta meta, std::function<void()> changed, OnSaved done) {
  meta_ = std::move(meta);
  changed_ = std::move(changed);
  done_ = std::move(done);
  begun_ = env_->Now();
  held_ = true;
  writing_ = std::make_shared<Writing>(Writing{store_, {}, {}, absl::OkStatus()});
  writing_->shards.resize(layouts_.size());
  RunJob(
      [meta = meta_](Disk& disk, Writing& writing) -> absl::Status {
        STARLING_ASSIGN_OR_RETURN(writing.staging, writing.store.Begin(disk, meta));
        return absl::OkStatus();
      },
      [] {});
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
    GiveUp(absl::AbortedError("the replicas have gone on without giving this version"));
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
  missing_.erase(it);
  WriteStage(stage, *std::move(state));
  if (!missing_.empty()) return;
  env_->Cancel(retry_);
  Publish();
  if (std::exchange(held_, false)) changed_();
}

void Saver::OnFenced(const Endpoint& address) {
  for (auto& [stage, download] : missing_) {
    if (download.fetcher != nullptr) download.fetcher->RemoveDonor(address, "it is gone");
  }
}

void Saver::Abandon() {
  if (fetching()) GiveUp(absl::AbortedError("the state to be saved is no more"));
}

void Saver::GiveUp(absl::Status status) {
  missing_.clear();
  env_->Cancel(retry_);
  RunJob([status](Disk&, Writing&) { return status; }, [] {});
  Finish(std::move(status));
}

void Saver::RunJob(std::function<absl::Status(Disk&, Writing&)> job, std::function<void()> done) {
  files_->Run(
      [writing = writing_, job = std::move(job)](Disk& disk) {
        if (!writing->status.ok()) return writing->status;
        writing->status = job(disk, *writing);
        const Staging& staging = writing->staging;
        if (!writing->status.ok() && !staging.path.empty() && !staging.already_published) {
          writing->store.Abandon(disk, staging);
        }
        return writing->status;
      },
      [this, writing = writing_, done = std::move(done)](absl::Status status) {
        if (writing != writing_) return;  // this save has ended
        if (status.ok()) return done();
        OnFailed(std::move(status));
      });
}

void Saver::WriteStage(StageId stage, Blob state) {
  const uint32_t index = Value(stage);
  RunJob(
      [index, part = StagePart{layouts_[index], std::move(state)}](
          Disk& disk, Writing& writing) -> absl::Status {
        if (writing.staging.already_published) return absl::OkStatus();
        STARLING_ASSIGN_OR_RETURN(writing.shards[index],
                                  WriteShard(disk, writing.staging.path, index, part));
        return absl::OkStatus();
      },
      [] {});
}

void Saver::Publish() {
  RunJob(
      [keep = keep_, keep_every = keep_every_](Disk& disk, Writing& writing) -> absl::Status {
        if (!writing.staging.already_published) {
          STARLING_RETURN_IF_ERROR(writing.store.Publish(disk, writing.staging, writing.shards));
        }
        // It is published, whatever becomes of the old ones: the next save tries again.
        writing.store.Prune(disk, keep, keep_every).IgnoreError();
        return absl::OkStatus();
      },
      [this] { Finish(store_.At(meta_.era, meta_.version)); });
}

void Saver::OnFailed(absl::Status status) {
  const std::function<void()> changed = std::exchange(held_, false) ? changed_ : [] {};
  missing_.clear();
  env_->Cancel(retry_);
  Finish(std::move(status));
  changed();
}

void Saver::Finish(absl::StatusOr<CheckpointInfo> result) {
  OnSaved done = std::move(done_);
  done_ = nullptr;
  writing_.reset();
  done(std::move(result));
}

}  // namespace starling
