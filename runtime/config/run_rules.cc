#include "runtime/config/run_rules.h"

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

std::optional<BrokenRule> ModelRule(const ModelConfig& model) {
  if (model.width % model.heads != 0) {
    return BrokenRule{{"model.heads", "model.width"},
                      absl::StrCat(model.heads, " does not divide model.width = ", model.width)};
  }
  if (model.heads % model.key_value_heads() != 0) {
    return BrokenRule{{"model.kv_heads", "model.heads"},
                      absl::StrCat(model.kv_heads, " does not divide model.heads = ", model.heads)};
  }
  if (model.position == PositionKind::kRope && model.head_width() % 2 != 0) {
    return BrokenRule{{"model.position", "model.heads", "model.width"},
                      absl::StrCat("\"rope\" needs an even model.width / model.heads, not ",
                                   model.width, " / ", model.heads, " = ", model.head_width())};
  }
  return std::nullopt;
}

std::optional<BrokenRule> OwnLayersRule(const RunConfig& config) {
  const ModelConfig& model = config.model;
  if (!model.own_sha256.empty() && model.own_sha256.size() != model.own_layers.size()) {
    return BrokenRule{{"model.layer_sha256", "model.layers"},
                      absl::StrCat(model.own_sha256.size(), " sums for ", model.own_layers.size(),
                                   " layers of your own")};
  }
  if (model.own() && model.dropout != 0) {
    return BrokenRule{{"model.dropout", "model.layers"},
                      "is for the built-in layers; layers of your own have none"};
  }
  if (model.own() && model.tie_embeddings) {
    return BrokenRule{{"model.tie_embeddings", "model.layers"},
                      "is for the built-in layers; layers of your own share nothing"};
  }
  if (model.own() && config.train.precision != Precision::kFp32) {
    return BrokenRule{{"train.precision", "model.layers"},
                      "is for the built-in layers; layers of your own compute as they are written"};
  }
  return std::nullopt;
}

std::optional<BrokenRule> DataRule(const RunConfig& config) {
  const DataConfig& data = config.data;
  if (!data.samples.empty() && !config.model.own()) {
    return BrokenRule{{"data.samples", "model.layers"},
                      "is for layers of your own: model.layers = [\"stem.pt\", ...]"};
  }
  if (!data.samples.empty() && !(data.text.empty() && data.shards.empty())) {
    return BrokenRule{{"data.samples", "data.text", "data.shards"},
                      "stands beside data.text or data.shards; give one of the three"};
  }
  if (!data.shards.empty() && !data.text.empty()) {
    return BrokenRule{{"data.shards", "data.text"},
                      "stands beside data.text; give one of the two (data.text = [] takes text "
                      "away)"};
  }
  if (!data.validation_shards.empty() && data.shards.empty()) {
    return BrokenRule{{"data.validation_shards", "data.shards", "data.text"},
                      "there are no data.shards to train on beside them"};
  }
  if (!data.text.empty() && !data.tokenizer.empty() && data.tokenizer != "bytes") {
    return BrokenRule{{"data.tokenizer", "data.text"},
                      absl::StrCat("\"", data.tokenizer,
                                   "\" is for data.shards; data.text is read as \"bytes\". Make "
                                   "shards of the text with `starling tokenize --tokenizer`")};
  }
  return std::nullopt;
}

std::optional<BrokenRule> TrainRule(const RunConfig& config) {
  const TrainConfig& train = config.train;
  if (train.microbatch > train.global_batch) {
    return BrokenRule{
        {"train.microbatch", "train.global_batch"},
        absl::StrCat(train.microbatch, " is more than train.global_batch = ", train.global_batch)};
  }
  if (train.eval_every > 0 && config.data.validation == 0 &&
      config.data.validation_shards.empty()) {
    return BrokenRule{{"data.validation", "train.eval_every"},
                      "0 leaves nothing to evaluate on; set it above 0, or train.eval_every = 0"};
  }
  if (config.optimizer.min_lr > config.optimizer.lr) {
    return BrokenRule{{"optimizer.min_lr", "optimizer.lr"},
                      absl::StrCat(config.optimizer.min_lr,
                                   " is more than optimizer.lr = ", config.optimizer.lr)};
  }
  return std::nullopt;
}

std::optional<BrokenRule> CutsRule(const RunConfig& config) {
  const int64_t layers = config.model.layers;
  if (config.swarm.cuts.empty()) {
    if (config.swarm.stages <= layers) return std::nullopt;
    return BrokenRule{{"swarm.stages", "model.layers"},
                      absl::StrCat(config.swarm.stages, " stages cannot be made of model.layers = ",
                                   layers, "; at most one stage per layer")};
  }
  int64_t previous = 0;
  for (const int64_t cut : config.swarm.cuts) {
    if (cut >= layers) {
      return BrokenRule{{"swarm.cuts", "model.layers"},
                        absl::StrCat(cut, " is not below model.layers = ", layers,
                                     "; a cut is the number of a stage's first layer, from 0")};
    }
    if (cut <= previous) {
      return BrokenRule{{"swarm.cuts"},
                        absl::StrCat(cut, " after ", previous, "; cuts must increase")};
    }
    previous = cut;
  }
  return std::nullopt;
}

std::optional<BrokenRule> PerStageRule(const RunConfig& config, const std::string& key,
                                       const std::vector<int64_t>& values) {
  if (values.size() == 1 || values.size() == config.stage_count()) return std::nullopt;
  return BrokenRule{{key, "swarm.cuts", "swarm.stages"},
                    absl::StrCat("a list of ", values.size(), " for ", config.stage_count(),
                                 " stages; give one number for all, or one per stage")};
}

}  // namespace

std::optional<BrokenRule> FindBrokenRule(const RunConfig& config) {
  if (auto broken = ModelRule(config.model)) return broken;
  if (auto broken = OwnLayersRule(config)) return broken;
  if (auto broken = DataRule(config)) return broken;
  if (auto broken = TrainRule(config)) return broken;
  if (auto broken = CutsRule(config)) return broken;
  if (auto broken = PerStageRule(config, "local.replicas", config.local.replicas)) return broken;
  if (auto broken = PerStageRule(config, "local.threads", config.local.threads)) return broken;
  if (config.swarm.dead_after <= config.swarm.heartbeat) {
    return BrokenRule{{"swarm.dead_after", "swarm.heartbeat"},
                      absl::StrCat(absl::FormatDuration(config.swarm.dead_after),
                                   " is not more than swarm.heartbeat = ",
                                   absl::FormatDuration(config.swarm.heartbeat))};
  }
  return std::nullopt;
}

}  // namespace starling
