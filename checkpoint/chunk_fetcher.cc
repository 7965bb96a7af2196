#include "checkpoint/chunk_fetcher.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

constexpr uint64_t kMostChunkBytes = uint64_t{64} << 20;
constexpr size_t kFirstWindow = 2;  // of a donor whose speed is not known yet

bool SameContent(const ChunkIndex& a, const ChunkIndex& b) {
  const auto same_result = [](const std::optional<ResultRecord>& x,
                              const std::optional<ResultRecord>& y) {
    if (!x || !y) return x.has_value() == y.has_value();
    return x->decision == y->decision && x->version == y->version && x->skip == y->skip &&
           x->result_hash == y->result_hash && x->before == y->before && x->after == y->after &&
           std::memcmp(&x->scalars, &y->scalars, sizeof(x->scalars)) == 0;
  };
  return a.total_bytes == b.total_bytes && a.chunk_bytes == b.chunk_bytes && a.chunks == b.chunks &&
         same_result(a.result, b.result);
}

}  // namespace

ChunkFetcher::ChunkFetcher(Env* env, Options options, Want want, Endpoint reply_address,
                           std::vector<Endpoint> donors, FetchLinks links, Events events)
    : env_(env),
      options_(options),
      want_(want),
      reply_address_(std::move(reply_address)),
      links_(std::move(links)),
      events_(std::move(events)),
      bucket_(options.bytes_per_s, options.bytes_per_s / 4) {
  for (const Endpoint& donor : donors) donors_.try_emplace(donor);
}

ChunkFetcher::~ChunkFetcher() {
  env_->Cancel(timer_);
  CancelAll();
}

void ChunkFetcher::Start() {
  started_ = true;
  Advance();
}

void ChunkFetcher::AddDonor(const Endpoint& donor) {
  if (finished_ || liars_.count(donor) != 0) return;
  if (donors_.try_emplace(donor).second && started_) Advance();
}

void ChunkFetcher::RemoveDonor(const Endpoint& donor, const std::string& reason) {
  if (finished_ || donors_.count(donor) == 0) return;
  Drop(donor, absl::UnavailableError(reason));
  Advance();
}

ChunkFetcher::Progress ChunkFetcher::progress() const {
  return {received_bytes_, group_ ? index().total_bytes : 0, donors_.size(), asked_elsewhere_};
}

// --- what to ask, and whom -------------------------------------------------------------

void ChunkFetcher::Advance() {
  if (!started_ || finished_) return;
  const absl::Time now = env_->Now();
  DropSilent(now);
  for (bool dropped = true; dropped && !donors_.empty();) {
    const size_t before = donors_.size();
    AskForIndexes(now);
    ChooseGroup();  // all that is here may turn out to be complete, and right or wrong
    if (finished_) return;
    dropped = donors_.size() < before;
  }
  if (donors_.empty()) return FinishWithoutDonors();
  if (group_) {
    MarkOverdue(now);
    AskForChunks(now);
  }
  SetTimer(now);
}

void ChunkFetcher::FinishWithoutDonors() {
  if (last_reason_.ok()) return Finish(absl::AbortedError("there is no donor"));
  const std::string why = absl::StrCat("no donor is left: ", last_reason_.message());
  Finish(absl::IsDataLoss(last_reason_) ? absl::DataLossError(why) : absl::AbortedError(why));
}

void ChunkFetcher::AskForIndexes(absl::Time now) {
  for (auto& [endpoint, donor] : donors_) {
    if (donor.group || donor.index_request || now < donor.quiet_until) continue;
    donor.heard = now;
    FetchIndex fetch{want_.content, want_.stage, want_.era, want_.version, reply_address_};
    donor.index_request = links_.ask(
        endpoint, std::move(fetch),
        [this, from = endpoint, alive = std::weak_ptr<bool>(alive_)](const MessageBody& body) {
          if (!alive.expired()) OnIndex(from, body);
        });
  }
}

