#include "interop/huggingface_layout.h"

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/check.h"
#include "stages/model_layout.h"

namespace starling {
namespace {

class TensorList {
 public:
  explicit TensorList(const ModelConfig& model) {
    for (TensorSpec& spec : WholeModelLayout(model).tensors) {
      shapes_[spec.name] = std::move(spec.shape);
    }
  }

  // Their `name` of our `parts`, one below the other.
  void Add(const std::string& name, const std::vector<std::string>& parts, bool transposed) {
    HuggingFaceTensor tensor;
    tensor.name = name;
    tensor.transposed = transposed;
    for (const std::string& part : parts) {
      const std::vector<int64_t>& shape = shapes_.at(part);
      const int64_t first_row = tensor.shape.empty() ? 0 : tensor.shape[0];
      tensor.parts.push_back({part, shape, first_row});
      tensor.shape = shape;
      tensor.shape[0] += first_row;
    }
    if (transposed) std::swap(tensor.shape[0], tensor.shape[1]);
    tensors_.push_back(std::move(tensor));
  }

  // A weight, and the bias where we have one.
  void AddPair(const std::string& name, const std::vector<std::string>& parts, bool transposed) {
    const auto with = [&parts](const char* ending) {
      std::vector<std::string> names;
      for (const std::string& part : parts) names.push_back(part + ending);
      return names;
    };
    Add(name + ".weight", with(".weight"), transposed);
    if (shapes_.count(parts[0] + ".bias") > 0) Add(name + ".bias", with(".bias"), false);
  }

  std::vector<HuggingFaceTensor> Finish() {
    size_t parts = 0;
    for (const HuggingFaceTensor& tensor : tensors_) parts += tensor.parts.size();
    STARLING_CHECK_EQ(parts, shapes_.size());
    return std::move(tensors_);
  }

 private:
  std::map<std::string, std::vector<int64_t>> shapes_;  // of ours
  std::vector<HuggingFaceTensor> tensors_;
};

std::vector<HuggingFaceTensor> Gpt2Tensors(const ModelConfig& model) {
  TensorList list(model);
  const std::string root = kGpt2Prefix;
  list.Add(root + "wte.weight", {"embed.weight"}, false);
  list.Add(root + "wpe.weight", {"position.weight"}, false);
  for (int64_t i = 0; i < model.layers; ++i) {
    const std::string theirs = absl::StrCat(root, "h.", i, ".");
    const std::string ours = absl::StrCat("layers.", i, ".");
    list.AddPair(theirs + "ln_1", {ours + "norm1"}, false);
    list.AddPair(theirs + "attn.c_attn",
                 {ours + "attention.q", ours + "attention.k", ours + "attention.v"}, true);
    list.AddPair(theirs + "attn.c_proj", {ours + "attention.o"}, true);
    list.AddPair(theirs + "ln_2", {ours + "norm2"}, false);
    list.AddPair(theirs + "mlp.c_fc", {ours + "mlp.up"}, true);
    list.AddPair(theirs + "mlp.c_proj", {ours + "mlp.down"}, true);
  }
  list.AddPair(root + "ln_f", {"norm"}, false);
  if (!model.tie_embeddings) list.Add("lm_head.weight", {"head.weight"}, false);
  return list.Finish();
}

std::vector<HuggingFaceTensor> LlamaTensors(const ModelConfig& model) {
  TensorList list(model);
  list.Add("model.embed_tokens.weight", {"embed.weight"}, false);
  for (int64_t i = 0; i < model.layers; ++i) {
    const std::string theirs = absl::StrCat("model.layers.", i, ".");
    const std::string ours = absl::StrCat("layers.", i, ".");
    list.AddPair(theirs + "input_layernorm", {ours + "norm1"}, false);
    for (const char* which : {"q", "k", "v", "o"}) {
      list.AddPair(absl::StrCat(theirs, "self_attn.", which, "_proj"),
                   {absl::StrCat(ours, "attention.", which)}, false);
    }
    list.AddPair(theirs + "post_attention_layernorm", {ours + "norm2"}, false);
    for (const char* which : {"gate", "up", "down"}) {
      list.AddPair(absl::StrCat(theirs, "mlp.", which, "_proj"),
                   {absl::StrCat(ours, "mlp.", which)}, false);
    }
  }
  list.AddPair("model.norm", {"norm"}, false);
  if (!model.tie_embeddings) list.Add("lm_head.weight", {"head.weight"}, false);
  return list.Finish();
}

absl::Status Unfit(const std::string& setting, const std::string& why) {
  return absl::FailedPreconditionError(
      absl::StrCat(setting, " fits neither of Hugging Face's GPT-2 and Llama: ", why));
}

}  // namespace

const char kGpt2Prefix[] = "transformer.";

const char* ArchitectureOf(HuggingFaceKind kind) {
  return kind == HuggingFaceKind::kGpt2 ? "GPT2LMHeadModel" : "LlamaForCausalLM";
}

absl::StatusOr<HuggingFaceKind> HuggingFaceKindOf(const ModelConfig& model) {
  // The norm decides which of the two it would be.
  if (model.norm == NormKind::kRmsNorm) {
    if (model.mlp != MlpKind::kSwiGlu) {
      return Unfit("model.mlp = \"gelu\"", "beside model.norm = \"rmsnorm\", Llama has \"swiglu\"");
    }
    if (model.position != PositionKind::kRope) {
      return Unfit("model.position = \"learned\"",
                   "beside model.norm = \"rmsnorm\", Llama has \"rope\"");
    }
    return HuggingFaceKind::kLlama;
  }
  if (model.mlp != MlpKind::kGelu) {
    return Unfit("model.mlp = \"swiglu\"", "beside model.norm = \"layernorm\", GPT-2 has \"gelu\"");
  }
  if (model.position != PositionKind::kLearned) {
    return Unfit("model.position = \"rope\"",
                 "beside model.norm = \"layernorm\", GPT-2 has \"learned\"");
  }
  if (!model.bias) {
    return Unfit("model.bias = false", "beside model.norm = \"layernorm\", GPT-2 has biases");
  }
  if (model.key_value_heads() != model.heads) {
    return Unfit(absl::StrCat("model.kv_heads = ", model.kv_heads),
                 absl::StrCat("beside model.norm = \"layernorm\", GPT-2 has as many as heads, ",
                              model.heads));
  }
  return HuggingFaceKind::kGpt2;
}

std::vector<HuggingFaceTensor> HuggingFaceTensors(const ModelConfig& model, HuggingFaceKind kind) {
  return kind == HuggingFaceKind::kGpt2 ? Gpt2Tensors(model) : LlamaTensors(model);
}

bool IsHuggingFaceBuffer(HuggingFaceKind kind, const std::string& name) {
  if (kind == HuggingFaceKind::kLlama) return absl::EndsWith(name, ".rotary_emb.inv_freq");
  return absl::EndsWith(name, ".attn.bias") || absl::EndsWith(name, ".attn.masked_bias");
}

}  // namespace starling
