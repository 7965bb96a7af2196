// The seams of the programs in build/faults: everything passes through as it is, and the hook is
// told which point of the protocol this process has reached.
#include <atomic>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "nlohmann/json.hpp"
#include "runtime/app/seams.h"
#include "runtime/wire/wire.h"
#include "tests/cluster/fault_hook.h"

namespace starling {
namespace {

// One of each per process, as there is one environment.
FaultHook& ReplicaHook() {
  static FaultHook hook("replica");
  return hook;
}
FaultHook& TrainerHook() {
  static FaultHook hook("trainer");
  return hook;
}

bool IsOk(const Message& message) {
  const auto* ack = std::get_if<Ack>(&message.body);
  return ack != nullptr && ack->code == absl::StatusCode::kOk;
}

// Looks at each message before and after it is handed on.
class WatchingTransport : public Transport, private TransportHandler {
 public:
  WatchingTransport(std::unique_ptr<Transport> inner, FaultHook* hook)
      : hook_(hook), inner_(std::move(inner)), address_(inner_->address()) {
    inner_->SetHandler(this);
    // A transport that goes sends what it has first.
    hook_->SetFlush([this] { inner_.reset(); });
  }

  const Endpoint& address() const final { return address_; }
  void SetHandler(TransportHandler* handler) final { handler_ = handler; }
  void Disconnect(const Endpoint& peer) final { inner_->Disconnect(peer); }

  absl::Status Send(const Endpoint& to, Channel channel, Packet packet) final {
    if (!hook_->armed()) return inner_->Send(to, channel, std::move(packet));
    const absl::StatusOr<Message> message = DecodeMessage(packet, WireLimits());
    if (message.ok()) BeforeSend(to, *message);
    const absl::Status status = inner_->Send(to, channel, std::move(packet));
    if (message.ok() && status.ok()) AfterSend(to, *message);
    return status;
  }

 protected:
  FaultHook& hook() { return *hook_; }
  virtual void BeforeSend(const Endpoint& to, const Message& message) = 0;
  virtual void AfterSend(const Endpoint& to, const Message& message) = 0;
  virtual void BeforeHandling(const Message& message) = 0;
  virtual void AfterHandling(const Message& message) = 0;

 private:
  void OnLinkLost(const Endpoint& peer) final { handler_->OnLinkLost(peer); }
  void OnPacket(Packet packet) final {
    if (!hook_->armed()) return handler_->OnPacket(std::move(packet));
    const absl::StatusOr<Message> message = DecodeMessage(packet, WireLimits());
    if (message.ok()) BeforeHandling(*message);
    handler_->OnPacket(std::move(packet));
    if (message.ok()) AfterHandling(*message);
  }

  FaultHook* const hook_;
  std::unique_ptr<Transport> inner_;
  const Endpoint address_;
  TransportHandler* handler_ = nullptr;
};

// --- replica ---------------------------------------------------------------------------

// What its transport and its device have to tell each other.
struct ReplicaLook {
  std::optional<StageId> stage;
  std::set<WorkId> begun;    // on the device
  std::set<WorkId> in_hand;  // the device has it, and nobody was told that it is accepted
  Version joining{0};        // it is told to load
  Step applying{0};
};

ReplicaLook& Look() {
  static ReplicaLook look;
  return look;
}

class ReplicaWatch final : public WatchingTransport {
 public:
  explicit ReplicaWatch(std::unique_ptr<Transport> inner)
      : WatchingTransport(std::move(inner), &ReplicaHook()) {}

 private:
  void BeforeHandling(const Message& message) override {
    if (const auto* welcome = std::get_if<Welcome>(&message.body)) {
      hook().OnWelcome(welcome->incarnation, welcome->stage);
      Look() = ReplicaLook();
      Look().stage = welcome->stage;
    } else if (const auto* view = std::get_if<View>(&message.body)) {
      std::map<uint32_t, int> count;
      for (const Member& member : view->members) ++count[Value(member.stage)];
      hook().OnView(count);
    } else if (const auto* forward = std::get_if<Forward>(&message.body)) {
      if (Adds(*forward)) asked_[{message.sender, message.request}] = forward->work;
    } else if (const auto* load = std::get_if<LoadState>(&message.body)) {
      Look().joining = load->state.version;
    } else if (std::holds_alternative<Chunk>(message.body)) {
      hook().Reached("joining", Step{Value(Look().joining) + 1});
    } else if (const auto* fetch = std::get_if<Fetch>(&message.body)) {
      const bool saves = message.sender.counter == 0;
      fetches_[message.request] = {Step{Value(fetch->version) + 1}, saves};
    } else if (const auto* reduce = std::get_if<Reduce>(&message.body)) {
      hook().Reached("before_sending_pieces", reduce->plan.id.step);
    } else if (const auto* apply = std::get_if<Apply>(&message.body)) {
      Look().applying = apply->decision.step;
      hook().OnDecided(apply->decision.step);
      hook().Reached("between_decision_and_apply", apply->decision.step);
    }
  }

