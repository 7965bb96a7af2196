#include "bench/google_bench.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace starling::bench {
namespace {

// Collects, sorted as registered: rounds taken in turn are told of as they end.
class Collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.report_rms) {
        measured_.off_order[run.run_name.function_name] = run.GetAdjustedCPUTime();
      } else if (run.run_type == Run::RT_Iteration) {
        Add(run);
      }
    }
  }

  Measured Take() {
    for (auto& [place, timed] : timed_) {
      timed.bytes_per_s = Median(rates_[place]);
      measured_.timed.push_back(std::move(timed));
    }
    return std::move(measured_);
  }

 private:
  using Place = std::pair<int64_t, int64_t>;  // of the benchmark, and of its size

  void Add(const Run& run) {
    const Place place = {run.family_index, run.per_family_instance_index};
    Timed& timed = timed_[place];
    timed.name = run.run_name.function_name;
    timed.size = std::atoll(run.run_name.args.c_str());
    timed.cpu_us.push_back(1e6 * run.cpu_accumulated_time / static_cast<double>(run.iterations));
    const auto rate = run.counters.find("bytes_per_second");
    if (rate != run.counters.end()) rates_[place].push_back(rate->second);
  }

  std::map<Place, Timed> timed_;
  std::map<Place, std::vector<double>> rates_;
  Measured measured_;
};

}  // namespace

int RoundsOf(const BenchOptions& options) {
  return options.rounds > 0 ? options.rounds : options.short_form ? 1 : 5;
}

Measured RunRegistered(const BenchOptions& options) {
  std::string flags[] = {"starling-bench",
                         absl::StrCat("--benchmark_repetitions=", RoundsOf(options)),
                         "--benchmark_enable_random_interleaving=true",
                         absl::StrCat("--benchmark_min_time=", options.short_form ? 0.005 : 0.1)};
  std::vector<char*> arguments;
  for (std::string& flag : flags) arguments.push_back(flag.data());
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  Collector collector;
  benchmark::RunSpecifiedBenchmarks(&collector, ".");
  benchmark::ClearRegisteredBenchmarks();
  return collector.Take();
}

}  // namespace starling::bench
