// How the programs use the C library's heap. Tensors come and go by the megabyte with every
// microbatch and every round; a fresh page costs far more than the bytes that are written to it.
#ifndef STARLING_RUNTIME_APP_HEAP_H_
#define STARLING_RUNTIME_APP_HEAP_H_

namespace starling {

// To be called first of all, before there are threads. Freed memory up to half a GiB stays with the
// process, for all of its threads, buffers up to 32 MiB come from it, and the programs that this
// one becomes or starts use huge pages for what is larger, unless GLIBC_TUNABLES is set already.
// Does nothing where the C library is not glibc.
void KeepFreedMemory();

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_HEAP_H_
