// The pieces of libzmq that the transport uses, with owners: context, socket, monitor, and frames
// as Blobs. libzmq's C interface, which throws nothing.
//
// Threads: a socket and its monitor belong to one thread. A Blob given away in a frame is released
// on a thread of libzmq's.
#ifndef STARLING_RUNTIME_REACTOR_ZMQ_SOCKET_H_
#define STARLING_RUNTIME_REACTOR_ZMQ_SOCKET_H_

#include <zmq.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/base/blob.h"

namespace starling {

// Waits in its destructor until all its sockets are closed and have lingered.
class ZmqContext {
 public:
  ZmqContext();
  ~ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  void* get() const { return context_; }
  uint64_t NextNumber() { return next_number_++; }

 private:
  void* const context_;
  uint64_t next_number_ = 0;
};

class ZmqSocket {
 public:
  // Resource exhausted: no sockets or file descriptors are left.
  static absl::StatusOr<ZmqSocket> Open(const ZmqContext& context, int type);
  ZmqSocket(ZmqSocket&& other) noexcept;
  ZmqSocket& operator=(ZmqSocket&& other) noexcept;
  ~ZmqSocket();

  void* get() const { return socket_; }
  void Set(int option, int value);  // aborts where libzmq knows no such option
  void SetInt64(int option, int64_t value);
  // Looks anew whether a message can be sent: a send that fails has not always looked.
  bool CanSend() const;
  // The address that was bound last, with its real port.
  std::string LastEndpoint() const;

 private:
  explicit ZmqSocket(void* socket) : socket_(socket) {}
  void* socket_;
};

// What happens on a socket's connections, as a stream of events.
class ZmqMonitor {
 public:
  // `watched` must outlive the monitor. `events` is a mask of ZMQ_EVENT_….
  static absl::StatusOr<std::unique_ptr<ZmqMonitor>> Attach(ZmqContext* context,
                                                            const ZmqSocket& watched, int events);
  ~ZmqMonitor();
  ZmqMonitor(const ZmqMonitor&) = delete;
  ZmqMonitor& operator=(const ZmqMonitor&) = delete;

  void* readable() const { return events_.get(); }  // for the event loop
  int Next();                                       // the next ZMQ_EVENT_…, or 0 if none waits

 private:
  ZmqMonitor(void* watched, ZmqSocket events) : watched_(watched), events_(std::move(events)) {}
  void* const watched_;
  ZmqSocket events_;
};

// One frame of a message.
class ZmqFrame {
 public:
  ZmqFrame() { zmq_msg_init(&message_); }
  // Shares the Blob's bytes with libzmq where they are many; copies few.
  explicit ZmqFrame(const Blob& bytes);
  ~ZmqFrame() { zmq_msg_close(&message_); }
  ZmqFrame(const ZmqFrame&) = delete;
  ZmqFrame& operator=(const ZmqFrame&) = delete;

  // False: nothing to read now, or the queue is full.
  bool Receive(const ZmqSocket& socket);
  bool Send(const ZmqSocket& socket, bool more);

  bool more() const { return zmq_msg_more(&message_) != 0; }
  size_t size() const { return zmq_msg_size(&message_); }
  // The socket type that the sender announced ("DEALER"), empty for those who announce none.
  std::string SenderType();
  // The bytes as u8 [n], without a copy where they are many and aligned to 4 bytes. Empties the
  // frame.
  Blob TakeBlob();

 private:
  zmq_msg_t message_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_REACTOR_ZMQ_SOCKET_H_
