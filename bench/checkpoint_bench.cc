// Writes and reads a checkpoint of so many parameters, and the same bytes as a plain program would,
// in turn:
//
//   checkpoint_bench FOLDER [PARAMETERS [ROUNDS]]     50000000 and 5 if not given
//
// Twelve bytes per parameter: the parameter and both moments. Prints the median of each and the
// ratios. "plain" writes from memory to one file with one sync, and reads into memory; "copy" is
// file to file with sync, as cp and sync would.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/reactor/posix_disk.h"

namespace starling {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;
constexpr int kStages = 2;

void MustBe(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "checkpoint_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

// Stages of layers of square matrices.
std::vector<StagePart> MakeParts(int64_t parameters) {
  constexpr int64_t kWidth = 1024;
  const int64_t matrices = std::max<int64_t>(kStages, parameters / (kWidth * kWidth));
  std::vector<StagePart> parts;
  int64_t made = 0;
  for (int stage = 0; stage < kStages; ++stage) {
    std::vector<TensorSpec> specs;
    for (; made < matrices * (stage + 1) / kStages; ++made) {
      TensorSpec spec;
      spec.name = "layers." + std::to_string(made) + ".weight";
      spec.shape = {kWidth, parameters / matrices / kWidth};
      specs.push_back(std::move(spec));
    }
    StageLayout layout = MakeLayout(std::move(specs));
    MutableBlob state = MutableBlob::Uninitialized(DType::kF32, {kStatePlanes * layout.size});
    Rng rng(static_cast<uint64_t>(stage) + 1);
    for (float& value : state.As<float>()) value = static_cast<float>(rng.Next() >> 40);
    parts.push_back({std::move(layout), std::move(state).Freeze()});
  }
  return parts;
}

class Bench {
 public:
  Bench(std::string folder, int64_t parameters)
      : folder_(std::move(folder)), parts_(MakeParts(parameters)) {
    MustBe(disk_.MakeDirectories(folder_));
    for (const StagePart& part : parts_) bytes_ += part.state.size_bytes();
  }

  void Round(uint64_t round) {
    CheckpointStore store(folder_ + "/checkpoints");
    CheckpointMeta meta;
    meta.run = RunId{1};
    meta.version = Version{round};
    Time("plain write", [&] { WritePlain(folder_ + "/plain"); });
    Time("checkpoint write", [&] { MustBe(store.Save(disk_, meta, parts_)); });
    Time("copy", [&] { Copy(folder_ + "/plain", folder_ + "/copy"); });
    const CheckpointInfo info = store.At(Era{0}, Version{round});
    Time("plain read", [&] { ReadPlain(folder_ + "/plain"); });
    Time("checkpoint read", [&] {
      for (const StagePart& part : parts_) MustBe(LoadStage(disk_, info, part.layout).status());
    });
    Time("checkpoint verify", [&] { MustBe(Verify(disk_, info).status()); });
    for (const char* name : {"/plain", "/copy", "/checkpoints"}) {
      MustBe(disk_.RemoveTree(folder_ + name));
    }
    MustBe(disk_.SyncDirectory(folder_));
  }

  void Print() {
    std::printf("%.0f MB\n", static_cast<double>(bytes_) / 1e6);
    for (const auto& [what, seconds] : seconds_) {
      std::printf("%-18s %7.3f s  %6.0f MB/s  %7.3f s of CPU\n", what.c_str(), Median(what),
                  static_cast<double>(bytes_) / 1e6 / Median(what),
                  MedianOf(cpu_seconds_.at(what)));
    }
    const auto ratio = [&](const char* of, const char* to) {
      std::printf("%s at %.2f of %s\n", of, Median(to) / Median(of), to);
    };
    ratio("checkpoint write", "plain write");
    ratio("checkpoint write", "copy");
    ratio("checkpoint read", "plain read");
    ratio("checkpoint read", "copy");
  }

 private:
  void Time(const std::string& what, const std::function<void()>& work) {
    const auto begin = std::chrono::steady_clock::now();
    const std::clock_t cpu_begin = std::clock();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    seconds_[what].push_back(took.count());
    cpu_seconds_[what].push_back(static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC);
  }

  static double MedianOf(std::vector<double> sorted) {
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }

  double Median(const std::string& what) const { return MedianOf(seconds_.at(what)); }

  void WritePlain(const std::string& path) {
    std::FILE* const out = OpenPlain(path, "wb");
    for (const StagePart& part : parts_) {
      const auto size = static_cast<int64_t>(part.state.size_bytes());
      for (int64_t at = 0; at < size; at += kPieceBytes) {
        const auto piece = static_cast<size_t>(std::min(kPieceBytes, size - at));
        STARLING_CHECK_EQ(std::fwrite(part.state.data() + at, 1, piece, out), piece);
      }
    }
    SyncAndClose(out);
  }

  static std::FILE* OpenPlain(const std::string& path, const char* mode) {
    std::FILE* const file = std::fopen(path.c_str(), mode);
    STARLING_CHECK(file != nullptr);
    std::setvbuf(file, nullptr, _IONBF, 0);
    return file;
  }

  void SyncAndClose(std::FILE* file) {
    STARLING_CHECK_EQ(fdatasync(fileno(file)), 0);
    std::fclose(file);
    MustBe(disk_.SyncDirectory(folder_));
  }

  void Copy(const std::string& from, const std::string& to) {
    std::FILE* const in = OpenPlain(from, "rb");
    std::FILE* const out = OpenPlain(to, "wb");
    std::vector<char> piece(kPieceBytes);
    for (size_t got = 0; (got = std::fread(piece.data(), 1, piece.size(), in)) > 0;) {
      STARLING_CHECK_EQ(std::fwrite(piece.data(), 1, got, out), got);
    }
    std::fclose(in);
    SyncAndClose(out);
  }

  void ReadPlain(const std::string& path) {
    std::FILE* const in = OpenPlain(path, "rb");
    for (const StagePart& part : parts_) {
      const size_t size = part.state.size_bytes();
      const std::unique_ptr<char[]> state(new char[size]);
      STARLING_CHECK_EQ(std::fread(state.get(), 1, size, in), size);
    }
    std::fclose(in);
  }

  PosixDisk disk_;
  const std::string folder_;
  const std::vector<StagePart> parts_;
  uint64_t bytes_ = 0;
  std::map<std::string, std::vector<double>> seconds_;
  std::map<std::string, std::vector<double>> cpu_seconds_;
};

}  // namespace
}  // namespace starling

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: checkpoint_bench FOLDER [PARAMETERS [ROUNDS]]\n");
    return 2;
  }
  const int64_t parameters = argc > 2 ? std::atoll(argv[2]) : 50000000;
  const uint64_t rounds = argc > 3 ? static_cast<uint64_t>(std::atoll(argv[3])) : 5;
  starling::Bench bench(argv[1], parameters);
  for (uint64_t round = 1; round <= rounds; ++round) bench.Round(round);
  bench.Print();
  return 0;
}
