// Peer: one process that serves a replica of a stage. It asks the trainer to be let in, gets its
// state, and then passes what arrives to the part that knows: StageServer (microbatches), StepEnd
// (seal, all-reduce, update), StateKeeper (loading and donating state).
//
//   Connecting --Welcome--> Admitted --LoadState, Loaded--> Serving --fenced--> Connecting
//
// A peer that loses sight of its trainer goes on with what it has and calls: it says Hello until
// that trainer answers (nothing was lost), or another lets it in anew (state and results of rounds
// are kept), or its patience ends. It promises itself to the highest epoch that has asked for it.
//
// Sans-I/O; every call on the reactor thread. The Env, Transport and EventSink outlive it.
// One replica per peer; messages are keyed by incarnation, so a peer may come to hold several.
#ifndef STARLING_RUNTIME_PEER_PEER_H_
#define STARLING_RUNTIME_PEER_PEER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "router/wiring.h"
#include "runtime/base/buffers.h"
#include "runtime/base/event.h"
#include "runtime/base/layout.h"
#include "runtime/config/run_config.h"
#include "runtime/env/compute.h"
#include "runtime/env/env.h"
#include "runtime/env/file_system.h"
#include "runtime/env/transport.h"
#include "runtime/membership/failure_detector.h"
#include "runtime/membership/outbox.h"
#include "runtime/peer/peer_links.h"
#include "runtime/peer/shard_saver.h"
#include "runtime/peer/state_keeper.h"
#include "runtime/peer/step_clock.h"
#include "runtime/peer/step_end.h"
#include "runtime/wire/messages.h"
#include "runtime/wire/wire.h"
#include "stages/stage_server.h"

namespace starling {

class Peer : public TransportHandler, private StageLinks, private PeerLinks {
 public:
  struct Options {
    PeerId id{0};
    Endpoint trainer;              // only `control` is needed
    std::optional<StageId> stage;  // none: the trainer chooses
    bool pinned = false;           // stays at `stage`, whatever the trainer would like
    std::string host;
    uint64_t pid = 0;
    std::string device = "cpu";
    uint32_t threads = 1;
    std::string build;
    absl::Duration first_contact = absl::Seconds(10);  // infinite: keep trying (--wait)
    // What it writes its part of checkpoints with, where the run has replicas do so. Null: it does
    // not.
    Files* files = nullptr;
    std::function<StageLayout(const RunConfig&, StageId)> layout_of;  // of a stage's flat run
  };
  // Makes the numbers of a stage, once it is known which.
  using ComputeFactory =
      std::function<absl::StatusOr<std::unique_ptr<Compute>>(const RunConfig&, StageId)>;
  // Called once, when the peer has nothing left to do: ok after Stop, Leave or an orphan's wait, an
  // error otherwise. `reason` is for the user.
  using OnExit = std::function<void(absl::Status status, const std::string& reason)>;

  Peer(Options options, Env* env, Transport* transport, ComputeFactory make_compute,
       EventSink events, OnExit on_exit);
  ~Peer() override;

  void Start();
  // SIGTERM: serves on until a decision lets it go, then exits; leaves after swarm.drain_timeout,
  // when the trainer is lost, and at once if it does not serve.
  void Drain(const std::string& reason);
  // Now: tells the trainer, then exits. Others do its work of the step again.
  void Leave(const std::string& reason);

  void OnPacket(Packet packet) override;
  void OnLinkLost(const Endpoint& peer) override;

  // For checks: who it is to which trainer, and what it serves. Version 0 before it is admitted.
  struct Look {
    Incarnation self;
    Epoch epoch{0};
    Era era{0};
    StageId stage{0};
    Version version{0};
    bool serving = false;
    std::optional<StateName> held;
  };
  Look Inspect() const;
  void VisitBuffers(const BufferVisitor& visit) const;

 private:
  enum class State : uint8_t { kConnecting, kAdmitted, kServing, kLeaving, kExited };

  // StageLinks
  std::optional<Incarnation> ChooseNext(std::optional<Incarnation> avoid) override;
  void SendForward(Incarnation to, Forward forward, Answered accepted) override;
  bool SendClaim(Incarnation to, const Claim& claim, Answered answered) override;
  void NextFinished(Incarnation replica) override;
  void SendBackward(Incarnation to, Backward backward) override;
  void Notify(Notice notice) override;
  void DeviceFailed(const absl::Status& status) override;  // of PeerLinks too

