#include "tests/runtime/tokenizer/sentencepiece_oracle.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

namespace starling::testing {
namespace {

class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>* all) : all_(all) {}
  bool done() const override { return next_ == all_->size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return (*all_)[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>* const all_;
  size_t next_ = 0;
};

}  // namespace

struct SentencePieceOracle::State {
  sentencepiece::SentencePieceProcessor processor;
  bool ok = false;
};

std::string SentencePieceOracle::Train(const std::string& options,
                                       const std::vector<std::string>& sentences) {
  std::string model;
  Sentences iterator(&sentences);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      options + " --minloglevel=2 --num_threads=1", &iterator, &model);
  return status.ok() ? model : "";
}

SentencePieceOracle::SentencePieceOracle(const std::string& model)
    : state_(std::make_unique<State>()) {
  state_->ok = state_->processor.LoadFromSerializedProto(model).ok();
}

SentencePieceOracle::~SentencePieceOracle() = default;

bool SentencePieceOracle::ok() const { return state_->ok; }

std::vector<uint32_t> SentencePieceOracle::Encode(const std::string& text) const {
  std::vector<int> ids;
  if (!state_->processor.Encode(text, &ids).ok()) return {};
  return std::vector<uint32_t>(ids.begin(), ids.end());
}

std::string SentencePieceOracle::Decode(const std::vector<uint32_t>& tokens) const {
  std::string text;
  const std::vector<int> ids(tokens.begin(), tokens.end());
  if (!state_->processor.Decode(ids, &text).ok()) return "";
  return text;
}

}  // namespace starling::testing
