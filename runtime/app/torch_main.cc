// `starling-torch`: what `starling` becomes for the commands that compute.
#include "runtime/app/commands.h"

int main(int argc, char** argv) {
  starling::TorchCommands torch;
  torch.stage = starling::ServeStage;
  torch.generate = starling::Generate;
  torch.doctor = starling::Doctor;
  torch.single_process = starling::RunSingleProcess;
  return starling::RunCommandLine(argc, argv, &torch);
}
