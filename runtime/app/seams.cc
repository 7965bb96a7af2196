#include "runtime/app/seams.h"

namespace starling {

std::unique_ptr<Transport> TrainerTransport(std::unique_ptr<Transport> transport) {
  return transport;
}

std::unique_ptr<Disk> TrainerDisk(std::unique_ptr<Disk> disk) { return disk; }

std::unique_ptr<Transport> ReplicaTransport(std::unique_ptr<Transport> transport) {
  return transport;
}

std::unique_ptr<Compute> ReplicaCompute(std::unique_ptr<Compute> compute, StageId stage) {
  return compute;
}

}  // namespace starling
