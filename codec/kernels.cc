#include "codec/kernels.h"

namespace starling::codec {

const Kernels& BestKernels() {
  static const Kernels* const best = AllKernels().back();
  return *best;
}

std::vector<const Kernels*> AllKernels() {
  std::vector<const Kernels*> kernels = {&PlainKernels()};
  if (Avx2Kernels() != nullptr) kernels.push_back(Avx2Kernels());
  if (Avx512Kernels() != nullptr) kernels.push_back(Avx512Kernels());
  return kernels;
}

}  // namespace starling::codec
