// The sections that are Google Benchmarks: they register them, run them here, and print and give
// what was measured. CPU time of one core.
#ifndef STARLING_BENCH_GOOGLE_BENCH_H_
#define STARLING_BENCH_GOOGLE_BENCH_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/bench.h"

namespace starling::bench {

// Pure code that every microbatch or step runs through.
absl::StatusOr<nlohmann::json> RunHot(const BenchOptions& options);
// What a decision of the trainer or the router costs as the swarm grows.
absl::StatusOr<nlohmann::json> RunScale(const BenchOptions& options);

// One benchmark at one size.
struct Timed {
  std::string name;
  int64_t size = 0;            // its first argument; 0: it has none
  std::vector<double> cpu_us;  // of one call, by round
  double bytes_per_s = 0;      // median; 0: it does not say how many bytes it passes over
};

struct Measured {
  std::vector<Timed> timed;  // in the order in which they were registered
  // By name, where Google Benchmark is told an order (Complexity) and sees it at several sizes: the
  // root of the mean square of what the times are off it, over their mean.
  std::map<std::string, double> off_order;
};

int RoundsOf(const BenchOptions& options);  // 5, or 1 in the short form, unless said otherwise

// Runs what is registered, in turn in each round, and forgets it.
Measured RunRegistered(const BenchOptions& options);

}  // namespace starling::bench

#endif  // STARLING_BENCH_GOOGLE_BENCH_H_
