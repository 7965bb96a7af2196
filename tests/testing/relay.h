// Relay: a link that can be made slow, stopped and cut, for tests of real processes.
//
//   Relay link(folder + "/peer");                       // stands in front of ipc://FOLDER/peer
//   Start({STARLING_PROGRAM, "stage", ..., "--listen", link.listen(), "--advertise",
//          link.advertise()});
//   link.SetStalled(true);                               // while everything runs
//
// A peer that listens behind it is reached through it alone: its two channels are TCP connections
// to the relay, and Unix sockets from there on. What the peer itself sends takes the links of those
// it sends to. Bytes keep their order, none is lost but by a cut.
//
// One thread of its own; the setters may be called from any thread, and hold for bytes that come
// from then on (a stall also for those that wait).
#ifndef STARLING_TESTS_TESTING_RELAY_H_
#define STARLING_TESTS_TESTING_RELAY_H_

#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace starling {

class Relay {
 public:
  // `path`: of the peer's Unix sockets, PATH and PATH-bulk.
  explicit Relay(std::string path);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  std::string listen() const { return "ipc://" + path_; }
  std::string advertise() const { return "tcp://127.0.0.1:" + std::to_string(port_); }

  // One way, each way.
  void SetDelay(absl::Duration delay);
  // Of each connection, each way; 0: no limit.
  void SetBandwidth(int64_t bytes_per_s);
  // Nothing passes, nothing is lost, connections stay.
  void SetStalled(bool stalled);
  // Closes all connections, with what is in them; while it is cut, new ones are closed at once.
  void SetCut(bool cut);

  // Bytes that came out at either end.
  uint64_t bytes_passed() const;

 private:
  struct Chunk {
    absl::Time due;
    std::string bytes;
    size_t sent = 0;
  };
  // One way of a connection.
  struct Way {
    int from = -1;
    int to = -1;
    bool ended = false;  // nothing more comes
    absl::Time free;     // when the link has sent all that it was given
    std::deque<Chunk> waiting;
    size_t waiting_bytes = 0;
  };
  struct Connection {
    int outside = -1;  // TCP
    int inside = -1;   // the peer's Unix socket
    Way in, out;
  };
  struct Settings {
    absl::Duration delay;
    int64_t bytes_per_s = 0;
    bool stalled = false;
    bool cut = false;
  };

  void Main();
  // False: its time is over.
  bool Turn();
  void Accept(int listener, const std::string& path, bool cut);
  void Read(const Settings& settings, Way* way);
  static bool Write(Way* way, uint64_t* passed);
  // Milliseconds until something waiting is due; -1: nothing is.
  int NextDue(bool stalled) const;
  void Close(Connection* connection);

  const std::string path_;
  int port_ = 0;
  int listeners_[2] = {-1, -1};
  int wake_ = -1;
  std::list<Connection> connections_;
  mutable std::mutex mutex_;
  Settings settings_;
  bool ending_ = false;
  uint64_t passed_ = 0;
  std::thread thread_;
};

}  // namespace starling

#endif  // STARLING_TESTS_TESTING_RELAY_H_