  void AfterHandling(const Message& message) override {
    const auto sent = sent_.find(message.reply_to);
    if (message.reply_to == 0 || sent == sent_.end()) return;
    const Step step = sent->second;
    sent_.erase(sent);
    if (IsOk(message)) hook().Reached("between_forward_and_backward", step);
  }

  void BeforeSend(const Endpoint& to, const Message& message) override {}

  void AfterSend(const Endpoint& to, const Message& message) override {
    if (message.reply_to != 0) AfterReply(message);
    if (const auto* forward = std::get_if<Forward>(&message.body)) {
      if (forward->work.id.kind == WorkKind::kTrain) sent_[message.request] = forward->work.id.step;
    } else if (const auto* notice = std::get_if<Notice>(&message.body)) {
      if (notice->progress == Progress::kAdded) hook().Reached("notified", notice->work.id.step);
    } else if (const auto* sealed = std::get_if<Sealed>(&message.body)) {
      hook().Reached("sealed", sealed->step);
    } else if (const auto* piece = std::get_if<Piece>(&message.body)) {
      hook().Reached("after_sending_pieces", piece->round.step);
    }
  }

  void AfterReply(const Message& message) {
    if (const auto* chunk = std::get_if<Chunk>(&message.body)) {
      const auto fetch = fetches_.find(message.reply_to);
      if (fetch == fetches_.end() || chunk->code != absl::StatusCode::kOk) return;
      const auto [step, saves] = fetch->second;
      fetches_.erase(fetch);
      return hook().Reached(saves ? "giving_to_checkpoint" : "donating", step);
    }
    if (!IsOk(message)) return;
    // A sender repeats what was not answered in time, under the same number.
    for (auto it = asked_.begin(); it != asked_.end(); ++it) {
      if (it->first.second != message.reply_to) continue;
      const WorkId work = it->second;
      asked_.erase(it);
      return OnAccepted(work);
    }
  }

  void OnAccepted(const WorkId& work) {
    hook().OnAccepted(work.id.step, work.id.index);
    if (Look().begun.count(work) == 0) return hook().Reached("queued", work.id.step);
    if (Look().in_hand.erase(work) > 0) hook().Reached("forward", work.id.step);
  }

  static bool Adds(const Forward& forward) {
    if (forward.work.id.kind != WorkKind::kTrain) return false;
    if (!forward.replay) return true;
    for (StageId stage : forward.add_at) {
      if (stage == Look().stage) return true;
    }
    return false;
  }

  std::map<std::pair<Incarnation, uint64_t>, WorkId> asked_;  // by sender and request
  std::map<uint64_t, Step> sent_;                             // by request
  std::map<uint64_t, std::pair<Step, bool>> fetches_;         // by request
};

class WatchingCompute final : public Compute {
 public:
  explicit WatchingCompute(std::unique_ptr<Compute> inner) : inner_(std::move(inner)) {}

  int64_t size() const override { return inner_->size(); }

  void Forward(ForwardInput input, Done<ForwardOutput> done) override {
    const WorkId work = input.work;
    const bool train = work.id.kind == WorkKind::kTrain;
    inner_->Forward(std::move(input), [work, train, done = std::move(done)](auto output) {
      // Elsewhere this is when the next stage has said that it has it.
      const bool last_stage = output.ok() && output->output.empty();
      if (train && last_stage) ReplicaHook().Reached("between_forward_and_backward", work.id.step);
      done(std::move(output));
    });
    if (!train) return;
    Look().begun.insert(work);
    Look().in_hand = {work};
  }

  void Backward(BackwardInput input, Done<BackwardOutput> done) override {
    const Step step = input.work.id.step;
    inner_->Backward(std::move(input), [step, done = std::move(done)](auto output) {
      if (output.ok()) ReplicaHook().Reached("added", step);
      done(std::move(output));
    });
    ReplicaHook().Reached("backward", step);
  }

  void Apply(UpdateScalars scalars, std::vector<Blob> gradient, Done<Hash128> done) override {
    inner_->Apply(scalars, std::move(gradient), std::move(done));
    ReplicaHook().Reached("applying", Look().applying);
  }

  void Load(Blob state, Done<Hash128> done) override {
    inner_->Load(std::move(state), std::move(done));
    ReplicaHook().Reached("loading", Step{Value(Look().joining) + 1});
  }

  void FreeThrough(Step step) override {
    auto& begun = Look().begun;
    while (!begun.empty() && begun.begin()->id.step <= step) begun.erase(begun.begin());
    inner_->FreeThrough(step);
  }

  void Drop(WorkId work) override { inner_->Drop(work); }
  void Decode(Blob encoded, Done<Blob> done) override {
    inner_->Decode(std::move(encoded), std::move(done));
  }
  void Encode(Blob values, Coding coding, Done<Blob> done) override {
    inner_->Encode(std::move(values), coding, std::move(done));
  }
  void Seal(Step step, Done<std::vector<SegmentSummary>> done) override {
    inner_->Seal(step, std::move(done));
  }
  void Read(Step step, std::vector<SegmentId> segments, Done<SegmentSum> done) override {
    inner_->Read(step, std::move(segments), std::move(done));
  }
  void Snapshot(Done<Blob> done) override { inner_->Snapshot(std::move(done)); }
  void Hash(Done<Hash128> done) override { inner_->Hash(std::move(done)); }

