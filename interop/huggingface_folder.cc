#include "interop/huggingface_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/check.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/config/run_keys.h"

namespace starling {
namespace {

using Json = nlohmann::json;

constexpr char kConfig[] = "config.json";
constexpr char kModel[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kHead[] = "lm_head.weight";
constexpr char kOurEmbedding[] = "embed.weight";
constexpr char kOurHead[] = "head.weight";
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxIndexBytes = uint64_t{64} << 20;

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

absl::StatusOr<std::string> ReadBounded(Disk& disk, const std::string& path, uint64_t most) {
  STARLING_ASSIGN_OR_RETURN(const uint64_t bytes, disk.FileSize(path));
  if (bytes > most) {
    return absl::DataLossError(absl::StrCat(path, ": ", bytes, " bytes are too many for it"));
  }
  return disk.Read(path);
}

// Ranges and rules are those of a run file's [model].
absl::Status CheckModel(const ModelConfig& model) {
  std::vector<std::string> overrides = ModelOverrides(model);
  overrides.push_back("swarm.stages=1");
  const absl::Status status = ParseRunFile("", kConfig, overrides).status();
  if (status.ok()) return status;
  std::string message(status.message());
  if (absl::StartsWith(message, "--")) message = message.substr(2);
  return absl::InvalidArgumentError(absl::StrCat("as a model here, ", message));
}

bool IsPlainName(const std::string& name) {
  return absl::EndsWith(name, ".safetensors") && name[0] != '.' &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

// Which file each tensor is in.
absl::StatusOr<std::map<std::string, std::string>> ParseIndex(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::DataLossError("it is no JSON, or cut off");
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return absl::DataLossError("it has no object \"weight_map\"");
  }
  std::map<std::string, std::string> file_of;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string() || !IsPlainName(file.get<std::string>())) {
      return absl::DataLossError(
          absl::StrCat(tensor, " is not in a file of the folder that ends in .safetensors"));
    }
    file_of[tensor] = file.get<std::string>();
  }
  return file_of;
}

}  // namespace

std::vector<std::string> ModelOverrides(const ModelConfig& model) {
  RunConfig config;
  config.model = model;
  std::vector<std::string> overrides;
  for (const RunKey& key : RunKeys()) {
    if (key.section != "model" || key.print(config).empty()) continue;
    overrides.push_back(absl::StrCat(key.full_name(), "=", key.print(config)));
  }
  return overrides;
}

absl::StatusOr<HuggingFaceFolder> HuggingFaceFolder::Open(Disk& disk, const std::string& folder) {
  HuggingFaceFolder model(folder);
  STARLING_RETURN_IF_ERROR(model.ReadConfig(disk));
  STARLING_RETURN_IF_ERROR(model.OpenFiles(disk));
  STARLING_RETURN_IF_ERROR(model.FindTensors());
  STARLING_RETURN_IF_ERROR(model.CheckNoOthers());
  return model;
}

absl::Status HuggingFaceFolder::ReadConfig(Disk& disk) {
  if (!disk.Exists(path_)) return absl::NotFoundError(absl::StrCat(path_, " does not exist"));
  const std::string path = absl::StrCat(path_, "/", kConfig);
  if (!disk.Exists(path)) {
    return absl::NotFoundError(
        absl::StrCat(path_, " has no ", kConfig, ": give a folder with a model of Hugging Face"));
  }
  STARLING_ASSIGN_OR_RETURN(const std::string text, ReadBounded(disk, path, kMaxConfigBytes));
  absl::StatusOr<HuggingFaceConfig> config = ParseHuggingFaceConfig(text);
  if (!config.ok()) return InFile(path, config.status());
  config_ = *std::move(config);
  if (auto status = CheckModel(config_.model); !status.ok()) return InFile(path, status);
  return absl::OkStatus();
}

