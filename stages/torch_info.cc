#include "stages/torch_info.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/api/include/torch/version.h>

#include <fstream>
#include <sstream>

namespace starling {
namespace {

bool Contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// From a line "  - CPU capability usage: AVX2" of LibTorch's description of itself.
std::string Capability(const std::string& config) {
  static const std::string kLabel = "CPU capability usage: ";
  const size_t found = config.find(kLabel);
  if (found == std::string::npos) return "unknown";
  const size_t begin = found + kLabel.size();
  return config.substr(begin, config.find('\n', begin) - begin);
}

BlasKind KindOf(const std::string& path) {
  if (Contains(path, "openblas")) {
    if (Contains(path, "openmp") || Contains(path, "libopenblaso"))
      return BlasKind::kOpenBlasOpenMp;
    return Contains(path, "pthread") ? BlasKind::kOpenBlasPthread : BlasKind::kOpenBlasOther;
  }
  return Contains(path, "/blas/") ? BlasKind::kReference : BlasKind::kOther;
}

}  // namespace

BlasKind BlasInMaps(const std::string& maps, std::string* path) {
  path->clear();
  BlasKind kind = BlasKind::kBuiltIn;
  std::istringstream lines(maps);
  std::string line;
  while (std::getline(lines, line)) {
    const size_t begin = line.find('/');
    if (begin == std::string::npos) continue;
    const std::string file = line.substr(begin);
    const std::string name = file.substr(file.rfind('/') + 1);
    const bool interface = name.rfind("libblas.", 0) == 0;
    if (!interface && name.rfind("libopenblas", 0) != 0 && name.rfind("libmkl_core", 0) != 0 &&
        name.rfind("libblis", 0) != 0) {
      continue;
    }
    // The library that libblas.so.3 forwards to says more than that one, where both are mapped.
    if (kind != BlasKind::kBuiltIn && interface) continue;
    *path = file;
    kind = KindOf(file);
  }
  return kind;
}

TorchInfo ReadTorchInfo() {
  TorchInfo info;
  info.version = TORCH_VERSION;
  info.capability = Capability(at::show_config());
  info.threads = at::get_num_threads();
  std::ifstream file("/proc/self/maps");
  std::ostringstream maps;
  maps << file.rdbuf();
  info.blas = BlasInMaps(maps.str(), &info.blas_path);
  return info;
}

std::string BlasAdvice(BlasKind kind) {
  switch (kind) {
    case BlasKind::kOpenBlasPthread:
      return "OpenBLAS with its own threads is in use, which does not obey thread settings; on "
             "Debian: "
             "apt-get install libopenblas0-openmp, and update-alternatives --config "
             "libblas.so.3-x86_64-linux-gnu";
    case BlasKind::kReference:
      return "the reference BLAS is in use, which is several times slower; on Debian: apt-get "
             "install "
             "libopenblas0-openmp";
    case BlasKind::kOpenBlasOpenMp:
    case BlasKind::kOpenBlasOther:
    case BlasKind::kBuiltIn:
    case BlasKind::kOther:
      return "";
  }
  return "";
}

}  // namespace starling