 private:
  const std::unique_ptr<Compute> inner_;
};

// --- trainer ---------------------------------------------------------------------------

// The newest step whose record is on disk; the file thread asks too.
std::atomic<uint64_t> decided{0};

class TrainerWatch final : public WatchingTransport {
 public:
  explicit TrainerWatch(std::unique_ptr<Transport> inner)
      : WatchingTransport(std::move(inner), &TrainerHook()) {}

 private:
  void BeforeHandling(const Message& message) override {}

  void AfterHandling(const Message& message) override {
    if (const auto* notice = std::get_if<Notice>(&message.body)) {
      if (notice->progress == Progress::kAdded) hook().Reached("running", notice->work.id.step);
    } else if (const auto* sealed = std::get_if<Sealed>(&message.body)) {
      hook().Reached("sealing", sealed->step);
    } else if (const auto* reduced = std::get_if<Reduced>(&message.body)) {
      if (reduced->code == absl::StatusCode::kOk) hook().Reached("in_round", reduced->round.step);
    }
  }

  void BeforeSend(const Endpoint& to, const Message& message) override {
    const auto* apply = std::get_if<Apply>(&message.body);
    if (apply == nullptr) return;
    decided = Value(apply->decision.step);
    hook().Reached("between_decision_and_apply", apply->decision.step);
  }

  void AfterSend(const Endpoint& to, const Message& message) override {
    const auto* apply = std::get_if<Apply>(&message.body);
    if (apply != nullptr) hook().Reached("applying", apply->decision.step);
  }
};

class WatchingFile final : public WritableFile {
 public:
  WatchingFile(std::unique_ptr<WritableFile> inner, std::string path)
      : inner_(std::move(inner)), path_(std::move(path)) {}

  absl::Status Append(const void* data, size_t size) override {
    if (absl::EndsWith(path_, "/decisions.jsonl")) {
      record_ = StepOf(std::string(static_cast<const char*>(data), size));
      if (Value(record_) > 0) TrainerHook().Reached("before_record", record_);
    }
    const absl::Status status = inner_->Append(data, size);
    if (Value(record_) > 0) TrainerHook().Reached("record_not_synced", record_);
    if (absl::StrContains(path_, "/checkpoints/")) {
      TrainerHook().Reached("in_checkpoint", Step{decided.load()});
    }
    return status;
  }
  absl::Status Sync() override { return inner_->Sync(); }

 private:
  // 0: the record ends no step.
  static Step StepOf(const std::string& line) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    return Step{json.is_object() ? json.value("step", uint64_t{0}) : 0};
  }

  const std::unique_ptr<WritableFile> inner_;
  const std::string path_;
  Step record_{0};
};

class WatchingDisk final : public Disk {
 public:
  explicit WatchingDisk(std::unique_ptr<Disk> inner) : inner_(std::move(inner)) {}

  absl::StatusOr<std::unique_ptr<WritableFile>> Create(const std::string& path) override {
    return Watched(inner_->Create(path), path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForAppend(const std::string& path) override {
    return Watched(inner_->OpenForAppend(path), path);
  }
  absl::StatusOr<std::string> Read(const std::string& path) override { return inner_->Read(path); }
  absl::StatusOr<Blob> Map(const std::string& path) override { return inner_->Map(path); }
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override {
    return inner_->FileSize(path);
  }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return inner_->List(path);
  }
  bool Exists(const std::string& path) override { return inner_->Exists(path); }
  absl::Status MakeDirectories(const std::string& path) override {
    return inner_->MakeDirectories(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return inner_->Rename(from, to);
  }
  absl::Status RemoveFile(const std::string& path) override { return inner_->RemoveFile(path); }
  absl::Status RemoveTree(const std::string& path) override { return inner_->RemoveTree(path); }
  absl::Status SyncDirectory(const std::string& path) override {
    return inner_->SyncDirectory(path);
  }

 private:
  static absl::StatusOr<std::unique_ptr<WritableFile>> Watched(
      absl::StatusOr<std::unique_ptr<WritableFile>> file, const std::string& path) {
    if (!file.ok()) return file.status();
    return std::make_unique<WatchingFile>(*std::move(file), path);
  }

  const std::unique_ptr<Disk> inner_;
};

}  // namespace

std::unique_ptr<Transport> TrainerTransport(std::unique_ptr<Transport> transport) {
  return std::make_unique<TrainerWatch>(std::move(transport));
}

std::unique_ptr<Disk> TrainerDisk(std::unique_ptr<Disk> disk) {
  return std::make_unique<WatchingDisk>(std::move(disk));
}

std::unique_ptr<Transport> ReplicaTransport(std::unique_ptr<Transport> transport) {
  return std::make_unique<ReplicaWatch>(std::move(transport));
}

std::unique_ptr<Compute> ReplicaCompute(std::unique_ptr<Compute> compute, StageId stage) {
  return std::make_unique<WatchingCompute>(std::move(compute));
}

}  // namespace starling