absl::Status HuggingFaceFolder::OpenFiles(Disk& disk) {
  const std::string whole = absl::StrCat(path_, "/", kModel);
  if (disk.Exists(whole)) return files_.Add(disk, whole);
  const std::string index = absl::StrCat(path_, "/", kIndex);
  if (disk.Exists(index)) return OpenIndexed(disk, index);
  return absl::NotFoundError(absl::StrCat(
      path_, " has no ", kModel, " and no ", kIndex,
      disk.Exists(path_ + "/pytorch_model.bin")
          ? "; pytorch_model.bin is not read, since reading it can run code: save it again as "
            "safetensors"
          : ""));
}

absl::Status HuggingFaceFolder::OpenIndexed(Disk& disk, const std::string& index) {
  STARLING_ASSIGN_OR_RETURN(const std::string text, ReadBounded(disk, index, kMaxIndexBytes));
  const absl::StatusOr<std::map<std::string, std::string>> file_of = ParseIndex(text);
  if (!file_of.ok()) return InFile(index, file_of.status());
  std::set<std::string> names;
  for (const auto& [tensor, file] : *file_of) names.insert(file);
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(path_, "/", name);
    if (!disk.Exists(path)) {
      return absl::NotFoundError(absl::StrCat(index, ": there is no ", name));
    }
    STARLING_RETURN_IF_ERROR(files_.Add(disk, path));
  }
  for (const auto& [tensor, file] : *file_of) {
    const TensorFiles::Place* const place = files_.Find(tensor);
    if (place == nullptr || files_.PathOf(*place) != absl::StrCat(path_, "/", file)) {
      return absl::DataLossError(absl::StrCat(index, ": ", tensor, " is not in ", file));
    }
  }
  for (const auto& [tensor, place] : files_.places()) {
    if (file_of->count(tensor) > 0) continue;
    return absl::DataLossError(
        absl::StrCat(files_.PathOf(place), ": ", tensor, " is not in ", kIndex));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> HuggingFaceFolder::FindTensor(const HuggingFaceTensor& wanted) const {
  std::string name = wanted.name;
  if (files_.Find(name) == nullptr && absl::StartsWith(name, kGpt2Prefix)) {
    const std::string without = name.substr(std::string(kGpt2Prefix).size());
    if (files_.Find(without) != nullptr) name = without;
  }
  const TensorFiles::Place* const place = files_.Find(name);
  if (place == nullptr) {
    return absl::DataLossError(
        absl::StrCat(path_, ": there is no tensor ", name, " ", ShapeText(wanted.shape),
                     ", which a ", ArchitectureOf(config_.kind), " of this config.json has"));
  }
  const TensorEntry& entry = place->entry;
  if (entry.shape != wanted.shape) {
    return absl::DataLossError(absl::StrCat(files_.PathOf(*place), ": ", name, " is ",
                                            ShapeText(entry.shape), ", but ",
                                            ShapeText(wanted.shape), " with this config.json"));
  }
  if (!TensorFiles::IsReadable(entry.type)) {
    return absl::InvalidArgumentError(absl::StrCat(files_.PathOf(*place), ": ", name, " is ",
                                                   ToString(entry.type),
                                                   ": only F32, F16 and BF16 are read"));
  }
  return name;
}

absl::Status HuggingFaceFolder::FindTensors() {
  // Before a list is made that is as long as config.json says.
  if (files_.places().size() < static_cast<size_t>(config_.model.layers)) {
    return absl::DataLossError(absl::StrCat(path_, ": ", files_.places().size(),
                                            " tensors are too few for the ", config_.model.layers,
                                            " layers of config.json"));
  }
  std::set<std::string> rounded;
  for (const HuggingFaceTensor& tensor : HuggingFaceTensors(config_.model, config_.kind)) {
    STARLING_ASSIGN_OR_RETURN(const std::string name, FindTensor(tensor));
    const TensorType type = files_.Find(name)->entry.type;
    if (type != TensorType::kF32) rounded.insert(ToString(type));
    for (const HuggingFacePart& part : tensor.parts) {
      origins_[part.name] = {name, tensor.transposed, tensor.shape, part.first_row};
    }
  }
  if (config_.model.tie_embeddings) STARLING_RETURN_IF_ERROR(FindTiedHead());
  if (!rounded.empty()) {
    config_.notices.push_back(
        absl::StrCat("tensors of ", absl::StrJoin(rounded, " and "), " become fp32"));
  }
  return absl::OkStatus();
}

// A run that unties the two begins with a copy.
absl::Status HuggingFaceFolder::FindTiedHead() {
  const Origin embedding = origins_.at(kOurEmbedding);
  origins_[kOurHead] = embedding;
  if (files_.Find(kHead) == nullptr) return absl::OkStatus();
  HuggingFaceTensor head;
  head.name = kHead;
  head.shape = embedding.tensor_shape;
  STARLING_ASSIGN_OR_RETURN(const std::string name, FindTensor(head));
  return CheckHeadIsEmbedding(name, embedding.tensor);
}

// A tied head that is written out all the same.
absl::Status HuggingFaceFolder::CheckHeadIsEmbedding(const std::string& head,
                                                     const std::string& embedding) const {
  if (head == embedding) return absl::OkStatus();
  const int64_t count = ElementCount(files_.Find(head)->entry.shape);
  std::vector<float> left(static_cast<size_t>(std::min(count, kPieceElements)));
  std::vector<float> right(left.size());
  for (int64_t at = 0; at < count; at += kPieceElements) {
    const int64_t piece = std::min(count - at, kPieceElements);
    STARLING_RETURN_IF_ERROR(files_.Read(head, at, piece, left.data()));
    STARLING_RETURN_IF_ERROR(files_.Read(embedding, at, piece, right.data()));
    if (!std::equal(left.begin(), left.begin() + piece, right.begin())) {
      return absl::DataLossError(absl::StrCat(
          path_, ": ", head, " is not ", embedding,
          ", though the two are tied: set \"tie_word_embeddings\": false in config.json to take "
          "both"));
    }
  }
  return absl::OkStatus();
}

absl::Status HuggingFaceFolder::CheckNoOthers() const {
  std::set<std::string> taken = {kHead};
  for (const auto& [name, origin] : origins_) taken.insert(origin.tensor);
  for (const auto& [name, place] : files_.places()) {
    if (taken.count(name) > 0 || IsHuggingFaceBuffer(config_.kind, name)) continue;
    return absl::DataLossError(absl::StrCat(files_.PathOf(place), ": ", name, " ",
                                            ShapeText(place.entry.shape), " has no place in a ",
                                            ArchitectureOf(config_.kind), " of this config.json"));
  }
  return absl::OkStatus();
}

absl::Status HuggingFaceFolder::AppendParameter(const TensorSpec& spec,
                                                const AppendBytes& append) const {
  const Origin& origin = origins_.at(spec.name);
  if (!origin.transposed) {
    const int64_t row = spec.count / spec.shape[0];
    return AppendElements(files_, origin.tensor, origin.first_row * row, spec.count, append);
  }
  const int64_t in = origin.tensor_shape[0];
  const int64_t out = origin.tensor_shape[1];
  std::vector<float> theirs(static_cast<size_t>(in * out));
  STARLING_RETURN_IF_ERROR(files_.Read(origin.tensor, 0, in * out, theirs.data()));
  return AppendTransposed(theirs, in, out, origin.first_row, spec.shape[0], append);
}

absl::Status HuggingFaceFolder::AppendState(const StageLayout& layout,
                                            const AppendBytes& append) const {
  const std::vector<float> zeros(static_cast<size_t>(kPieceElements), 0.0f);
  const auto append_zeros = [&](int64_t count) -> absl::Status {
    for (; count > 0; count -= kPieceElements) {
      const int64_t piece = std::min(count, kPieceElements);
      STARLING_RETURN_IF_ERROR(append(zeros.data(), static_cast<size_t>(piece) * sizeof(float)));
    }
    return absl::OkStatus();
  };
  int64_t position = 0;
  for (const TensorSpec& spec : layout.tensors) {
    STARLING_RETURN_IF_ERROR(append_zeros(spec.offset - position));
    STARLING_RETURN_IF_ERROR(AppendParameter(spec, append));
    position = spec.offset + spec.count;
  }
  return append_zeros(kStatePlanes * layout.size - position);
}

}  // namespace starling
