// How many threads a process computes with where nobody says.
#ifndef STARLING_RUNTIME_APP_THREADS_H_
#define STARLING_RUNTIME_APP_THREADS_H_

#include <cstdint>

#include "runtime/config/run_config.h"

namespace starling {

// Cores this process may run on, at least 1.
int Cores();

// As many threads as are asked for, or all cores where that is 0.
int GivenOrAllCores(int64_t given);

// What a process that does not know of others on its machine takes: half of the cores.
int HalfOfTheCores();

// Of a local replica: as configured, else its share of the cores.
int ThreadsOfReplica(const RunConfig& config, uint32_t stage);

// Of --single-process: as configured (for stage 0), else all cores.
int ThreadsOfOneProcess(const LocalConfig& local);

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_THREADS_H_
