#include "runtime/app/heap.h"

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace starling {

void KeepFreedMemory() {
#ifdef __GLIBC__
  constexpr int kMostFromHeap = 32 << 20;  // the most that glibc allows
  constexpr int kKeptBytes = 1 << 29;
  mallopt(M_MMAP_THRESHOLD, kMostFromHeap);
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
  mallopt(M_ARENA_MAX, 1);
  // Read as a program starts, so it is for those that come after this one.
  setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", /*overwrite=*/0);
#endif
}

}  // namespace starling
