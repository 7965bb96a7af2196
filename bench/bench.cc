#include "bench/bench.h"

#include <algorithm>
#include <cstdio>
#include <thread>
#include <utility>

namespace starling::bench {
namespace {

constexpr double kTrustedSpread = 0.05;

}  // namespace

double OnTwoThreads(const std::function<void(int)>& work) {
  const Clock::time_point begin = Clock::now();
  std::thread other([&work] { work(1); });
  work(0);
  other.join();
  return Seconds(Clock::now() - begin);
}

double Quantile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  const auto place =
      std::min(values.size() - 1, static_cast<size_t>(p * static_cast<double>(values.size())));
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double Median(std::vector<double> values) { return Quantile(std::move(values), 0.5); }

bool ShowControl(double spread) {
  std::printf("control and baseline differ by at most %.1f %%\n", 100 * spread);
  if (spread <= kTrustedSpread) return true;
  std::printf("NOT TO BE TRUSTED: that is above %.0f %%, the machine was not quiet\n",
              100 * kTrustedSpread);
  return false;
}

}  // namespace starling::bench
