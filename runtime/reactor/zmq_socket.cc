#include "runtime/reactor/zmq_socket.h"

#include <errno.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/reactor/system_error.h"

namespace starling {
namespace {

// Below this a copy is cheaper than sharing; and libzmq's small frames share one receive buffer,
// which a Blob would keep alive.
constexpr size_t kShareBytes = 8192;
constexpr size_t kFrameAlignment = 4;

// Keeps a Blob's bytes alive while libzmq holds them.
struct Lent {
  Blob blob;
  // libzmq orders the hand-over between the threads; this tells it to ThreadSanitizer, which cannot
  // look into libzmq.
  std::atomic<bool> handed_over{false};
};

void ReleaseLent(void* /*bytes*/, void* hint) {
  Lent* const lent = static_cast<Lent*>(hint);
  lent->handed_over.load(std::memory_order_acquire);
  delete lent;
}

}  // namespace

ZmqContext::ZmqContext() : context_(zmq_ctx_new()) {
  STARLING_CHECK_MSG(context_ != nullptr, "no ZeroMQ context: too many open files");
  zmq_ctx_set(context_, ZMQ_MAX_SOCKETS, zmq_ctx_get(context_, ZMQ_SOCKET_LIMIT));
}

ZmqContext::~ZmqContext() {
  while (zmq_ctx_term(context_) != 0) STARLING_CHECK_EQ(zmq_errno(), EINTR);
}

absl::StatusOr<ZmqSocket> ZmqSocket::Open(const ZmqContext& context, int type) {
  void* const socket = zmq_socket(context.get(), type);
  if (socket == nullptr) {
    return absl::ResourceExhaustedError(
        SystemMessage("cannot open a socket", zmq_strerror(zmq_errno())));
  }
  ZmqSocket opened(socket);
  opened.Set(ZMQ_LINGER, 0);
  return opened;
}

ZmqSocket::ZmqSocket(ZmqSocket&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}

ZmqSocket& ZmqSocket::operator=(ZmqSocket&& other) noexcept {
  std::swap(socket_, other.socket_);
  return *this;
}

ZmqSocket::~ZmqSocket() {
  if (socket_ != nullptr) zmq_close(socket_);
}

void ZmqSocket::Set(int option, int value) {
  STARLING_CHECK_EQ(zmq_setsockopt(socket_, option, &value, sizeof(value)), 0);
}

void ZmqSocket::SetInt64(int option, int64_t value) {
  STARLING_CHECK_EQ(zmq_setsockopt(socket_, option, &value, sizeof(value)), 0);
}

bool ZmqSocket::CanSend() const {
  int events = 0;
  size_t size = sizeof(events);
  STARLING_CHECK_EQ(zmq_getsockopt(socket_, ZMQ_EVENTS, &events, &size), 0);
  return (events & ZMQ_POLLOUT) != 0;
}

std::string ZmqSocket::LastEndpoint() const {
  char text[512] = {};
  size_t size = sizeof(text);
  STARLING_CHECK_EQ(zmq_getsockopt(socket_, ZMQ_LAST_ENDPOINT, text, &size), 0);
  return text;
}

absl::StatusOr<std::unique_ptr<ZmqMonitor>> ZmqMonitor::Attach(ZmqContext* context,
                                                               const ZmqSocket& watched,
                                                               int events) {
  absl::StatusOr<ZmqSocket> reader = ZmqSocket::Open(*context, ZMQ_PAIR);
  if (!reader.ok()) return reader.status();
  // Unbounded: with a bound, libzmq's thread would block on a reader that is busy.
  reader->Set(ZMQ_RCVHWM, 0);
  const std::string name = "inproc://monitor-" + std::to_string(context->NextNumber());
  if (zmq_socket_monitor(watched.get(), name.c_str(), events) != 0 ||
      zmq_connect(reader->get(), name.c_str()) != 0) {
    return absl::ResourceExhaustedError(
        SystemMessage("cannot watch a socket", zmq_strerror(zmq_errno())));
  }
  return std::unique_ptr<ZmqMonitor>(new ZmqMonitor(watched.get(), *std::move(reader)));
}

ZmqMonitor::~ZmqMonitor() {
  // Before the reader closes: libzmq's thread would block on writing to nobody.
  zmq_socket_monitor(watched_, nullptr, 0);
}

int ZmqMonitor::Next() {
  ZmqFrame event;
  if (!event.Receive(events_)) return 0;
  uint16_t number = 0;
  const Blob bytes = event.TakeBlob();
  STARLING_CHECK_GE(bytes.size_bytes(), sizeof(number));
  std::memcpy(&number, bytes.data(), sizeof(number));
  ZmqFrame address;
  address.Receive(events_);
  return number;
}

ZmqFrame::ZmqFrame(const Blob& bytes) {
  if (bytes.size_bytes() < kShareBytes) {
    STARLING_CHECK_EQ(zmq_msg_init_size(&message_, bytes.size_bytes()), 0);
    if (!bytes.empty()) {
      std::memcpy(zmq_msg_data(&message_), bytes.data(), bytes.size_bytes());
    }
    return;
  }
  auto lent = std::make_unique<Lent>();
  lent->blob = bytes;
  void* const data = const_cast<std::byte*>(bytes.data());
  lent->handed_over.store(true, std::memory_order_release);
  STARLING_CHECK_EQ(zmq_msg_init_data(&message_, data, bytes.size_bytes(), ReleaseLent, lent.get()),
                    0);
  lent.release();
}

bool ZmqFrame::Receive(const ZmqSocket& socket) {
  int got = zmq_msg_recv(&message_, socket.get(), ZMQ_DONTWAIT);
  while (got < 0 && zmq_errno() == EINTR) {
    got = zmq_msg_recv(&message_, socket.get(), ZMQ_DONTWAIT);
  }
  STARLING_CHECK_MSG(got >= 0 || zmq_errno() == EAGAIN, zmq_strerror(zmq_errno()));
  return got >= 0;
}

bool ZmqFrame::Send(const ZmqSocket& socket, bool more) {
  const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
  bool looked = false;
  while (zmq_msg_send(&message_, socket.get(), flags) < 0) {
    const int error = zmq_errno();
    if (error == EINTR) continue;
    STARLING_CHECK_MSG(error == EAGAIN, zmq_strerror(error));
    if (looked || !socket.CanSend()) return false;
    looked = true;
  }
  return true;
}

std::string ZmqFrame::SenderType() {
  const char* const type = zmq_msg_gets(&message_, "Socket-Type");
  return type == nullptr ? "" : type;
}

Blob ZmqFrame::TakeBlob() {
  const int64_t bytes = static_cast<int64_t>(size());
  void* data = zmq_msg_data(&message_);
  const bool aligned = reinterpret_cast<uintptr_t>(data) % kFrameAlignment == 0;
  if (size() < kShareBytes || !aligned) return Blob::CopyOf(data, DType::kU8, {bytes});
  auto owner = std::make_shared<ZmqFrame>();
  STARLING_CHECK_EQ(zmq_msg_move(&owner->message_, &message_), 0);
  data = zmq_msg_data(&owner->message_);
  return Blob(std::move(owner), data, DType::kU8, {bytes});
}

}  // namespace starling
