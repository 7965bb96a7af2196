#include "runtime/reactor/event_loop.h"

#include <errno.h>
#include <time.h>

#include <algorithm>
#include <limits>
#include <random>
#include <utility>

#include "runtime/base/check.h"

namespace starling {
namespace {

// After a sleep ZeroMQ's own thread needs a moment to hand over what the kernel holds.
constexpr absl::Duration kHandOverWait = absl::Milliseconds(10);
constexpr int kHandOverTurns = 10;

// Of the poller; watches have the numbers between.
constexpr uint64_t kMailboxKey = 0;
constexpr uint64_t kStopKey = std::numeric_limits<uint64_t>::max();

absl::Time MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

uint64_t SeedFromSystem() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) ^ device();
}

EventLoop::Options WithDefaults(EventLoop::Options options) {
  if (!options.clock) options.clock = MonotonicNow;
  if (!options.seed.has_value()) options.seed = SeedFromSystem();
  return options;
}

// Rounded up: a timer must not be found not yet due again and again.
int PollMilliseconds(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) return -1;
  const int64_t ms = absl::ToInt64Milliseconds(absl::Ceil(timeout, absl::Milliseconds(1)));
  return static_cast<int>(std::clamp<int64_t>(ms, 0, std::numeric_limits<int>::max()));
}

}  // namespace

EventLoop::EventLoop(Options options)
    : options_(WithDefaults(std::move(options))),
      thread_(std::this_thread::get_id()),
      rng_(*options_.seed),
      now_(options_.clock()),
      mailbox_(options_.mailbox_bound) {
  poller_.Add(kMailboxKey, mailbox_.fd());
  poller_.Add(kStopKey, stop_wakeup_.fd());
}

EventLoop::~EventLoop() {
  CheckThread();
  STARLING_CHECK_MSG(!running_, "the event loop is destroyed by one of its callbacks");
  // Out of the members first: what a callback owns may call back into the loop as it goes.
  mailbox_.Close();
  std::exchange(posted_, {}).clear();
  std::exchange(watches_, {}).clear();
  timer_keys_.clear();
  std::exchange(timers_, {}).clear();
}

void EventLoop::CheckThread() const {
  STARLING_CHECK_MSG(std::this_thread::get_id() == thread_, "not called on the reactor thread");
}

absl::Time EventLoop::Now() const { return running_ ? now_ : options_.clock(); }

absl::Duration EventLoop::InThisCallback() const {
  return running_ ? options_.clock() - now_ : absl::ZeroDuration();
}

TimerId EventLoop::Schedule(absl::Duration delay, std::function<void()> callback) {
  CheckThread();
  const uint64_t sequence = next_sequence_++;
  const TimerId id{sequence};
  const TimerKey key{Now() + std::max(delay, absl::ZeroDuration()), sequence};
  timers_[key] = Timer{id, std::move(callback)};
  timer_keys_[id] = key;
  return id;
}

void EventLoop::Cancel(TimerId timer) {
  CheckThread();
  const auto found = timer_keys_.find(timer);
  if (found == timer_keys_.end()) return;
  // Destroyed last: what the callback owns may call back into the loop.
  auto doomed = timers_.extract(found->second);
  timer_keys_.erase(found);
}

uint64_t EventLoop::Random() {
  CheckThread();
  return rng_.Next();
}

bool EventLoop::Post(std::function<void()> closure) { return mailbox_.Push(std::move(closure)); }

void EventLoop::Stop() {
  stop_.store(true);
  stop_wakeup_.Signal();
}

EventLoop::WatchId EventLoop::AddReadable(int fd, std::function<void()> callback) {
  CheckThread();
  const uint64_t key = next_sequence_++;
  poller_.Add(key, fd);
  watches_[WatchId{key}] = std::make_shared<std::function<void()>>(std::move(callback));
  return WatchId{key};
}

EventLoop::WatchId EventLoop::AddReadableSocket(void* socket, std::function<void()> callback) {
  CheckThread();
  const uint64_t key = next_sequence_++;
  poller_.AddSocket(key, socket);
  watches_[WatchId{key}] = std::make_shared<std::function<void()>>(std::move(callback));
  return WatchId{key};
}

void EventLoop::Remove(WatchId watch) {
  CheckThread();
  poller_.Remove(static_cast<uint64_t>(watch));
  auto doomed = watches_.extract(watch);
}