// The one that most donors gave; the one in use where others have no more.
void ChunkFetcher::ChooseGroup() {
  const auto donors_of = [this](size_t group) {
    return groups_[group].wrong ? 0 : groups_[group].donors;
  };
  size_t best = group_.value_or(0);
  for (size_t group = 0; group < groups_.size(); ++group) {
    if (donors_of(group) > donors_of(best)) best = group;
  }
  // Where none counts for now, what is here stays: a donor may come that gives the same index.
  if (groups_.empty() || donors_of(best) == 0 || best == group_) return;
  UseGroup(best);
}

void ChunkFetcher::UseGroup(size_t group) {
  const bool same_cut = group_ && index().total_bytes == groups_[group].index.total_bytes &&
                        index().chunk_bytes == groups_[group].index.chunk_bytes;
  const std::vector<Hash128> before = group_ ? index().chunks : std::vector<Hash128>();
  CancelAsks();
  group_ = group;
  chunks_.resize(index().chunks.size());
  if (!buffer_) buffer_ = MutableBlob::Uninitialized(DType::kU8, {want_.elements * 4});
  received_bytes_ = 0;
  hashed_ = 0;
  hasher_ = std::make_unique<Hasher128>();
  unasked_.clear();
  for (uint32_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    ChunkState& state = chunks_[chunk];
    state.received = state.received && same_cut && before[chunk] == index().chunks[chunk];
    if (state.received) {
      received_bytes_ += LengthOf(chunk);
    } else {
      unasked_.insert(chunk);
    }
  }
  HashMore();
  if (unasked_.empty()) CheckWhole();
}

void ChunkFetcher::AskForChunks(absl::Time now) {
  // One each in turn, so that the window of one is not filled before another has anything to do.
  for (bool asked = true; asked;) {
    asked = false;
    for (auto& [endpoint, donor] : donors_) {
      if (donor.group != group_ || donor.open >= WindowOf(donor) || now < donor.quiet_until) {
        continue;
      }
      const std::optional<uint32_t> chunk = NextChunkFor(endpoint);
      if (!chunk) continue;
      if (!bucket_.Take(LengthOf(*chunk), now)) return;
      AskChunk(endpoint, &donor, *chunk, now);
      asked = true;
    }
  }
}

std::optional<uint32_t> ChunkFetcher::NextChunkFor(const Endpoint& donor) const {
  for (uint32_t chunk : unasked_) {
    const std::vector<Ask>& asks = chunks_[chunk].asks;
    const bool open_here =
        std::any_of(asks.begin(), asks.end(), [&](const Ask& ask) { return ask.donor == donor; });
    if (!open_here) return chunk;
  }
  return std::nullopt;
}

void ChunkFetcher::AskChunk(const Endpoint& endpoint, Donor* donor, uint32_t chunk,
                            absl::Time now) {
  Fetch fetch;
  fetch.stage = want_.stage;
  fetch.era = want_.era;
  fetch.version = want_.version;
  fetch.offset_bytes = chunk * index().chunk_bytes;
  fetch.length_bytes = LengthOf(chunk);
  fetch.reply_address = reply_address_;
  fetch.content = want_.content;
  unasked_.erase(chunk);
  if (donor->open == 0) donor->heard = now;
  ++donor->open;
  const uint64_t request = links_.ask(
      endpoint, std::move(fetch),
      [this, from = endpoint, chunk, alive = std::weak_ptr<bool>(alive_)](const MessageBody& body) {
        if (!alive.expired()) OnChunk(from, chunk, body);
      });
  chunks_[chunk].asks.push_back({endpoint, request, now, false});
}

// Those that take too long are asked for elsewhere too; whichever comes first counts.
void ChunkFetcher::MarkOverdue(absl::Time now) {
  for (uint32_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    for (Ask& ask : chunks_[chunk].asks) {
      if (ask.overdue || !AnotherCould(chunk)) continue;
      const Donor& donor = donors_.at(ask.donor);
      if (now - ask.since < donor.answers.LimitOf(options_.overdue)) continue;
      ask.overdue = true;
      ++asked_elsewhere_;
      unasked_.insert(chunk);
    }
  }
}

