#include "checkpoint/chunk_donor.h"

#include <algorithm>
#include <string>
#include <utility>

namespace starling {
namespace {

// A quarter of a second's worth, and a chunk at least.
double BurstOf(double bytes_per_s) {
  return std::max(static_cast<double>(kChunkBytes), bytes_per_s / 4);
}

template <typename Answer>
Answer Refusal(const absl::Status& status) {
  Answer answer;
  answer.code = status.code();
  answer.error = std::string(status.message());
  return answer;
}

}  // namespace

ChunkDonor::ChunkDonor(Env* env, Options options, Find find, Reply reply)
    : env_(env),
      options_(options),
      find_(std::move(find)),
      reply_(std::move(reply)),
      bucket_(options.bytes_per_s, BurstOf(options.bytes_per_s)) {}

ChunkDonor::~ChunkDonor() { env_->Cancel(timer_); }

void ChunkDonor::OnFetchIndex(const FetchIndex& fetch, uint64_t request) {
  const auto found = find_(fetch.content, fetch.stage, fetch.era, fetch.version);
  if (!found.ok()) {
    return reply_(fetch.reply_address, request, Refusal<ChunkIndex>(found.status()));
  }
  const ChunkIndex* index = (*found)->Index();
  if (index == nullptr) {
    return reply_(fetch.reply_address, request,
                  Refusal<ChunkIndex>(absl::FailedPreconditionError("still being hashed")));
  }
  reply_(fetch.reply_address, request, *index);
}

void ChunkDonor::OnFetch(const Fetch& fetch, uint64_t request) {
  const bool repeated = std::any_of(waiting_.begin(), waiting_.end(), [&](const Waiting& waiting) {
    return waiting.request == request && waiting.fetch.reply_address == fetch.reply_address;
  });
  if (repeated) return;
  const auto found = find_(fetch.content, fetch.stage, fetch.era, fetch.version);
  const bool refused = !found.ok() || fetch.length_bytes > (*found)->chunk_bytes();
  if (refused) return Answer(fetch, request);  // costs no more than its words
  if (waiting_.empty() && bucket_.Take(fetch.length_bytes, env_->Now())) {
    return Answer(fetch, request);
  }
  if (waiting_.size() >= options_.waiting) {
    return reply_(fetch.reply_address, request,
                  Refusal<Chunk>(absl::ResourceExhaustedError("too many ask here at once")));
  }
  waiting_.push_back({fetch, request});
  if (timer_ == kNoTimer) SendWaiting();
}

void ChunkDonor::Answer(const Fetch& fetch, uint64_t request) {
  const auto found = find_(fetch.content, fetch.stage, fetch.era, fetch.version);
  Chunk chunk = found.ok() ? (*found)->Cut(fetch) : Refusal<Chunk>(found.status());
  sent_bytes_ += chunk.bytes.size_bytes();
  reply_(fetch.reply_address, request, std::move(chunk));
}

void ChunkDonor::SendWaiting() {
  timer_ = kNoTimer;
  while (!waiting_.empty() && bucket_.Take(waiting_.front().fetch.length_bytes, env_->Now())) {
    const Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    Answer(next.fetch, next.request);
  }
  if (waiting_.empty()) return;
  const absl::Duration wait = bucket_.Wait(waiting_.front().fetch.length_bytes, env_->Now());
  timer_ = env_->Schedule(wait, [this] { SendWaiting(); });
}

}  // namespace starling
