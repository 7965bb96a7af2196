// What the sections of `starling-bench` share: what was asked for, how a section answers, clocks
// and medians. Each section prints its table and gives the same as JSON.
#ifndef STARLING_BENCH_BENCH_H_
#define STARLING_BENCH_BENCH_H_

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace starling::bench {

struct BenchOptions {
  bool short_form = false;  // fewer rounds and smaller sizes: shows that it works, not how fast
  int rounds = 0;           // of everything that is taken in turn; 0: the section's own
  std::string program;      // the `starling` command

  // Of the training section.
  std::vector<std::string> shapes = {"2x1", "4x1", "2x2", "3x2"};  // STAGESxREPLICAS
  std::vector<std::string> peers;                                  // NAME=COMMAND
  std::vector<std::string> overrides;                              // "section.key=value"
};

using Section = std::function<absl::StatusOr<nlohmann::json>(const BenchOptions&)>;

// Codecs against memcpy.
absl::StatusOr<nlohmann::json> RunCodecs(const BenchOptions& options);
// Packets over our transport against a plain socket program.
absl::StatusOr<nlohmann::json> RunTransfer(const BenchOptions& options);
// Half of a round trip of a message with 2 KiB of tensor, both ways through ZmqTransport over TCP
// between two threads; microseconds, median.
double SmallPacketUs(int trips);
// From one replica's device to the next one's, with nothing to compute.
absl::StatusOr<nlohmann::json> RunHops(const BenchOptions& options);
// From the seal of a step to the end of its update, in a stage of two replicas.
absl::StatusOr<nlohmann::json> RunCommit(const BenchOptions& options);
// Swarms of several shapes against one process, and against other programs.
absl::StatusOr<nlohmann::json> RunTraining(const BenchOptions& options);

using Clock = std::chrono::steady_clock;

inline double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// The upper median; 0 of none.
double Median(std::vector<double> values);
// Share `p` of the values are at most this; 0 of none.
double Quantile(std::vector<double> values, double p);
// Prints how far the control, which is the baseline once more, was from it (0.05: 5 %), and whether
// the machine was quiet enough to tell such differences. Gives the latter.
bool ShowControl(double spread);

// Runs `work` on two threads at once and gives the seconds until both are done.
double OnTwoThreads(const std::function<void(int)>& work);

// `bytes` through a plain stream socket on this machine, by a thread that writes a buffer of
// `message_bytes` again and again, to one that reads into a buffer that it reuses. Seconds from the
// first write to the last byte read; connecting is not counted.
enum class Wire { kTcp, kIpc };
double PlainTransferSeconds(Wire wire, size_t message_bytes, size_t messages);

// Two connected ends of a TCP connection over loopback, without delay for small writes.
void ConnectTcp(int ends[2]);

}  // namespace starling::bench

#endif  // STARLING_BENCH_BENCH_H_
