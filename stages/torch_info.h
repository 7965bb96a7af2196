// What LibTorch runs on here, for `starling doctor`. No LibTorch in this header.
#ifndef STARLING_STAGES_TORCH_INFO_H_
#define STARLING_STAGES_TORCH_INFO_H_

#include <string>

namespace starling {

enum class BlasKind {
  kOpenBlasOpenMp,   // what Debian's LibTorch runs best with
  kOpenBlasPthread,  // keeps a second pool of threads beside OpenMP's and ignores thread settings
  kOpenBlasOther,    // threading not told by its name
  kReference,        // several times slower
  kBuiltIn,          // none mapped: LibTorch brings its own, as its wheels do
  kOther,
};

struct TorchInfo {
  std::string version;     // "1.13.1"
  std::string capability;  // vector instructions in use: "AVX2", "AVX512", "NO AVX"
  BlasKind blas = BlasKind::kOther;
  std::string blas_path;  // of the library that is really mapped; empty if built in
  int threads = 0;        // what an operator would use on this thread
};

TorchInfo ReadTorchInfo();

// Which BLAS a process has mapped, from the text of its /proc/PID/maps, and its file.
BlasKind BlasInMaps(const std::string& maps, std::string* path);

// What to do about it in one line; empty if nothing is wrong.
std::string BlasAdvice(BlasKind kind);

}  // namespace starling

#endif  // STARLING_STAGES_TORCH_INFO_H_