bool ChunkFetcher::AnotherCould(uint32_t chunk) const {
  const std::vector<Ask>& asks = chunks_[chunk].asks;
  for (const auto& [endpoint, donor] : donors_) {
    if (donor.group != group_) continue;
    const bool asked = std::any_of(asks.begin(), asks.end(), [&, name = endpoint](const Ask& ask) {
      return ask.donor == name;
    });
    if (!asked) return true;
  }
  return false;
}

void ChunkFetcher::DropSilent(absl::Time now) {
  std::vector<Endpoint> silent;
  for (const auto& [endpoint, donor] : donors_) {
    const bool expected = donor.index_request || donor.open > 0;
    if (expected && now - donor.heard >= options_.silent_after) silent.push_back(endpoint);
  }
  for (const Endpoint& endpoint : silent) {
    Drop(endpoint,
         absl::DeadlineExceededError("no answer for " + InSeconds(options_.silent_after)));
  }
}

// When there may be something to do although nothing arrives.
void ChunkFetcher::SetTimer(absl::Time now) {
  env_->Cancel(timer_);
  timer_ = kNoTimer;
  absl::Time due = absl::InfiniteFuture();
  for (const auto& [endpoint, donor] : donors_) {
    if (donor.quiet_until > now) due = std::min(due, donor.quiet_until);
    if (donor.index_request || donor.open > 0) {
      due = std::min(due, donor.heard + options_.silent_after);
    }
  }
  for (uint32_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    for (const Ask& ask : chunks_[chunk].asks) {
      if (ask.overdue || !AnotherCould(chunk)) continue;
      due = std::min(due, ask.since + donors_.at(ask.donor).answers.LimitOf(options_.overdue));
    }
  }
  if (!unasked_.empty()) {
    const absl::Duration wait = bucket_.Wait(LengthOf(*unasked_.begin()), now);
    if (wait > absl::ZeroDuration()) due = std::min(due, now + wait);
  }
  if (due == absl::InfiniteFuture()) return;
  timer_ = env_->Schedule(due - now, [this] {
    timer_ = kNoTimer;
    Advance();
  });
}

// --- answers ---------------------------------------------------------------------------

void ChunkFetcher::OnIndex(const Endpoint& endpoint, const MessageBody& body) {
  const auto it = donors_.find(endpoint);
  if (finished_ || it == donors_.end()) return;
  Donor& donor = it->second;
  donor.index_request.reset();
  donor.heard = env_->Now();
  const auto* index = std::get_if<ChunkIndex>(&body);
  if (index == nullptr) {
    OnRefusal(endpoint, absl::AbortedError("it does not know this request"));
  } else if (index->code != absl::StatusCode::kOk) {
    OnRefusal(endpoint, absl::Status(index->code, index->error));
  } else if (const absl::Status status = CheckIndex(*index); !status.ok()) {
    Drop(endpoint, status);
  } else {
    donor.refusals = 0;
    size_t group = 0;
    while (group < groups_.size() && !SameContent(groups_[group].index, *index)) ++group;
    if (group == groups_.size()) groups_.push_back({*index, 0, false});
    donor.group = group;
    ++groups_[group].donors;
    if (groups_[group].wrong) Drop(endpoint, absl::DataLossError("its state has another hash"));
  }
  Advance();
}

absl::Status ChunkFetcher::CheckIndex(const ChunkIndex& index) const {
  const bool skip = want_.content == Content::kResult && index.result && index.result->skip;
  const uint64_t total = skip ? 0 : static_cast<uint64_t>(want_.elements) * sizeof(float);
  if (index.total_bytes != total) {
    return absl::DataLossError(
        absl::StrCat("it has ", index.total_bytes, " bytes where ", total, " are wanted"));
  }
  if (index.chunk_bytes == 0 || index.chunk_bytes > kMostChunkBytes ||
      index.chunks.size() != (total + index.chunk_bytes - 1) / index.chunk_bytes) {
    return absl::DataLossError("its index does not fit its size");
  }
  if (want_.content == Content::kResult &&
      (!index.result || index.result->version != want_.version)) {
    return absl::DataLossError("its result is not of the version that is wanted");
  }
  return absl::OkStatus();
}

