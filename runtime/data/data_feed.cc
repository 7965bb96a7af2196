#include "runtime/data/data_feed.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/data/permutation.h"

namespace starling {
namespace {

constexpr uint64_t kShuffleKey = 0x6f72646572ULL;  // keeps this use of the seed apart from others

uint64_t WindowsIn(const TokenStream& tokens, uint64_t context) {
  return tokens.empty() ? 0 : (tokens.size() - 1) / context;
}

uint32_t Portions(uint64_t sequences, uint64_t microbatch) {
  return static_cast<uint32_t>((sequences + microbatch - 1) / microbatch);
}

}  // namespace

absl::StatusOr<std::unique_ptr<WindowFeed>> WindowFeed::Make(const RunConfig& config, Corpus corpus,
                                                             DataPosition start) {
  const auto context = static_cast<uint64_t>(config.model.context);
  const auto batch = static_cast<uint64_t>(config.train.global_batch);
  const char* const unit = corpus.from_shards ? " tokens" : " bytes";
  if (WindowsIn(corpus.train, context) < batch) {
    return absl::InvalidArgumentError(
        absl::StrCat(corpus.from_shards ? "data.shards: " : "data.text: ", corpus.train.size(),
                     unit, " to train on are too few; needs at least ", batch * context + 1,
                     ": one batch of ", batch, " sequences of ", context, " tokens"));
  }
  if (config.train.eval_every > 0 && WindowsIn(corpus.validation, context) == 0) {
    const bool named = !config.data.validation_shards.empty();
    return absl::InvalidArgumentError(absl::StrCat(
        named ? "data.validation_shards: " : "data.validation: ", corpus.validation.size(), unit,
        " to validate on are too few; needs at least ", context + 1, ": one sequence of ", context,
        named ? " tokens; name more" : " tokens; keep a larger share",
        ", or set train.eval_every = 0"));
  }
  return std::unique_ptr<WindowFeed>(new WindowFeed(config, std::move(corpus), start));
}

RunFeed::RunFeed(const TrainConfig& train, DataPosition start, uint64_t trained_on,
                 uint64_t validated_on)
    : train_(train),
      start_(start),
      trained_on_(trained_on),
      validated_on_(validated_on),
      evaluated_(std::min(static_cast<uint64_t>(train.eval_sequences), validated_on)) {}

DataPosition RunFeed::PositionAfter(Step step) const {
  STARLING_CHECK_GE(Value(step), Value(start_.step));
  const uint64_t steps = Value(step) - Value(start_.step);
  return {step, start_.sequences + steps * global_batch()};
}

uint64_t RunFeed::PlaceOf(Step step, uint64_t sequence) const {
  STARLING_CHECK_GT(Value(step), Value(start_.step));
  STARLING_CHECK_LT(sequence, global_batch());
  const uint64_t number = PositionAfter(static_cast<Step>(Value(step) - 1)).sequences + sequence;
  const uint64_t pass = number / trained_on_;
  return Permutation(trained_on_, MixAll(kShuffleKey, train_.seed, pass)).At(number % trained_on_);
}

MicrobatchData RunFeed::Train(Step step, uint32_t index) const {
  STARLING_CHECK_LT(index, train_microbatches());
  const auto size = static_cast<uint64_t>(train_.microbatch);
  const uint64_t first = index * size;
  std::vector<uint64_t> places;
  for (uint64_t s = first; s < std::min(first + size, global_batch()); ++s) {
    places.push_back(PlaceOf(step, s));
  }
  MicrobatchData data = TrainRows(places);
  data.first_sequence = first;
  return data;
}

MicrobatchData RunFeed::Evaluate(uint32_t index) const {
  STARLING_CHECK_LT(index, evaluate_microbatches());
  const auto size = static_cast<uint64_t>(train_.microbatch);
  const uint64_t first = index * size;
  std::vector<uint64_t> places;
  for (uint64_t s = first; s < std::min(first + size, evaluated_); ++s) {
    places.push_back(s * validated_on_ / evaluated_);
  }
  MicrobatchData data = ValidationRows(places);
  data.first_sequence = first;
  return data;
}

uint32_t RunFeed::train_microbatches() const { return train_.microbatches(); }

uint32_t RunFeed::evaluate_microbatches() const {
  return Portions(evaluated_, static_cast<uint64_t>(train_.microbatch));
}

WindowFeed::WindowFeed(const RunConfig& config, Corpus corpus, DataPosition start)
    : RunFeed(config.train, start,
              WindowsIn(corpus.train, static_cast<uint64_t>(config.model.context)),
              WindowsIn(corpus.validation, static_cast<uint64_t>(config.model.context))),
      context_(static_cast<uint64_t>(config.model.context)),
      vocabulary_(config.model.vocabulary),
      corpus_(std::move(corpus)),
      train_windows_(WindowsIn(corpus_.train, context_)) {}

// Windows `windows` of `from` as tokens and targets.
MicrobatchData WindowFeed::Cut(const TokenStream& from,
                               const std::vector<uint64_t>& windows) const {
  const auto rows = static_cast<int64_t>(windows.size());
  const auto columns = static_cast<int64_t>(context_);
  MutableBlob tokens = MutableBlob::Uninitialized(DType::kI32, {rows, columns});
  MutableBlob targets = MutableBlob::Uninitialized(DType::kI32, {rows, columns});
  std::vector<int32_t> window(context_ + 1);
  auto token = tokens.As<int32_t>().begin();
  auto target = targets.As<int32_t>().begin();
  MicrobatchData data;
  for (const uint64_t number : windows) {
    data.status = from.Read(number * context_, vocabulary_, absl::MakeSpan(window));
    if (!data.status.ok()) {
      data.status =
          absl::Status(data.status.code(), absl::StrCat("data.shards: ", data.status.message()));
      return data;
    }
    token = std::copy(window.begin(), window.end() - 1, token);
    target = std::copy(window.begin() + 1, window.end(), target);
  }
  data.tokens = std::move(tokens).Freeze();
  data.targets = std::move(targets).Freeze();
  return data;
}

MicrobatchData WindowFeed::TrainRows(const std::vector<uint64_t>& windows) const {
  return Cut(corpus_.train, windows);
}

MicrobatchData WindowFeed::ValidationRows(const std::vector<uint64_t>& windows) const {
  return Cut(corpus_.validation, windows);
}

void WindowFeed::ReadAhead(Step step) const {
  std::vector<int32_t> window(context_ + 1);
  for (uint64_t s = 0; s < global_batch(); ++s) {
    // What is wrong with it, Train will say.
    corpus_.train.Read(PlaceOf(step, s) * context_, vocabulary_, absl::MakeSpan(window))
        .IgnoreError();
  }
}

}  // namespace starling
