#include "runtime/peer/state_keeper.h"

#include <string>

#include "absl/time/time.h"
#include "runtime/base/layout.h"

namespace starling {
namespace {

constexpr absl::Duration kFetchAgain = absl::Milliseconds(50);
constexpr size_t kWaitingFetches = 1024;  // while a snapshot is made

}  // namespace

StateKeeper::StateKeeper(StageId stage, Env* env, Compute* compute, PeerLinks* links)
    : stage_(stage), env_(env), compute_(compute), links_(links) {}

bool StateKeeper::Begins(uint64_t request) {
  if (request == answered_request_) links_->ReplyToTrainer(request, answer_);
  return request != load_request_ && request != answered_request_;
}

void StateKeeper::OnLoad(const LoadState& load, uint64_t request) {
  load_request_ = request;
  fetcher_.reset();
  if (held_ && held_->era == load.state.era && held_->version == load.state.version &&
      held_->hash == load.state.hash) {
    compute_->FreeThrough(Step{Value(load.state.version) + 1});
    return AnswerLoaded(request, absl::OkStatus(), *held_);
  }
  FetchState(load, request);
}

void StateKeeper::GiveUpLoading() {
  fetcher_.reset();
  load_request_ = 0;
}

void StateKeeper::FetchState(const LoadState& load, uint64_t request) {
  StateFetcher::Want want;
  want.stage = stage_;
  want.era = load.state.era;
  want.version = load.state.version;
  want.elements = kStatePlanes * compute_->size();
  if (load.donors.empty()) {
    return AnswerLoaded(request, absl::AbortedError("no donors"), load.state);
  }
  const Endpoint donor = load.donors.front();
  fetcher_ = std::make_unique<StateFetcher>(
      want, links_->own_address(),
      [this, donor](Fetch fetch, std::function<void(const Chunk&)> reply) {
        links_->AskAt(donor, std::move(fetch), [reply](const Message& message) {
          if (const auto* chunk = std::get_if<Chunk>(&message.body)) reply(*chunk);
        });
      },
      [this, load, request](absl::StatusOr<Blob> state) {
        if (request != load_request_) return;
        if (absl::IsFailedPrecondition(state.status())) {
          // The donor has not applied that version yet.
          env_->Schedule(kFetchAgain, [this, load, request, alive = std::weak_ptr<bool>(alive_)] {
            if (!alive.expired() && request == load_request_) {
              FetchState(load, request);
            }
          });
        } else if (!state.ok()) {
          AnswerLoaded(request, state.status(), load.state);
        } else {
          TakeState(load, request, *std::move(state));
        }
      });
  fetcher_->Start();
}

void StateKeeper::TakeState(const LoadState& load, uint64_t request, Blob state) {
  held_.reset();
  compute_->Load(std::move(state), [this, load, request, alive = std::weak_ptr<bool>(alive_)](
                                       absl::StatusOr<Hash128> hash) {
    if (alive.expired() || request != load_request_) return;
    if (!hash.ok()) return AnswerLoaded(request, hash.status(), load.state);
    if (*hash != load.state.hash) {
      return AnswerLoaded(request, absl::DataLossError("the state arrived with another hash"),
                          load.state);
    }
    held_ = load.state;
    snapshot_ = Blob();
    AnswerLoaded(request, absl::OkStatus(), *held_);
  });
}

void StateKeeper::AnswerLoaded(uint64_t request, absl::Status status, const StateName& state) {
  if (!status.ok()) {
    links_->Emit(Event("load_failed").With("reason", std::string(status.message())));
  }
  load_request_ = 0;
  answered_request_ = request;
  answer_ = Loaded{status.code(), std::string(status.message()), state};
  links_->ReplyToTrainer(request, answer_);
}

void StateKeeper::OnFetch(const Fetch& fetch, uint64_t request, Era era, Version version) {
  const auto refuse = [&](absl::StatusCode code, const char* why) {
    Chunk chunk;
    chunk.code = code;
    chunk.error = why;
    links_->ReplyAt(fetch.reply_address, request, std::move(chunk));
  };
  if (!held_ || fetch.stage != stage_ || fetch.era != era) {
    return refuse(absl::StatusCode::kAborted, "this replica has no such state");
  }
  if (fetch.version > version) {
    return refuse(absl::StatusCode::kFailedPrecondition, "not at that version yet");
  }
  if (snapshot_version_ == fetch.version && !snapshot_.empty()) return AnswerChunk(fetch, request);
  if (fetch.version < version) {
    return refuse(absl::StatusCode::kAborted, "this replica is past that version");
  }
  if (waiting_fetches_.size() >= kWaitingFetches) return;  // it will be asked for again
  waiting_fetches_.emplace_back(fetch, request);
  if (snapshot_pending_) return;
  snapshot_pending_ = true;
  compute_->Snapshot([this, version = fetch.version,
                      alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Blob> snapshot) {
    if (alive.expired()) return;
    snapshot_pending_ = false;
    if (!snapshot.ok()) {
      waiting_fetches_.clear();
      if (!absl::IsCancelled(snapshot.status())) links_->DeviceFailed(snapshot.status());
      return;
    }
    snapshot_version_ = version;
    snapshot_ = *std::move(snapshot);
    auto waiting = std::move(waiting_fetches_);
    waiting_fetches_.clear();
    for (const auto& [waiting_fetch, waiting_request] : waiting) {
      AnswerChunk(waiting_fetch, waiting_request);
    }
  });
}

void StateKeeper::AnswerChunk(const Fetch& fetch, uint64_t request) {
  links_->ReplyAt(fetch.reply_address, request, CutChunk(fetch, snapshot_));
}

void StateKeeper::VisitBuffers(const BufferVisitor& visit) const {
  visit("fetches that wait for a snapshot", waiting_fetches_.size(), kWaitingFetches);
}

void StateKeeper::OnVersion(Version version) {
  if (snapshot_version_ < version) snapshot_ = Blob();
}

}  // namespace starling
