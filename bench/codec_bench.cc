// Codecs against memcpy: one core, in bytes of fp32 per second of CPU time, and as a share of what
// memcpy makes of the same bytes in the same run. Repetitions of all take turns, the medians count.
//
//   build/bin/codec_bench [--benchmark_filter=int8] [--benchmark_repetitions=11] [...]
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "codec/kernels.h"
#include "runtime/base/rng.h"

namespace starling {
namespace {

constexpr size_t kSizes[] = {size_t{256} << 10, size_t{1} << 20, size_t{64} << 20};

// What every benchmark of one size works on.
struct Buffers {
  explicit Buffers(size_t bytes)
      : values(MutableBlob::Uninitialized(DType::kF32, {static_cast<int64_t>(bytes / 4)})),
        encoded(MutableBlob::Uninitialized(DType::kU8, {static_cast<int64_t>(bytes)})),
        decoded(MutableBlob::Zeros(DType::kF32, {static_cast<int64_t>(bytes / 4)})) {
    Rng rng(1);
    for (float& value : values.As<float>()) value = static_cast<float>(rng.Unit() - 0.5);
    std::memset(encoded.data(), 0, encoded.size_bytes());
  }

  MutableBlob values;
  MutableBlob encoded;
  MutableBlob decoded;
};

Buffers& BuffersOf(size_t bytes) {
  static std::map<size_t, Buffers> buffers;
  return buffers.try_emplace(bytes, bytes).first->second;
}

using Work = std::function<void(Buffers*)>;

void Add(const std::string& name, size_t bytes, Work prepare, Work work) {
  const std::string full = name + "/" + std::to_string(bytes >> 10) + "KiB";
  benchmark::RegisterBenchmark(full.c_str(), [=](benchmark::State& state) {
    Buffers& buffers = BuffersOf(bytes);
    if (prepare) prepare(&buffers);
    for (auto _ : state) {
      work(&buffers);
      benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * bytes));
  });
}

void AddCodec(const std::string& name, size_t bytes, const Coding& coding) {
  const Work encode = [coding](Buffers* b) {
    Encode(coding, b->values.As<float>(), b->encoded.data());
  };
  const Work decode = [coding](Buffers* b) {
    const size_t size = EncodedBytes(coding.encoding, b->decoded.As<float>().size());
    Decode(coding.encoding, b->encoded.data(), size, 0, b->decoded.As<float>()).IgnoreError();
  };
  Add(name + " encode", bytes, nullptr, encode);
  if (coding.rounding == Rounding::kNearest) Add(name + " decode", bytes, encode, decode);
}

void AddAll() {
  for (const size_t bytes : kSizes) {
    Add("memcpy", bytes, nullptr,
        [bytes](Buffers* b) { std::memcpy(b->decoded.data(), b->values.data(), bytes); });
    AddCodec("fp16", bytes, {Encoding::kF16});
    AddCodec("bf16", bytes, {Encoding::kBF16});
    AddCodec("int8", bytes, {Encoding::kInt8});
    AddCodec("int4", bytes, {Encoding::kInt4});
    AddCodec("int8 stochastic", bytes, {Encoding::kInt8, Rounding::kStochastic, 1});
    AddCodec("int4 stochastic", bytes, {Encoding::kInt4, Rounding::kStochastic, 1});
  }
}

// Medians as a table, each beside memcpy's of its size.
class Table : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Aggregate || run.aggregate_name != "median") continue;
      medians_.emplace_back(run.run_name.function_name, run.counters.at("bytes_per_second"));
    }
  }

  void Finalize() override {
    std::map<std::string, double> copies;
    const auto size_of = [](const std::string& name) { return name.substr(name.find('/')); };
    for (const auto& [name, rate] : medians_) {
      if (name.rfind("memcpy", 0) == 0) copies[size_of(name)] = rate;
    }
    std::printf("loops: %s\n%-28s %10s %10s\n", codec::BestKernels().name, "", "GB/s", "of memcpy");
    for (const auto& [name, rate] : medians_) {
      const double copy = copies[size_of(name)];
      std::printf("%-28s %10.2f %10.2f\n", name.c_str(), rate / 1e9, copy == 0 ? 0 : rate / copy);
    }
  }

 private:
  std::vector<std::pair<std::string, double>> medians_;
};

int Main(int argc, char** argv) {
  char repetitions[] = "--benchmark_repetitions=11";
  char interleaving[] = "--benchmark_enable_random_interleaving=true";
  char time[] = "--benchmark_min_time=0.1";
  std::vector<char*> arguments = {argv[0], repetitions, interleaving, time};
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  AddAll();
  Table table;
  benchmark::RunSpecifiedBenchmarks(&table);
  return 0;
}

}  // namespace
}  // namespace starling

int main(int argc, char** argv) { return starling::Main(argc, argv); }
