#include "runtime/trainer/saver.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/layout.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

constexpr absl::Duration kLookAgain = absl::Milliseconds(10);
constexpr absl::Duration kLongestHold = absl::Seconds(1);

}  // namespace

Saver::Saver(Options options, Env* env, Files* files, Swarm* swarm, Endpoint self,
             std::vector<StageLayout> layouts)
    : options_(std::move(options)),
      env_(env),
      files_(files),
      swarm_(swarm),
      self_(std::move(self)),
      store_(options_.folder),
      layouts_(std::move(layouts)) {}

void Saver::Begin(CheckpointMeta meta, std::function<void()> changed, OnSaved done) {
  meta_ = std::move(meta);
  changed_ = std::move(changed);
  done_ = std::move(done);
  begun_ = env_->Now();
  held_ = true;
  writing_ = std::make_shared<Writing>(Writing{store_, {}, {}, absl::OkStatus()});
  writing_->shards.resize(layouts_.size());
  for (uint32_t stage = 0; stage < layouts_.size(); ++stage) missing_[stage] = Download();
  if (options_.config.store == StoreKind::kShared) {
    BeginShared();
  } else {
    RunJob(
        [meta = meta_](Disk& disk, Writing& writing) -> absl::Status {
          STARLING_ASSIGN_OR_RETURN(writing.staging, writing.store.Begin(disk, meta));
          return absl::OkStatus();
        },
        [] {});
  }
  FetchMissing();
}

// Snapshots are asked for at once, so that the steps need not wait for the disk. Late writers of an
// earlier save may be at work: each save has a folder of its own.
void Saver::BeginShared() {
  const uint64_t save = env_->Random();
  ShardOrders::Events events;
  events.changed = [this] { TellIfNoLongerHeld(); };
  events.written = [this](StageId stage, Shard shard, const std::string& writer) {
    OnShardWritten(stage, std::move(shard), writer);
  };
  events.failed = [this](absl::Status status) {
    GiveUp(std::move(status));
    TellIfNoLongerHeld();
  };
  orders_ = std::make_unique<ShardOrders>(swarm_, meta_.era, meta_.version, save, &layouts_,
                                          std::move(events));
  auto staging = std::make_shared<Staging>();
  RunJob(
      [meta = meta_, save, staging](Disk& disk, Writing& writing) -> absl::Status {
        STARLING_ASSIGN_OR_RETURN(writing.staging,
                                  writing.store.Begin(disk, meta, absl::StrCat(absl::Hex(save))));
        *staging = writing.staging;
        return absl::OkStatus();
      },
      [this, staging] { OnFolder(*staging); });
}

void Saver::OnFolder(const Staging& staging) {
  if (orders_ == nullptr) return;
  if (!staging.already_published) {
    return orders_->OnFolder(options_.shared_as + staging.path.substr(options_.folder.size()));
  }
  missing_.clear();
  PublishIfWhole();
}

void Saver::OnShardWritten(StageId stage, Shard shard, const std::string& writer) {
  RunJob(
      [stage, shard = std::move(shard), writer](Disk& disk, Writing& writing) -> absl::Status {
        const absl::Status seen = CheckFiles(disk, writing.staging.path, shard.files);
        writing.shards[Value(stage)] = shard;
        if (seen.ok()) return seen;
        return absl::DataLossError(
            absl::StrCat("replica ", writer, " of stage ", Value(stage),
                         " says that its part is written, but it is not to be seen from here: ",
                         seen.message()));
      },
      [] {});
  missing_.erase(Value(stage));
  PublishIfWhole();
}

bool Saver::holds() const {
  if (!fetching() || env_->Now() - begun_ >= kLongestHold) return false;
  if (orders_ != nullptr) return orders_->holds();
  for (const auto& [stage, download] : missing_) {
    if (download.fetcher == nullptr || download.fetcher->progress().total_bytes == 0) return true;
  }
  return false;
}

void Saver::TellIfNoLongerHeld() {
  if (!held_ || holds()) return;
  held_ = false;
  changed_();
}

void Saver::OnApplied(StageId stage) {
  const auto it = missing_.find(Value(stage));
  if (it == missing_.end()) return;
  GoOn(orders_ != nullptr ? orders_->LookAt(stage) : LookAt(stage, &it->second));
}

void Saver::FetchMissing() {
  const bool to_be_had = orders_ != nullptr ? orders_->Look() : Look();
  env_->Cancel(retry_);
  if (fetching()) retry_ = env_->Schedule(kLookAgain, [this] { FetchMissing(); });
  GoOn(to_be_had);
}

void Saver::GoOn(bool to_be_had) {
  if (!to_be_had) {
    GiveUp(absl::AbortedError("the replicas have gone on without giving this version"));
  }
  TellIfNoLongerHeld();
}

bool Saver::Look() {
  bool to_be_had = true;
  for (auto& [stage, download] : missing_) {
    to_be_had = LookAt(StageId{stage}, &download) && to_be_had;
  }
  return to_be_had;
}

// False: the stage's replicas have all gone on.
bool Saver::LookAt(StageId stage, Download* download) {
  FetchStage(stage, download);
  if (download->fetcher != nullptr) return true;
  const std::set<Incarnation>& members = swarm_->OfStage(stage);
  return std::none_of(members.begin(), members.end(), [this](const Incarnation& incarnation) {
    const StateName& state = swarm_->Find(incarnation)->state;
    return state.era == meta_.era && state.version > meta_.version;
  });
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
  PublishIfWhole();
}

void Saver::OnFenced(const Endpoint& address) {
  if (orders_ != nullptr) orders_->OnFenced(address);
  for (auto& [stage, download] : missing_) {
    if (download.fetcher != nullptr) download.fetcher->RemoveDonor(address, "it is gone");
  }
}

void Saver::Abandon() {
  if (fetching()) GiveUp(absl::AbortedError("the state to be saved is no more"));
}

// Nothing more is asked of replicas.
void Saver::StopAsking() {
  orders_.reset();
  missing_.clear();
  env_->Cancel(retry_);
}

void Saver::GiveUp(absl::Status status) {
  StopAsking();
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

void Saver::PublishIfWhole() {
  if (!missing_.empty()) return;
  StopAsking();
  RunJob(
      [keep = static_cast<uint64_t>(options_.config.keep),
       keep_every = static_cast<uint64_t>(options_.config.keep_every)](
          Disk& disk, Writing& writing) -> absl::Status {
        if (!writing.staging.already_published) {
          STARLING_RETURN_IF_ERROR(writing.store.Publish(disk, writing.staging, writing.shards));
        }
        // It is published, whatever becomes of the old ones: the next save tries again.
        writing.store.Prune(disk, keep, keep_every).IgnoreError();
        return absl::OkStatus();
      },
      [this] { Finish(store_.At(meta_.era, meta_.version)); });
  TellIfNoLongerHeld();
}

void Saver::OnFailed(absl::Status status) {
  const std::function<void()> changed = std::exchange(held_, false) ? changed_ : [] {};
  StopAsking();
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
