#include "interop/huggingface_config.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

OrderedJson OrNull(const std::optional<int64_t>& number) {
  return number ? OrderedJson(*number) : OrderedJson();
}

std::string Brief(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

// Reads members of the object; remembers the first that is not as it must be.
class Keys {
 public:
  explicit Keys(const Json& object) : object_(object) {}

  // Null where there is none, or where it is null.
  const Json* Find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  int64_t Size(const std::string& key) {
    if (Find(key) == nullptr) Fail(absl::DataLossError(absl::StrCat("it has no \"", key, "\"")));
    return Size(key, 0);
  }
  int64_t Size(const std::string& key, int64_t otherwise) {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (value->is_number_unsigned() && value->get<uint64_t>() > 0 &&
        value->get<uint64_t>() < uint64_t{1} << 31) {
      return value->get<int64_t>();
    }
    Wrong(key, *value, "a whole number above 0");
    return otherwise;
  }
  double Real(const std::string& key, double otherwise) {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (value->is_number()) return value->get<double>();
    Wrong(key, *value, "a number");
    return otherwise;
  }
  bool Flag(const std::string& key, bool otherwise) {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (value->is_boolean()) return value->get<bool>();
    Wrong(key, *value, "true or false");
    return otherwise;
  }
  std::string Text(const std::string& key, const std::string& otherwise) {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (value->is_string()) return value->get<std::string>();
    Wrong(key, *value, "text");
    return otherwise;
  }

  // Settings that change what is computed, to something that is not known here.
  void Refuse(const std::string& key, const std::string& why) {
    const Json* value = Find(key);
    Fail(absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": ", value == nullptr ? "null" : Brief(*value), ": ", why)));
  }
  void Demand(const std::string& key, bool wanted) {
    if (Flag(key, wanted) != wanted) {
      Refuse(key, absl::StrCat("only ", wanted ? "true" : "false", " is supported"));
    }
  }

  const absl::Status& status() const { return status_; }

 private:
  void Wrong(const std::string& key, const Json& value, const std::string& takes) {
    Fail(absl::DataLossError(absl::StrCat("\"", key, "\": ", Brief(value), " is not ", takes)));
  }
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const Json& object_;
  absl::Status status_;
};

absl::StatusOr<HuggingFaceKind> KindOf(Keys& keys) {
  std::string name;
  if (const Json* list = keys.Find("architectures")) {
    if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"architectures\": ", Brief(*list), " is not a list of one name"));
    }
    name = list->front().get<std::string>();
  }
  const std::string type = keys.Text("model_type", "");
  STARLING_RETURN_IF_ERROR(keys.status());
  for (const auto& [kind, model_type] :
       {std::pair(HuggingFaceKind::kGpt2, "gpt2"), std::pair(HuggingFaceKind::kLlama, "llama")}) {
    const bool named = name == ArchitectureOf(kind) && (type.empty() || type == model_type);
    if (named || (name.empty() && type == model_type)) return kind;
  }
  if (name.empty() && type.empty()) {
    return absl::DataLossError("it has neither \"architectures\" nor \"model_type\"");
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the architecture ", Brief(name.empty() ? type : name),
      name.empty() || type.empty() ? "" : absl::StrCat(" with \"model_type\": ", Brief(type)),
      " is not known here: there are GPT2LMHeadModel (gpt2) and LlamaForCausalLM (llama)"));
}

void ReadDropout(Keys& keys, HuggingFaceConfig* config) {
  const double residual = keys.Real("resid_pdrop", 0.1);
  const double embedding = keys.Real("embd_pdrop", 0.1);
  const double attention = keys.Real("attn_pdrop", 0.1);
  config->model.dropout = residual;
  if (embedding != residual) {
    config->notices.push_back(absl::StrCat("\"embd_pdrop\": ", embedding,
                                           " is not kept apart: model.dropout = ", residual,
                                           ", as \"resid_pdrop\" is"));
  }
  if (attention != 0) {
    config->notices.push_back(absl::StrCat(
        "\"attn_pdrop\": ", attention, " is left out: attention's weights have no dropout here"));
  }
}

void ReadGpt2(Keys& keys, HuggingFaceConfig* config) {
  ModelConfig& model = config->model;
  model.norm = NormKind::kLayerNorm;
  model.mlp = MlpKind::kGelu;
  model.position = PositionKind::kLearned;
  model.bias = true;
  model.layers = keys.Size("n_layer");
  model.width = keys.Size("n_embd");
  model.heads = model.kv_heads = keys.Size("n_head");
  model.context = keys.Size("n_positions");
  model.vocabulary = keys.Size("vocab_size");
  model.mlp_width = keys.Size("n_inner", 4 * model.width);
  model.norm_epsilon = keys.Real("layer_norm_epsilon", 1e-5);
  const std::string activation = keys.Text("activation_function", "gelu_new");
  if (activation != "gelu_new" && activation != "gelu_pytorch_tanh") {
    keys.Refuse("activation_function", "only gelu_new is supported");
  }
  keys.Demand("scale_attn_weights", true);
  keys.Demand("scale_attn_by_inverse_layer_idx", false);
  keys.Demand("add_cross_attention", false);
  model.tie_embeddings = keys.Flag("tie_word_embeddings", true);
  ReadDropout(keys, config);
}