absl::Status EventLoop::AddSignal(int signal, std::function<void()> callback) {
  CheckThread();
  if (!signals_) {
    signals_ = std::make_unique<SignalPipe>();
    AddReadable(signals_->fd(), [this] { OnSignals(); });
  }
  const absl::Status added = signals_->Add(signal);
  if (added.ok()) signal_callbacks_[signal] = std::move(callback);
  return added;
}

void EventLoop::OnSignals() {
  for (int signal : signals_->Take()) signal_callbacks_.at(signal)();
}

void EventLoop::SetSleptHandler(std::function<void(absl::Duration)> handler) {
  CheckThread();
  slept_handler_ = std::move(handler);
}

void EventLoop::Run() {
  RunUntil([] { return false; }, absl::InfiniteDuration());
}

bool EventLoop::RunUntil(const std::function<bool()>& done, absl::Duration limit) {
  CheckThread();
  STARLING_CHECK_MSG(!running_, "the event loop is run by one of its callbacks");
  running_ = true;
  now_ = options_.clock();
  const absl::Time until = now_ + limit;
  bool answer = done();
  while (!answer && !stop_.load()) {
    Turn(until);
    answer = done();
    if (options_.clock() >= until) break;
  }
  if (stop_.exchange(false)) stop_wakeup_.Clear();
  running_ = false;
  return answer;
}

absl::Time EventLoop::NextDue() const {
  return timers_.empty() ? absl::InfiniteFuture() : timers_.begin()->first.first;
}

void EventLoop::Turn(absl::Time until) {
  const absl::Time wake = std::min(NextDue(), until);
  const absl::Time before = options_.clock();
  const bool at_once = !posted_.empty() || wake <= before;
  const std::vector<WatchId> ready =
      Poll(at_once ? absl::ZeroDuration() : wake - before);  // infinite minus finite is infinite
  RunPosted();
  Dispatch(ready);
  const absl::Duration late = options_.clock() - NextDue();
  if (late > options_.slept_threshold) WakeUpAfter(late);
  RunDueTimers();
}

void EventLoop::WakeUpAfter(absl::Duration slept) {
  for (int turn = 0; turn < kHandOverTurns && !stop_.load(); ++turn) {
    const std::vector<WatchId> ready = Poll(kHandOverWait);
    if (ready.empty() && posted_.empty()) break;
    RunPosted();
    Dispatch(ready);
  }
  if (slept_handler_ && !stop_.load()) {
    Call([this, slept] { slept_handler_(slept); });
  }
}

// Takes posted closures from the mailbox, and gives the watches that can be read, in order of id.
std::vector<EventLoop::WatchId> EventLoop::Poll(absl::Duration timeout) {
  std::vector<WatchId> ready;
  for (uint64_t key : poller_.Wait(PollMilliseconds(timeout))) {
    if (key == kMailboxKey) {
      for (std::function<void()>& closure : mailbox_.Take()) posted_.push_back(std::move(closure));
    } else if (key != kStopKey) {
      ready.push_back(WatchId{key});
    }
  }
  return ready;
}

void EventLoop::Call(const std::function<void()>& callback) {
  now_ = options_.clock();
  callback();
}

void EventLoop::RunPosted() {
  for (size_t left = posted_.size(); left > 0 && !stop_.load(); --left) {
    const std::function<void()> closure = std::move(posted_.front());
    posted_.pop_front();
    Call(closure);
  }
}

void EventLoop::Dispatch(const std::vector<WatchId>& ready) {
  for (WatchId id : ready) {
    if (stop_.load()) return;
    const auto found = watches_.find(id);
    if (found == watches_.end()) continue;  // removed by a callback of this turn
    const std::shared_ptr<std::function<void()>> callback = found->second;
    Call(*callback);
  }
}

void EventLoop::RunDueTimers() {
  // Those scheduled by these callbacks wait for the next turn, so that sockets are read in between.
  const absl::Time due = options_.clock();
  const uint64_t first_new = next_sequence_;
  while (!timers_.empty() && !stop_.load()) {
    const auto first = timers_.begin();
    if (first->first.first > due || first->first.second >= first_new) return;
    const std::function<void()> callback = std::move(first->second.callback);
    timer_keys_.erase(first->second.id);
    timers_.erase(first);
    Call(callback);
  }
}

}  // namespace starling