  // PeerLinks
  Incarnation self() const override { return self_; }
  const Endpoint& own_address() const override { return own_address_; }
  void ReplyToTrainer(uint64_t request, MessageBody body) override;
  void ReplyAt(const Endpoint& address, uint64_t request, MessageBody body) override;
  bool AskMember(Incarnation to, MessageBody body, std::function<void()> answered) override;
  uint64_t AskAt(const Endpoint& to, MessageBody body, Outbox::OnReplyFn on_reply) override;
  void CancelAsk(uint64_t request) override { outbox_.Cancel(request); }
  void Emit(const Event& event) override { events_(event); }
  StepTimes TimesAtSeal() override { return clock_.Seal(env_->Now()); }
  void TimesMove() override { clock_.OnVersion(env_->Now()); }
  void TrainerLost(const std::string& why) override;

  // Admission
  void LoseSight(const std::string& why);
  void SayHello();
  void Reconnect();  // it is to be let in anew
  void OnHelloReply(const Message& message);
  void OnWelcome(const Welcome& welcome, const Message& message);
  void BeatHeart();
  uint32_t slots() const;
  void HeardTrainer();
  void Exit(absl::Status status, const std::string& reason);

  // One per kind of message
  void Dispatch(const Message& message);
  void DispatchFromTrainer(const Message& message);
  void On(const View& view);
  void On(const Muster& muster, const Message& message);
  void On(const Fence& fence);
  void On(const MoveTo& move);
  void On(const LoadState& load, const Message& message);
  bool Donates(const Message& message);

  void BeginToServe();
  void MakeKeeper();
  template <typename Function>
  void InRound(Function function);
  void ScheduleRetry();
  void RetrySends();
  void SetCandidates();

  bool FromTrainer(const Message& message) const;
  const Endpoint* AddressOf(Incarnation incarnation) const;
  Message Make(MessageBody body) const;
  void Reply(const Message& to, MessageBody body);
  void AskTrainer(MessageBody body);

  const Options options_;
  Env* const env_;
  Transport* const transport_;
  const Endpoint own_address_;
  const ComputeFactory make_compute_;
  const EventSink events_;
  const OnExit on_exit_;
  Outbox outbox_;

  // Who we are to the trainer
  State state_ = State::kConnecting;
  bool calling_ = false;  // Admitted or Serving, and out of sight of the trainer
  Endpoint trainer_address_;
  Epoch promised_{0};  // control of a lower epoch is refused
  RunId run_{0};
  Era era_{0};
  Epoch epoch_{0};
  Incarnation self_;
  Incarnation trainer_;
  RunConfig config_;
  StageId stage_{0};
  std::optional<StageId> wanted_;  // stage to say Hello for
  bool draining_ = false;
  TimerId drain_limit_ = kNoTimer;
  bool ever_admitted_ = false;
  absl::Time connecting_since_;
  std::optional<FailureDetector> trainer_watch_;  // since it let us in
  TimerId heartbeat_ = kNoTimer;
  absl::Time heard_trainer_;
  absl::Time next_beat_;
  TimerId hello_ = kNoTimer;
  uint64_t hello_request_ = 0;
  TimerId retry_sends_ = kNoTimer;

  // Who else there is
  uint64_t view_number_ = 0;
  std::map<Incarnation, Member> members_;
  std::set<Incarnation> fenced_;         // never spoken to again
  std::deque<Message> unknown_senders_;  // waiting for a View that names them; bounded
  std::unique_ptr<Wiring> wiring_;       // to the next stage

  // What we serve. Those who ask the device go before it does: what it answers as it goes is
  // nobody's any more.
  StepClock clock_;  // runs while it serves
  std::unique_ptr<Compute> compute_;
  std::unique_ptr<StateKeeper> keeper_;
  std::unique_ptr<ShardSaver> shards_;   // lives as long as keeper_
  std::unique_ptr<StageServer> server_;  // one per admission
  std::unique_ptr<StepEnd> step_end_;
};

}  // namespace starling

#endif  // STARLING_RUNTIME_PEER_PEER_H_
