#include "runtime/app/run_layers.h"

#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

// Files of different folders may not have one name: they are kept in one.
absl::Status TakeNames(const std::vector<LayerSource>& sources, ModelConfig* model) {
  std::map<std::string, std::string> sums;
  for (size_t i = 0; i < sources.size(); ++i) {
    std::string name = LayerName(sources[i].name);
    const auto [known, added] = sums.emplace(name, sources[i].sha256);
    if (!added && known->second != sources[i].sha256) {
      return absl::InvalidArgumentError(absl::StrCat(
          sources[i].Where(), ": another file is called ", name, " too; rename one of them"));
    }
    model->own_layers[i] = std::move(name);
  }
  return absl::OkStatus();
}

absl::Status TakeSums(const std::vector<OwnLayer>& layers, ModelConfig* model) {
  if (model->own_sha256.empty()) {
    for (const OwnLayer& layer : layers) model->own_sha256.push_back(layer.sha256);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].sha256 == model->own_sha256[i]) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("model.layers: layer ", i, " (", layers[i].name,
                     "): the one linked into this program has other parameters than the run's"));
  }
  return absl::OkStatus();
}

absl::Status CheckVocabulary(const RowShape& output, int64_t vocabulary) {
  if (output.dims.back() >= vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("model.layers: the last layer gives ", output.dims.back(),
                   " classes, fewer than model.vocabulary = ", vocabulary));
}

}  // namespace

absl::StatusOr<RunLayers> OpenRunLayers(Disk& disk, const std::string& folder,
                                        const ProbeLayers& probe, const Samples* samples,
                                        RunConfig* config) {
  if (probe == nullptr) {
    return absl::FailedPreconditionError(
        "model.layers: layers of your own are read by starling-torch, beside starling");
  }
  ModelConfig& model = config->model;
  RunLayers opened;
  STARLING_ASSIGN_OR_RETURN(opened.sources,
                            ReadLayerSources(disk, folder, model, LayerRange{0, model.layers}));
  STARLING_RETURN_IF_ERROR(TakeNames(opened.sources, &model));
  if (samples != nullptr) model.context = samples->targets_per_sample();
  const RowShape input = samples != nullptr
                             ? RowShape{samples->input_type(), samples->input_shape()}
                             : RowShape{DType::kI32, {model.context}};
  STARLING_ASSIGN_OR_RETURN(opened.layers, probe(opened.sources, input, config->train.seed));
  STARLING_RETURN_IF_ERROR(TakeSums(opened.layers, &model));
  const std::vector<int64_t> targets =
      samples != nullptr ? samples->target_shape() : std::vector<int64_t>{model.context};
  STARLING_RETURN_IF_ERROR(CheckOwnModel(opened.layers, StageRanges(*config), targets));
  const RowShape& output = opened.layers.back().output;
  STARLING_RETURN_IF_ERROR(samples != nullptr ? samples->CheckTargets(output.dims.back())
                                              : CheckVocabulary(output, model.vocabulary));
  return opened;
}

absl::Status KeepRunLayers(Disk& disk, const std::string& run_directory, const RunLayers& layers) {
  if (layers.sources.empty()) return absl::OkStatus();
  const std::string folder = LayersFolder(run_directory);
  STARLING_RETURN_IF_ERROR(disk.MakeDirectories(folder));
  std::set<std::string> written;
  for (const LayerSource& source : layers.sources) {
    const std::string name = LayerName(source.name);
    if (source.path.empty() || !written.insert(name).second) continue;
    STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file,
                              disk.Create(absl::StrCat(folder, "/", name)));
    STARLING_RETURN_IF_ERROR(file->Append(source.bytes.data(), source.bytes.size_bytes()));
    STARLING_RETURN_IF_ERROR(file->Sync());
  }
  STARLING_RETURN_IF_ERROR(disk.SyncDirectory(folder));
  return disk.SyncDirectory(run_directory);
}

absl::StatusOr<std::vector<LayerSource>> ReadHostedLayers(Disk& disk, const std::string& folder,
                                                          const ModelConfig& model,
                                                          LayerRange range, bool all) {
  bool files = false;
  for (const std::string& name : model.own_layers) {
    files = files || !IsLayerCall(name);
    // The name came from the trainer.
    if (LayerName(name) != name || name == "." || name == "..") {
      return absl::FailedPreconditionError(
          absl::StrCat("model.layers: the trainer names ", name, ", which is no file's bare name"));
    }
  }
  if (model.own_sha256.empty()) {
    return absl::FailedPreconditionError("model.layers: the trainer does not say which files");
  }
  if (files && folder.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this run has layers of its owner's own (", model.own_layers.front(),
                     ", ...): name the folder of your own copies with --layers-dir"));
  }
  if (!all) return ReadLayerSources(disk, folder, model, range);
  STARLING_ASSIGN_OR_RETURN(const std::vector<LayerSource> everything,
                            ReadLayerSources(disk, folder, model, LayerRange{0, model.layers}));
  return std::vector<LayerSource>(everything.begin() + range.begin, everything.begin() + range.end);
}

std::string LayersFolder(const std::string& run_directory) {
  return absl::StrCat(run_directory, "/layers");
}

}  // namespace starling