// The base, and that nothing else is done to the angles. Newer files have both in
// "rope_parameters".
void ReadRope(Keys& keys, ModelConfig* model) {
  model->rope_theta = keys.Real("rope_theta", 10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = keys.Find(key);
    if (rope == nullptr) continue;
    if (!rope->is_object()) return keys.Refuse(key, "it is not an object");
    for (const char* member : {"rope_type", "type"}) {
      const auto type = rope->find(member);
      if (type != rope->end() && !type->is_null() && *type != "default") {
        return keys.Refuse(key, "scaled rotary positions are not supported");
      }
    }
    if (rope->contains("factor")) {
      return keys.Refuse(key, "scaled rotary positions are not supported");
    }
    const auto theta = rope->find("rope_theta");
    if (theta == rope->end()) continue;
    if (!theta->is_number()) return keys.Refuse(key, "\"rope_theta\" is not a number");
    model->rope_theta = theta->get<double>();
  }
}

void ReadLlama(Keys& keys, HuggingFaceConfig* config) {
  ModelConfig& model = config->model;
  model.norm = NormKind::kRmsNorm;
  model.mlp = MlpKind::kSwiGlu;
  model.position = PositionKind::kRope;
  model.layers = keys.Size("num_hidden_layers");
  model.width = keys.Size("hidden_size");
  model.heads = keys.Size("num_attention_heads");
  model.kv_heads = keys.Size("num_key_value_heads", model.heads);
  model.context = keys.Size("max_position_embeddings");
  model.vocabulary = keys.Size("vocab_size");
  model.mlp_width = keys.Size("intermediate_size");
  model.norm_epsilon = keys.Real("rms_norm_eps", 1e-6);
  if (keys.Text("hidden_act", "silu") != "silu") {
    keys.Refuse("hidden_act", "only silu is supported");
  }
  const int64_t heads = model.heads > 0 ? model.heads : 1;
  if (keys.Size("head_dim", model.width / heads) * heads != model.width) {
    keys.Refuse("head_dim", "only hidden_size / num_attention_heads is supported");
  }
  model.bias = keys.Flag("attention_bias", false);
  if (keys.Flag("mlp_bias", false) != model.bias) {
    keys.Refuse("attention_bias",
                "it differs from \"mlp_bias\", and here all linear layers have a bias or none");
  }
  if (keys.Real("partial_rotary_factor", 1.0) != 1.0) {
    keys.Refuse("partial_rotary_factor", "only 1 is supported");
  }
  ReadRope(keys, &model);
  model.tie_embeddings = keys.Flag("tie_word_embeddings", false);
  const double dropout = keys.Real("attention_dropout", 0.0);
  if (dropout != 0) {
    config->notices.push_back(
        absl::StrCat("\"attention_dropout\": ", dropout,
                     " is left out: attention's weights have no dropout here"));
  }
}

OrderedJson Gpt2Json(const ModelConfig& model) {
  return {{"activation_function", "gelu_new"},
          {"n_layer", model.layers},
          {"n_embd", model.width},
          {"n_head", model.heads},
          {"n_inner", model.mlp_hidden()},
          {"n_positions", model.context},
          {"n_ctx", model.context},
          {"layer_norm_epsilon", model.norm_epsilon},
          {"resid_pdrop", model.dropout},
          {"embd_pdrop", model.dropout},
          {"attn_pdrop", 0.0},
          {"scale_attn_weights", true},
          {"scale_attn_by_inverse_layer_idx", false},
          {"reorder_and_upcast_attn", false}};
}

OrderedJson LlamaJson(const ModelConfig& model) {
  return {{"hidden_act", "silu"},
          {"num_hidden_layers", model.layers},
          {"hidden_size", model.width},
          {"num_attention_heads", model.heads},
          {"num_key_value_heads", model.key_value_heads()},
          {"head_dim", model.head_width()},
          {"intermediate_size", model.mlp_hidden()},
          {"max_position_embeddings", model.context},
          {"rms_norm_eps", model.norm_epsilon},
          {"rope_theta", model.rope_theta},
          {"rope_scaling", nullptr},
          {"attention_bias", model.bias},
          {"mlp_bias", model.bias},
          {"attention_dropout", 0.0},
          {"pretraining_tp", 1}};
}

}  // namespace

std::string PrintHuggingFaceConfig(const ModelConfig& model, HuggingFaceKind kind,
                                   const HuggingFaceEnds& ends) {
  const bool gpt2 = kind == HuggingFaceKind::kGpt2;
  OrderedJson json;
  json["architectures"] = OrderedJson::array({ArchitectureOf(kind)});
  json["model_type"] = gpt2 ? "gpt2" : "llama";
  json.update(gpt2 ? Gpt2Json(model) : LlamaJson(model));
  json["vocab_size"] = model.vocabulary;
  json["bos_token_id"] = OrNull(ends.begin);
  json["eos_token_id"] = OrNull(ends.end);
  json["initializer_range"] = 0.02;
  json["tie_word_embeddings"] = model.tie_embeddings;
  json["torch_dtype"] = "float32";
  json["use_cache"] = true;
  return json.dump(2) + "\n";
}

std::string PrintGenerationConfig(const HuggingFaceEnds& ends) {
  OrderedJson json;
  json["_from_model_config"] = true;
  if (ends.begin) json["bos_token_id"] = *ends.begin;
  if (ends.end) json["eos_token_id"] = *ends.end;
  return json.dump(2) + "\n";
}

absl::StatusOr<HuggingFaceConfig> ParseHuggingFaceConfig(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::DataLossError("it is no JSON, or cut off");
  if (!json.is_object()) return absl::DataLossError("it is no JSON object");
  Keys keys(json);
  HuggingFaceConfig config;
  STARLING_ASSIGN_OR_RETURN(config.kind, KindOf(keys));
  config.kind == HuggingFaceKind::kGpt2 ? ReadGpt2(keys, &config) : ReadLlama(keys, &config);
  STARLING_RETURN_IF_ERROR(keys.status());
  return config;
}

}  // namespace starling
