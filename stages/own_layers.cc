#include "stages/own_layers.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/base/check.h"
#include "runtime/base/hash.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

bool IsName(const std::string& text) {
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0])) != 0) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  });
}

std::string Trimmed(const std::string& text) {
  const auto kept = absl::StripAsciiWhitespace(text);
  return std::string(kept.data(), kept.size());
}

}  // namespace

bool IsLayerCall(const std::string& entry) {
  const size_t open = entry.find('(');
  return open != std::string::npos && entry.back() == ')' && IsName(entry.substr(0, open));
}

absl::StatusOr<LayerCall> ParseLayerCall(const std::string& entry) {
  const auto wrong = [&entry](const std::string& why) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.layers: ", entry, ": ", why, "; write name(key=value, ...)"));
  };
  if (!IsLayerCall(entry)) return wrong("is not a linked layer");
  const size_t open = entry.find('(');
  LayerCall call;
  call.name = entry.substr(0, open);
  const std::string inside = Trimmed(entry.substr(open + 1, entry.size() - open - 2));
  if (inside.empty()) return call;
  const std::vector<std::string> items = absl::StrSplit(inside, ',');
  for (const std::string& item : items) {
    const size_t equals = item.find('=');
    if (equals == std::string::npos) return wrong(absl::StrCat("\"", item, "\" has no value"));
    const std::string key = Trimmed(item.substr(0, equals));
    const std::string value = Trimmed(item.substr(equals + 1));
    if (!IsName(key)) return wrong(absl::StrCat("\"", key, "\" is not a key"));
    if (value.empty()) return wrong(absl::StrCat(key, " has no value"));
    if (!call.arguments.emplace(key, value).second)
      return wrong(absl::StrCat(key, " stands twice"));
  }
  return call;
}

std::string LayerName(const std::string& entry) {
  return IsLayerCall(entry) ? entry : entry.substr(entry.rfind('/') + 1);
}

std::string LayerSource::Where() const {
  return absl::StrCat("model.layers: layer ", number, " (", path.empty() ? name : path, ")");
}

absl::StatusOr<std::vector<LayerSource>> ReadLayerSources(Disk& disk, const std::string& folder,
                                                          const ModelConfig& model,
                                                          LayerRange range) {
  std::vector<LayerSource> sources;
  for (int64_t number = range.begin; number < range.end; ++number) {
    LayerSource source;
    source.number = number;
    source.name = model.own_layers[static_cast<size_t>(number)];
    if (!IsLayerCall(source.name)) {
      source.path = source.name[0] == '/' ? source.name : absl::StrCat(folder, "/", source.name);
      absl::StatusOr<std::string> bytes = disk.Read(source.path);
      if (!bytes.ok()) {
        return absl::Status(bytes.status().code(), absl::StrCat("model.layers: layer ", number,
                                                                ": ", bytes.status().message()));
      }
      source.bytes = Blob::OfString(*bytes);
      source.sha256 = Sha256Hex(source.bytes.data(), source.bytes.size_bytes());
      const std::string& wanted =
          model.own_sha256.empty() ? source.sha256 : model.own_sha256[static_cast<size_t>(number)];
      if (source.sha256 != wanted) {
        return absl::FailedPreconditionError(
            absl::StrCat(source.Where(), ": is not the file of this run: its SHA-256 begins ",
                         source.sha256.substr(0, 12), ", the run's ", wanted.substr(0, 12),
                         "; put the file there that the run was started with"));
      }
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

std::string ToString(const RowShape& shape) {
  return absl::StrCat(ToString(shape.dtype), " [n", shape.dims.empty() ? "" : ", ",
                      absl::StrJoin(shape.dims, ", "), "]");
}

StageLayout OwnStageLayout(const std::vector<OwnLayer>& layers, LayerRange range) {
  STARLING_CHECK_LE(range.end, static_cast<int64_t>(layers.size()));
  std::vector<TensorSpec> tensors;
  for (int64_t number = range.begin; number < range.end; ++number) {
    const OwnLayer& layer = layers[static_cast<size_t>(number)];
    tensors.insert(tensors.end(), layer.tensors.begin(), layer.tensors.end());
  }
  return MakeLayout(std::move(tensors));
}

Blob OwnInitialState(const std::vector<OwnLayer>& layers, const StageLayout& layout) {
  std::map<std::string, const Blob*> values;
  for (const OwnLayer& layer : layers) {
    for (size_t i = 0; i < layer.tensors.size(); ++i) {
      values[layer.tensors[i].name] = &layer.values[i];
    }
  }
  MutableBlob state = MutableBlob::Zeros(DType::kF32, {kStatePlanes * layout.size});
  for (const TensorSpec& spec : layout.tensors) {
    const auto found = values.find(spec.name);
    STARLING_CHECK(found != values.end());
    STARLING_CHECK_EQ(found->second->element_count(), spec.count);
    std::memcpy(state.As<float>().data() + spec.offset, found->second->data(),
                static_cast<size_t>(spec.count) * sizeof(float));
  }
  return std::move(state).Freeze();
}

TensorSpec OwnTensor(int64_t number, const std::string& name, std::vector<int64_t> shape) {
  TensorSpec spec;
  spec.name = absl::StrCat("layers.", number, ".", name);
  spec.decay = shape.size() >= 2;
  spec.shape = std::move(shape);
  return spec;
}

std::string LinkedLayerSha256(const std::string& entry, const std::vector<TensorSpec>& tensors) {
  std::string text = entry;
  for (const TensorSpec& spec : tensors) {
    absl::StrAppend(&text, "\n", spec.name, " [", absl::StrJoin(spec.shape, ", "), "]");
  }
  return Sha256Hex(text.data(), text.size());
}

absl::Status CheckOwnModel(const std::vector<OwnLayer>& layers,
                           const std::vector<LayerRange>& stages,
                           const std::vector<int64_t>& target_dims) {
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const LayerRange range = stages[stage];
    if (OwnStageLayout(layers, range).size > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "model.layers: none of the layers ", range.begin, " to ", range.end - 1, ", stage ", stage,
        ", has parameters: cut the model so that every stage has some (swarm.cuts)"));
  }
  const RowShape& output = layers.back().output;
  if (!output.dims.empty() && output.dims.back() > 0 &&
      std::vector<int64_t>(output.dims.begin(), output.dims.end() - 1) == target_dims) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "model.layers: the last layer (", layers.back().name, ") gives ", ToString(output),
      ", but targets of shape [n", target_dims.empty() ? "" : ", ",
      absl::StrJoin(target_dims, ", "), "] need one number more for each class: [n",
      target_dims.empty() ? "" : ", ", absl::StrJoin(target_dims, ", "), ", classes]"));
}

}  // namespace starling
