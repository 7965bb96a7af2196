// Transports of one process on one loop, at addresses that are known before they listen.
#ifndef STARLING_TESTS_RUNTIME_REACTOR_ZMQ_HARNESS_H_
#define STARLING_TESTS_RUNTIME_REACTOR_ZMQ_HARNESS_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_transport.h"
#include "tests/runtime/reactor/temporary_folder.h"

namespace starling {

// The first of two adjacent TCP ports of 127.0.0.1 that nobody listens on, outside the range from
// which the system gives ports away.
int FreePortPair();

class ZmqHarness {
 public:
  virtual ~ZmqHarness() = default;

  Endpoint AddressOf(int peer);
  Transport& Start(int peer, TransportHandler* handler);
  void Kill(int peer) { transports_.erase(peer); }
  void Act(const std::function<void()>& act) { act(); }
  bool RunUntil(const std::function<bool()>& done) { return loop_.RunUntil(done, kLongWait); }
  // For what must not happen: a while in which it could.
  void Settle() {
    loop_.RunUntil([] { return false; }, absl::Milliseconds(100));
  }
  size_t queue_packets() const { return kQueue; }

  EventLoop& loop() { return loop_; }
  ZmqTransport& transport(int peer) { return *transports_.at(peer); }

 protected:
  virtual std::string ListenOf(int peer) = 0;

 private:
  static constexpr absl::Duration kLongWait = absl::Seconds(30);
  static constexpr int kQueue = 64;

  EventLoop loop_;
  std::map<int, std::string> listens_;
  std::map<int, std::unique_ptr<ZmqTransport>> transports_;
};

class TcpHarness final : public ZmqHarness {
 protected:
  std::string ListenOf(int /*peer*/) override {
    return "tcp://127.0.0.1:" + std::to_string(FreePortPair());
  }
};

class IpcHarness final : public ZmqHarness {
 protected:
  std::string ListenOf(int peer) override {
    return "ipc://" + folder_.path() + "/" + std::to_string(peer);
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace starling

#endif  // STARLING_TESTS_RUNTIME_REACTOR_ZMQ_HARNESS_H_