void ChunkFetcher::OnChunk(const Endpoint& endpoint, uint32_t chunk, const MessageBody& body) {
  const auto it = donors_.find(endpoint);
  if (finished_ || it == donors_.end()) return;
  Donor& donor = it->second;
  const absl::Time now = env_->Now();
  absl::Time since = absl::InfiniteFuture();
  for (const Ask& ask : chunks_[chunk].asks) {
    if (ask.donor == endpoint) since = ask.since;
  }
  if (since == absl::InfiniteFuture()) return;  // no longer wanted
  // While several are open, each takes from the answer before it.
  const absl::Duration busy = now - std::max(since, donor.heard);
  CloseAsk(chunk, endpoint);
  donor.heard = now;
  const auto* got = std::get_if<Chunk>(&body);
  if (got == nullptr) {
    OnRefusal(endpoint, absl::AbortedError("it does not know this request"));
  } else if (got->code != absl::StatusCode::kOk) {
    OnRefusal(endpoint, absl::Status(got->code, got->error));
  } else if (got->offset_bytes != chunk * index().chunk_bytes ||
             got->bytes.size_bytes() != LengthOf(chunk) ||
             HashBytes(got->bytes.data(), got->bytes.size_bytes()) != index().chunks[chunk]) {
    Drop(endpoint, absl::DataLossError("it sent a chunk with other bits than its index says"));
  } else {
    donor.refusals = 0;
    donor.answers.Add(now - since);
    const double seconds = std::max(1e-6, absl::ToDoubleSeconds(busy)) / LengthOf(chunk);
    donor.seconds_per_byte +=
        (seconds - donor.seconds_per_byte) / (donor.seconds_per_byte == 0 ? 1 : 4);
    Take(chunk, got->bytes);
  }
  Advance();
}

void ChunkFetcher::OnRefusal(const Endpoint& endpoint, const absl::Status& status) {
  const bool later = absl::IsFailedPrecondition(status) || absl::IsResourceExhausted(status) ||
                     absl::IsUnavailable(status);
  if (!later) return Drop(endpoint, status);
  Donor& donor = donors_.at(endpoint);
  donor.refusals = std::min(donor.refusals + 1, 10);
  const absl::Duration pause = std::ldexp(1.0, donor.refusals - 1) * options_.ask_again;
  donor.quiet_until = env_->Now() + std::min(options_.longest_ask_again, pause);
}

void ChunkFetcher::Take(uint32_t chunk, const Blob& bytes) {
  ChunkState& state = chunks_[chunk];
  if (state.received) return;
  std::memcpy(buffer_->data() + chunk * index().chunk_bytes, bytes.data(), bytes.size_bytes());
  state.received = true;
  received_bytes_ += bytes.size_bytes();
  unasked_.erase(chunk);
  while (!state.asks.empty()) {
    const Ask other = state.asks.back();
    links_.cancel(other.request);
    CloseAsk(chunk, other.donor);
  }
  HashMore();
  if (received_bytes_ == index().total_bytes) CheckWhole();
}

// The hash of the whole is taken along the way, in order.
void ChunkFetcher::HashMore() {
  if (!want_.hash) return;
  for (; hashed_ < chunks_.size() && chunks_[hashed_].received; ++hashed_) {
    hasher_->Update(buffer_->data() + hashed_ * index().chunk_bytes, LengthOf(hashed_));
  }
}

void ChunkFetcher::CheckWhole() {
  if (want_.hash && hasher_->Finish() != *want_.hash) {
    groups_[*group_].wrong = true;
    return DropWrong([this](const Donor& donor) { return donor.group == group_; });
  }
  // Who gave another index of the same cut has other bits.
  if (want_.hash) {
    DropWrong([this](const Donor& donor) {
      return donor.group && donor.group != group_ &&
             groups_[*donor.group].index.chunk_bytes == index().chunk_bytes;
    });
  }
  Fetched fetched;
  fetched.result = index().result;
  if (index().total_bytes > 0) {
    const Blob bytes = std::move(*buffer_).Freeze();
    fetched.bytes = Blob(bytes.owner(), bytes.data(), DType::kF32, {want_.elements});
  }
  Finish(std::move(fetched));
}

