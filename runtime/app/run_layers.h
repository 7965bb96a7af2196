// A run's layers of the user's own: found and looked at when the run is planned, kept in the folder
// `layers` of its directory, found there again by `resume` and by its local replicas.
//
// A run file names files, from its own folder; from then on the run's configuration has the bare
// names of the files and their SHA-256, which is all that other peers are told.
#ifndef STARLING_RUNTIME_APP_RUN_LAYERS_H_
#define STARLING_RUNTIME_APP_RUN_LAYERS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/config/run_config.h"
#include "runtime/data/sample_feed.h"
#include "runtime/env/file_system.h"
#include "stages/own_layers.h"

namespace starling {

// ProbeOwnLayers (stages/torch_own_layers.h) with what is linked in. Null without LibTorch.
using ProbeLayers = std::function<absl::StatusOr<std::vector<OwnLayer>>(
    const std::vector<LayerSource>& sources, const RowShape& input, uint64_t seed)>;

struct RunLayers {
  std::vector<LayerSource> sources;
  std::vector<OwnLayer> layers;
};

// Reads and probes the layers of `config`, whose files are in `folder`, for `samples`, or for
// tokens where that is null. Puts names and sums into the configuration, and how many targets a
// sample has. Errors as ReadLayerSources and ProbeOwnLayers; also invalid argument = the layers do
// not fit the stages, the targets or each other's names; failed precondition = no LibTorch, or a
// linked layer is not the run's.
absl::StatusOr<RunLayers> OpenRunLayers(Disk& disk, const std::string& folder,
                                        const ProbeLayers& probe, const Samples* samples,
                                        RunConfig* config);

// Copies the files into RUN_DIRECTORY/layers.
absl::Status KeepRunLayers(Disk& disk, const std::string& run_directory, const RunLayers& layers);

// The layers that a replica of layers [range.begin, range.end) hosts, from its own folder. Only
// files whose sums the run's configuration has. `all`: look at the others' files too.
//   failed precondition: `folder` is empty, or a file is not the run's; others as ReadLayerSources.
absl::StatusOr<std::vector<LayerSource>> ReadHostedLayers(Disk& disk, const std::string& folder,
                                                          const ModelConfig& model,
                                                          LayerRange range, bool all);

// "RUN/layers".
std::string LayersFolder(const std::string& run_directory);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_RUN_LAYERS_H_
