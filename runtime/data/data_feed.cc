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

uint64_t WindowsIn(const Blob& text, uint64_t context) {
  return text.size_bytes() == 0 ? 0 : (text.size_bytes() - 1) / context;
}

// Windows `windows` of `text` as tokens and targets.
MicrobatchData Cut(const Blob& text, const std::vector<uint64_t>& windows, uint64_t context) {
  const auto rows = static_cast<int64_t>(windows.size());
  const auto columns = static_cast<int64_t>(context);
  MutableBlob tokens = MutableBlob::Uninitialized(DType::kI32, {rows, columns});
  MutableBlob targets = MutableBlob::Uninitialized(DType::kI32, {rows, columns});
  const auto bytes = text.As<uint8_t>();
  const auto token = tokens.As<int32_t>();
  const auto target = targets.As<int32_t>();
  size_t at = 0;
  for (const uint64_t window : windows) {
    const uint64_t begin = window * context;
    for (uint64_t i = 0; i < context; ++i, ++at) {
      token[at] = bytes[begin + i];
      target[at] = bytes[begin + i + 1];
    }
  }
  return {std::move(tokens).Freeze(), std::move(targets).Freeze(), 0};
}

uint32_t Portions(uint64_t sequences, uint64_t microbatch) {
  return static_cast<uint32_t>((sequences + microbatch - 1) / microbatch);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextFeed>> TextFeed::Make(const RunConfig& config, Text text,
                                                         DataPosition start) {
  const auto context = static_cast<uint64_t>(config.model.context);
  const auto batch = static_cast<uint64_t>(config.train.global_batch);
  if (WindowsIn(text.train, context) < batch) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.text: ", text.train.size_bytes(), " bytes to train on are too few; needs at least ",
        batch * context + 1, ": one batch of ", batch, " sequences of ", context, " tokens"));
  }
  if (config.train.eval_every > 0 && WindowsIn(text.validation, context) == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "data.validation: ", text.validation.size_bytes(),
        " bytes to validate on are too few; needs at least ", context + 1, ": one sequence of ",
        context, " tokens; keep a larger share, or set train.eval_every = 0"));
  }
  return std::unique_ptr<TextFeed>(new TextFeed(config, std::move(text), start));
}

TextFeed::TextFeed(const RunConfig& config, Text text, DataPosition start)
    : train_(config.train),
      context_(static_cast<uint64_t>(config.model.context)),
      text_(std::move(text)),
      start_(start),
      train_windows_(WindowsIn(text_.train, context_)),
      validation_windows_(WindowsIn(text_.validation, context_)),
      evaluated_(
          std::min(static_cast<uint64_t>(config.train.eval_sequences), validation_windows_)) {}

DataPosition TextFeed::PositionAfter(Step step) const {
  STARLING_CHECK_GE(Value(step), Value(start_.step));
  const uint64_t steps = Value(step) - Value(start_.step);
  return {step, start_.sequences + steps * static_cast<uint64_t>(train_.global_batch)};
}

uint64_t TextFeed::WindowOf(Step step, uint64_t sequence) const {
  STARLING_CHECK_GT(Value(step), Value(start_.step));
  STARLING_CHECK_LT(sequence, static_cast<uint64_t>(train_.global_batch));
  const uint64_t number = PositionAfter(static_cast<Step>(Value(step) - 1)).sequences + sequence;
  const uint64_t pass = number / train_windows_;
  return Permutation(train_windows_, MixAll(kShuffleKey, train_.seed, pass))
      .At(number % train_windows_);
}

MicrobatchData TextFeed::Train(Step step, uint32_t index) const {
  STARLING_CHECK_LT(index, train_microbatches());
  const auto size = static_cast<uint64_t>(train_.microbatch);
  const uint64_t first = index * size;
  const uint64_t end = std::min(first + size, static_cast<uint64_t>(train_.global_batch));
  std::vector<uint64_t> windows;
  for (uint64_t s = first; s < end; ++s) windows.push_back(WindowOf(step, s));
  MicrobatchData data = Cut(text_.train, windows, context_);
  data.first_sequence = first;
  return data;
}

MicrobatchData TextFeed::Evaluate(uint32_t index) const {
  STARLING_CHECK_LT(index, evaluate_microbatches());
  const auto size = static_cast<uint64_t>(train_.microbatch);
  const uint64_t first = index * size;
  const uint64_t end = std::min(first + size, evaluated_);
  std::vector<uint64_t> windows;
  for (uint64_t s = first; s < end; ++s) windows.push_back(s * validation_windows_ / evaluated_);
  MicrobatchData data = Cut(text_.validation, windows, context_);
  data.first_sequence = first;
  return data;
}

uint32_t TextFeed::train_microbatches() const { return train_.microbatches(); }

uint32_t TextFeed::evaluate_microbatches() const {
  return Portions(evaluated_, static_cast<uint64_t>(train_.microbatch));
}

}  // namespace starling