// --- donors that go, and the end -------------------------------------------------------

void ChunkFetcher::DropWrong(const std::function<bool(const Donor&)>& is_wrong) {
  std::vector<Endpoint> wrong;
  for (const auto& [endpoint, donor] : donors_) {
    if (is_wrong(donor)) wrong.push_back(endpoint);
  }
  for (const Endpoint& endpoint : wrong) {
    Drop(endpoint, absl::DataLossError("its state has another hash"));
  }
}

void ChunkFetcher::Drop(Endpoint endpoint, const absl::Status& why) {
  const auto it = donors_.find(endpoint);
  Donor& donor = it->second;
  if (donor.index_request) links_.cancel(*donor.index_request);
  for (uint32_t chunk = 0; chunk < chunks_.size() && donor.open > 0; ++chunk) {
    for (const Ask& ask : chunks_[chunk].asks) {
      if (ask.donor != endpoint) continue;
      links_.cancel(ask.request);
      CloseAsk(chunk, endpoint);
      ++asked_elsewhere_;
      break;
    }
  }
  if (donor.group) --groups_[*donor.group].donors;
  if (absl::IsDataLoss(why)) liars_.insert(endpoint);
  last_reason_ = why;
  donors_.erase(it);
  if (events_.donor_dropped) events_.donor_dropped(endpoint, why);
}

// It is to be asked for again, unless it is here or open and in time elsewhere.
void ChunkFetcher::CloseAsk(uint32_t chunk, const Endpoint& endpoint) {
  ChunkState& state = chunks_[chunk];
  const auto it = std::find_if(state.asks.begin(), state.asks.end(),
                               [&](const Ask& ask) { return ask.donor == endpoint; });
  if (it == state.asks.end()) return;
  --donors_.at(endpoint).open;
  state.asks.erase(it);
  const bool in_time = std::any_of(state.asks.begin(), state.asks.end(),
                                   [](const Ask& ask) { return !ask.overdue; });
  if (!state.received && !in_time) unasked_.insert(chunk);
}

void ChunkFetcher::CancelAsks() {
  for (uint32_t chunk = 0; chunk < chunks_.size(); ++chunk) {
    while (!chunks_[chunk].asks.empty()) {
      const Ask ask = chunks_[chunk].asks.back();
      links_.cancel(ask.request);
      CloseAsk(chunk, ask.donor);
    }
  }
}

void ChunkFetcher::CancelAll() {
  CancelAsks();
  for (auto& [endpoint, donor] : donors_) {
    if (donor.index_request) links_.cancel(*donor.index_request);
    donor.index_request.reset();
  }
}

void ChunkFetcher::Finish(absl::StatusOr<Fetched> result) {
  finished_ = true;
  CancelAll();
  env_->Cancel(timer_);
  auto shared = std::make_shared<absl::StatusOr<Fetched>>(std::move(result));
  timer_ = env_->Schedule(absl::ZeroDuration(), [this, shared] {
    timer_ = kNoTimer;
    const auto done = events_.done;  // may destroy the fetcher
    done(std::move(*shared));
  });
}

// A donor half as fast as the fastest has half as many open.
size_t ChunkFetcher::WindowOf(const Donor& donor) const {
  if (donor.seconds_per_byte == 0) return std::min(kFirstWindow, options_.window);
  double fastest = donor.seconds_per_byte;
  for (const auto& [endpoint, other] : donors_) {
    if (other.seconds_per_byte > 0) fastest = std::min(fastest, other.seconds_per_byte);
  }
  const double share = fastest / donor.seconds_per_byte;
  const auto window = static_cast<size_t>(std::ceil(share * static_cast<double>(options_.window)));
  return std::max<size_t>(1, std::min(window, options_.window));
}

uint64_t ChunkFetcher::LengthOf(uint32_t chunk) const {
  return std::min(index().chunk_bytes, index().total_bytes - chunk * index().chunk_bytes);
}

}  // namespace starling
