#include "checkpoint/catch_up.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/result_log.h"

namespace starling {

CatchUp::CatchUp(Env* env, ChunkFetcher::Options fetch, Start start, Endpoint reply_address,
                 std::vector<Endpoint> donors, FetchLinks links, Apply apply, Events events)
    : env_(env),
      fetch_(fetch),
      stage_(start.stage),
      elements_(start.elements),
      reply_address_(std::move(reply_address)),
      donors_(std::move(donors)),
      links_(std::move(links)),
      apply_(std::move(apply)),
      events_(std::move(events)),
      at_(start.state),
      next_(Next(start.state.version)) {}

void CatchUp::Begin() { FetchNext(); }

void CatchUp::Stop() {
  stopped_ = true;
  fetcher_.reset();
  ready_.reset();
}

void CatchUp::AddDonor(const Endpoint& donor) {
  if (std::find(donors_.begin(), donors_.end(), donor) != donors_.end()) return;
  donors_.push_back(donor);
  if (fetcher_) fetcher_->AddDonor(donor);
}

void CatchUp::RemoveDonor(const Endpoint& donor, const std::string& reason) {
  donors_.erase(std::remove(donors_.begin(), donors_.end(), donor), donors_.end());
  if (fetcher_) fetcher_->RemoveDonor(donor, reason);
}

void CatchUp::FetchNext() {
  if (stopped_ || fetcher_ || ready_ || fetch_failed_) return;
  ChunkFetcher::Want want;
  want.content = Content::kResult;
  want.stage = stage_;
  want.era = at_.era;
  want.version = next_;
  want.elements = elements_;
  ChunkFetcher::Events events;
  events.done = [this](absl::StatusOr<ChunkFetcher::Fetched> fetched) {
    OnFetched(std::move(fetched));
  };
  events.donor_dropped = [this](const Endpoint& donor, const absl::Status& why) {
    // One that is too far on, or behind, may have the next one. One that lied is not asked again.
    if (absl::IsDataLoss(why)) {
      donors_.erase(std::remove(donors_.begin(), donors_.end(), donor), donors_.end());
    }
    if (events_.donor_dropped) events_.donor_dropped(donor, why);
  };
  fetcher_ = std::make_unique<ChunkFetcher>(env_, fetch_, want, reply_address_, donors_, links_,
                                            std::move(events));
  fetcher_->Start();
}

void CatchUp::OnFetched(absl::StatusOr<ChunkFetcher::Fetched> fetched) {
  fetcher_.reset();
  if (!fetched.ok()) {
    fetch_failed_ = fetched.status();
  } else {
    fetched_bytes_ += fetched->bytes.size_bytes();
    ready_ = *std::move(fetched);
    next_ = Next(next_);
  }
  ApplyNext();
}

// Ends with what may destroy this.
void CatchUp::ApplyNext() {
  while (ready_ && !applying_ && !stopped_) {
    const ChunkFetcher::Fetched fetched = *std::exchange(ready_, std::nullopt);
    const ResultRecord& record = *fetched.result;
    if (const absl::Status status = CheckChain(at_, record); !status.ok()) return Fail(status);
    FetchNext();
    if (record.skip) {
      Advanced(record);
      continue;
    }
    applying_ = true;
    apply_(record.scalars, fetched.bytes,
           [this, record, alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<Hash128> hash) {
             if (!alive.expired()) OnApplied(record, hash);
           });
  }
  if (fetch_failed_ && !ready_ && !applying_ && !stopped_) Fail(*fetch_failed_);
}

void CatchUp::OnApplied(const ResultRecord& record, const absl::StatusOr<Hash128>& hash) {
  applying_ = false;
  spoiled_ = !hash.ok() || *hash != record.after;
  if (!hash.ok()) return Fail(hash.status());
  if (spoiled_) {
    return Fail(absl::DataLossError(absl::StrCat("version ", Value(record.version),
                                                 " came out with hash ", ToHex(*hash),
                                                 ", the members'", " is ", ToHex(record.after))));
  }
  Advanced(record);
  ApplyNext();
}

void CatchUp::Advanced(const ResultRecord& record) {
  at_.version = record.version;
  at_.hash = record.after;
  events_.advanced(at_);
}

void CatchUp::Fail(const absl::Status& why) {
  const absl::Status reason = why;
  Stop();
  const auto failed = events_.failed;
  failed(reason);
}

}  // namespace starling
