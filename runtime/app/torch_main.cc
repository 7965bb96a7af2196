// `starling-torch`: what `starling` becomes for the commands that compute.
#include "runtime/app/commands.h"
#include "runtime/app/linked_layers.h"
#include "stages/torch_own_layers.h"

int main(int argc, char** argv) {
  starling::TorchCommands torch;
  torch.stage = starling::ServeStage;
  torch.generate = starling::Generate;
  torch.doctor = starling::Doctor;
  torch.single_process = starling::RunSingleProcess;
  torch.probe_layers = [](const std::vector<starling::LayerSource>& sources,
                          const starling::RowShape& input, uint64_t seed) {
    return starling::ProbeOwnLayers(sources, input, seed, starling::LinkedLayers());
  };
  return starling::RunCommandLine(argc, argv, &torch);
}
