// How full the queues, logs and buffers of a part are, for status and for checks of invariant I5.
//
//   server.VisitBuffers([](const char* name, size_t used, size_t bound) { ... });
//
// `used` and `bound` are in the same unit, which the name says where it is not a count of entries.
#ifndef STARLING_RUNTIME_BASE_BUFFERS_H_
#define STARLING_RUNTIME_BASE_BUFFERS_H_

#include <cstddef>
#include <functional>

namespace starling {

using BufferVisitor = std::function<void(const char* name, size_t used, size_t bound)>;

}  // namespace starling

#endif  // STARLING_RUNTIME_BASE_BUFFERS_H_
