// Codecs against memcpy: one core, in bytes of fp32 per second of CPU time, and as a share of what
// memcpy makes of the same bytes. All take turns in every round, memcpy at its beginning and once
// more, as a control, at its end; the medians count.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/bench.h"
#include "codec/codec.h"
#include "codec/kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"

namespace starling::bench {
namespace {

constexpr size_t kSizes[] = {size_t{256} << 10, size_t{1} << 20, size_t{64} << 20};
constexpr double kInt8Goal = 0.6;
constexpr double kInt4Goal = 0.45;

// What everything of one size works on.
struct Buffers {
  explicit Buffers(size_t bytes)
      : values(MutableBlob::Uninitialized(DType::kF32, {static_cast<int64_t>(bytes / 4)})),
        encoded(MutableBlob::Zeros(DType::kU8, {static_cast<int64_t>(bytes)})),
        decoded(MutableBlob::Zeros(DType::kF32, {static_cast<int64_t>(bytes / 4)})) {
    Rng rng(1);
    for (float& value : values.As<float>()) value = static_cast<float>(rng.Unit() - 0.5);
  }

  MutableBlob values;
  MutableBlob encoded;
  MutableBlob decoded;
};

using Work = std::function<void(Buffers*)>;

struct Way {
  std::string name;
  double goal;   // of memcpy; 0: none
  Work prepare;  // not timed
  Work work;
};

void Copy(Buffers* b) { std::memcpy(b->decoded.data(), b->values.data(), b->values.size_bytes()); }

void AddCodec(const std::string& name, const Coding& coding, double goal, std::vector<Way>* ways) {
  const Work encode = [coding](Buffers* b) {
    Encode(coding, b->values.As<float>(), b->encoded.data());
  };
  const Work decode = [coding](Buffers* b) {
    const size_t size = EncodedBytes(coding.encoding, b->decoded.As<float>().size());
    STARLING_CHECK(
        Decode(coding.encoding, b->encoded.data(), size, 0, b->decoded.As<float>()).ok());
  };
  ways->push_back({name + " encode", goal, encode, encode});
  if (coding.rounding == Rounding::kNearest) {
    ways->push_back({name + " decode", goal, encode, decode});
  }
}

// Encoding with vector loops that this machine has better ones than, as others have no better.
void AddOtherLoops(std::vector<Way>* ways) {
  static constexpr uint64_t kKey = 1;
  for (const codec::Kernels* loops : codec::AllKernels()) {
    if (loops == &codec::BestKernels() || loops == &codec::PlainKernels()) continue;
    for (const uint64_t* key : {static_cast<const uint64_t*>(nullptr), &kKey}) {
      const auto add = [&](const char* codec, auto encode) {
        const Work work = [encode, key](Buffers* b) {
          const absl::Span<const float> values = b->values.As<float>();
          encode(values.data(), values.size(), key, b->encoded.data());
        };
        ways->push_back({absl::StrCat(codec, key ? " st. " : " ", loops->name), 0, work, work});
      };
      add("int8", loops->encode_int8);
      add("int4", loops->encode_int4);
    }
  }
}

// The first is what the others are compared with, the last its control.
std::vector<Way> Ways() {
  std::vector<Way> ways = {{"memcpy", 0, Copy, Copy}};
  AddCodec("fp16", {Encoding::kF16}, 0, &ways);
  AddCodec("bf16", {Encoding::kBF16}, 0, &ways);
  AddCodec("int8", {Encoding::kInt8}, kInt8Goal, &ways);
  AddCodec("int4", {Encoding::kInt4}, kInt4Goal, &ways);
  AddCodec("int8 stochastic", {Encoding::kInt8, Rounding::kStochastic, 1}, kInt8Goal, &ways);
  AddCodec("int4 stochastic", {Encoding::kInt4, Rounding::kStochastic, 1}, kInt4Goal, &ways);
  AddOtherLoops(&ways);
  ways.push_back({"memcpy once more", 0, Copy, Copy});
  return ways;
}

double ThreadCpuSeconds() {
  timespec now{};
  STARLING_CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Of one of as many calls as take `at_least_s` together.
double CpuSecondsOfOne(const Way& way, double at_least_s, Buffers* buffers) {
  way.prepare(buffers);
  for (int calls = 1;; calls *= 2) {
    const double begin = ThreadCpuSeconds();
    for (int i = 0; i < calls; ++i) way.work(buffers);
    const double all = ThreadCpuSeconds() - begin;
    if (all >= at_least_s) return all / calls;
  }
}

// GB/s of each of `ways`, by round.
std::vector<std::vector<double>> Rates(const std::vector<Way>& ways, size_t bytes, int rounds,
                                       double at_least_s) {
  Buffers buffers(bytes);
  std::vector<std::vector<double>> rates(ways.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < ways.size(); ++i) {
      const double seconds = CpuSecondsOfOne(ways[i], at_least_s, &buffers);
      rates[i].push_back(static_cast<double>(bytes) / 1e9 / seconds);
    }
  }
  return rates;
}

std::string SizeName(size_t bytes) {
  return bytes < (size_t{1} << 20) ? absl::StrCat(bytes >> 10, " KiB")
                                   : absl::StrCat(bytes >> 20, " MiB");
}

}  // namespace

absl::StatusOr<nlohmann::json> RunCodecs(const BenchOptions& options) {
  const int rounds = options.rounds > 0 ? options.rounds : options.short_form ? 1 : 7;
  const std::vector<Way> ways = Ways();
  std::printf(
      "\nCodecs, GB/s of fp32 on one core, median of %d rounds in turn (of memcpy); %s loops\n",
      rounds, codec::BestKernels().name);
  std::vector<std::string> lines;
  for (const Way& way : ways) lines.push_back(absl::StrFormat("%-22s", way.name));
  std::string head(22, ' ');
  std::string missed;
  double spread = 0;
  nlohmann::json rows = nlohmann::json::array();
  for (const size_t bytes : kSizes) {
    absl::StrAppendFormat(&head, " %15s", SizeName(bytes));
    const auto rates = Rates(ways, bytes, rounds, options.short_form ? 0.002 : 0.03);
    const double copy = Median(rates.front());
    for (size_t i = 0; i < ways.size(); ++i) {
      const double share = Median(rates[i]) / copy;
      absl::StrAppendFormat(&lines[i], " %8.2f (%.2f)", share * copy, share);
      rows.push_back(
          {{"what", ways[i].name}, {"bytes", bytes}, {"gb_s", rates[i]}, {"of_memcpy", share}});
      if (ways[i].goal == 0) continue;
      rows.back()["goal"] = ways[i].goal;
      if (share < ways[i].goal) {
        absl::StrAppend(&missed, missed.empty() ? "" : ", ", ways[i].name, " of ", SizeName(bytes));
      }
    }
    spread = std::max(spread, std::abs(Median(rates.back()) / copy - 1));
  }
  std::printf("%s\n", head.c_str());
  for (const std::string& line : lines) std::printf("%s\n", line.c_str());
  std::printf("goal: at least %.2f with 8 bits, %.2f with 4; %s%s\n", kInt8Goal, kInt4Goal,
              missed.empty() ? "met" : "missed by ", missed.c_str());
  return nlohmann::json{{"loops", codec::BestKernels().name},
                        {"rows", rows},
                        {"control_spread", spread},
                        {"trusted", ShowControl(spread)}};
}

}  // namespace starling::bench
