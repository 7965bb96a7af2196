// The seams of a process: what its trainer or replica talks to passes through here when it is made.
//
// In the programs that people use these give back what they are given. The pair in build/faults is
// linked with tests/cluster/fault_seams.cc instead, which wraps it and kills the process at the
// point that a test names: the protocol's code knows nothing of it.
#ifndef STARLING_RUNTIME_APP_SEAMS_H_
#define STARLING_RUNTIME_APP_SEAMS_H_

#include <memory>

#include "runtime/base/ids.h"
#include "runtime/env/compute.h"
#include "runtime/env/file_system.h"
#include "runtime/env/transport.h"

namespace starling {

std::unique_ptr<Transport> TrainerTransport(std::unique_ptr<Transport> transport);
// What the trainer's file thread writes to.
std::unique_ptr<Disk> TrainerDisk(std::unique_ptr<Disk> disk);

std::unique_ptr<Transport> ReplicaTransport(std::unique_ptr<Transport> transport);
std::unique_ptr<Compute> ReplicaCompute(std::unique_ptr<Compute> compute, StageId stage);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_SEAMS_H_
