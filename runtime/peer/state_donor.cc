#include "runtime/peer/state_donor.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"

namespace starling {
namespace {

constexpr size_t kWaitingBound = 64;
// Kept whatever the budget: with fewer nobody could catch up while steps are taken, and with none
// nobody could join where the version before is needed too (train.delayed_commit).
constexpr uint64_t kLeastResults = 4;
// Kept when nobody catches up: for one that was away for a moment.
constexpr size_t kIdleResults = 1;
// Somebody catches up from the first request on until there was none for so many results.
constexpr uint64_t kWantedFor = 4;

}  // namespace

StateDonor::StateDonor(StageId stage, Options options, Env* env, Compute* compute, PeerLinks* links)
    : stage_(stage),
      env_(env),
      compute_(compute),
      links_(links),
      shelf_(SnapshotShelf::Options()),
      results_([&] {
        ResultLog::Options log;
        const auto result_bytes = static_cast<uint64_t>(compute->size()) * sizeof(float);
        log.bytes = std::max(options.result_budget, kLeastResults * result_bytes);
        return log;
      }()),
      chunks_(
          env, ChunkDonor::Options{options.bytes_per_s, kWaitingBound},
          [this](Content content, StageId of, Era era, Version version) {
            return Find(content, of, era, version);
          },
          [links](const Endpoint& to, uint64_t request, MessageBody body) {
            links->ReplyAt(to, request, std::move(body));
          }) {}

void StateDonor::Serves(Era era, Version version) {
  serves_ = true;
  era_ = era;
  version_ = version;
  AnswerWaiting();
}

void StateDonor::ServesNothing() {
  serves_ = false;
  AnswerWaiting();
}

void StateDonor::OnResult(Era era, const ResultRecord& record, std::vector<Blob> pieces) {
  results_.Put(era, record, std::move(pieces));
  if (wanted_for_ > 0) {
    --wanted_for_;
  } else {
    results_.KeepNewest(kIdleResults);
  }
}

absl::StatusOr<ChunkedBytes*> StateDonor::Find(Content content, StageId stage, Era era,
                                               Version version) {
  if (stage != stage_) return absl::AbortedError("this replica serves another stage");
  if (content == Content::kResult) return results_.Find(era, version);
  ChunkedBytes* const held = shelf_.Find(era, version, env_->Now());
  if (held != nullptr) return held;
  if (!serves_ || era != era_) return absl::AbortedError("this replica has no such state");
  if (version < version_) return absl::AbortedError("this replica is past that version");
  if (version == version_) TakeSnapshot();
  return absl::FailedPreconditionError("not there yet");
}

void StateDonor::TakeSnapshot() {
  if (snapshot_pending_) return;
  snapshot_pending_ = true;
  compute_->Snapshot([this, era = era_, version = version_,
                      alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Blob> snapshot) {
    if (alive.expired()) return;
    snapshot_pending_ = false;
    if (snapshot.ok()) {
      shelf_.Put(era, version, *std::move(snapshot), env_->Now());
    } else if (!absl::IsCancelled(snapshot.status())) {
      serves_ = false;
      links_->DeviceFailed(snapshot.status());
    }
    AnswerWaiting();
  });
}

void StateDonor::Give(Era era, Version version, OnSnapshot done) {
  const auto found = Find(Content::kState, stage_, era, version);
  if (found.ok()) return done((*found)->pieces().front());
  if (!absl::IsFailedPrecondition(found.status())) return done(found.status());
  if (waiters_.size() >= kWaitingBound) return done(absl::ResourceExhaustedError("too many ask"));
  waiters_.push_back({era, version, std::move(done)});
}

void StateDonor::OnFetchIndex(const FetchIndex& fetch, uint64_t request) {
  wanted_for_ = kWantedFor;
  const auto found = Find(fetch.content, fetch.stage, fetch.era, fetch.version);
  const bool early = absl::IsFailedPrecondition(found.status());
  if (!early || fetch.content != Content::kState || waiting_.size() >= kWaitingBound) {
    return chunks_.OnFetchIndex(fetch, request);
  }
  waiting_.emplace_back(fetch, request);
}

void StateDonor::AnswerWaiting() {
  auto waiting = std::exchange(waiting_, {});
  for (const auto& [fetch, request] : waiting) OnFetchIndex(fetch, request);
  auto waiters = std::exchange(waiters_, {});
  for (Waiter& waiter : waiters) Give(waiter.era, waiter.version, std::move(waiter.done));
}

void StateDonor::OnFetch(const Fetch& fetch, uint64_t request) {
  wanted_for_ = kWantedFor;
  chunks_.OnFetch(fetch, request);
}

void StateDonor::VisitBuffers(const BufferVisitor& visit) const {
  visit("fetches that wait for a snapshot", waiting_.size(), kWaitingBound);
  visit("saves that wait for a snapshot", waiters_.size(), kWaitingBound);
}

}  // namespace starling
