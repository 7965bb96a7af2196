// What one decision, or one microbatch, costs the trainer's and the router's pure code as the swarm
// grows, beside the order that its header states. One core, CPU time.
//
//   build/bin/scale_bench [--benchmark_filter=Wiring] [--benchmark_min_time=0.5] [...]
//
// Each family prints its time per size, the coefficient of the stated order that fits them best
// ("BigO"), and how far they are from it ("RMS", as a share of their mean).
#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "router/placement.h"
#include "router/wiring.h"
#include "runtime/base/rng.h"
#include "runtime/env/env.h"
#include "runtime/env/transport.h"
#include "runtime/trainer/ledger.h"
#include "runtime/trainer/segment_picker.h"
#include "runtime/trainer/swarm.h"
#include "sync/plan.h"

namespace starling {
namespace {

Incarnation Inc(int64_t counter) { return {Epoch{1}, static_cast<uint32_t>(counter)}; }

std::vector<Incarnation> Incarnations(int64_t count) {
  std::vector<Incarnation> all;
  for (int64_t i = 0; i < count; ++i) all.push_back(Inc(i + 1));
  return all;
}

// --- wiring: once per microbatch and hop ---

// A choice, and the answer to one made earlier: as many microbatches are under way as there are
// candidates.
void BM_WiringChooseAndReport(benchmark::State& state) {
  const int64_t candidates = state.range(0);
  const absl::Time now = absl::UnixEpoch();
  Wiring wiring{Wiring::Options()};
  wiring.SetCandidates(Incarnations(candidates));
  Rng rng(1);
  std::vector<double> service_s(static_cast<size_t>(candidates) + 1);
  for (double& service : service_s) service = 0.01 + 0.03 * rng.Unit();
  std::deque<Incarnation> under_way;
  for (int64_t i = 0; i < candidates; ++i) under_way.push_back(*wiring.Choose(now));
  for (auto _ : state) {
    under_way.push_back(*wiring.Choose(now));
    const Incarnation back = under_way.front();
    under_way.pop_front();
    wiring.OnFinished(back);
    wiring.OnReport(back, service_s[back.counter], wiring.outstanding(back));
  }
  state.SetComplexityN(candidates);
}
BENCHMARK(BM_WiringChooseAndReport)
    ->RangeMultiplier(10)
    ->Range(10, 10000)
    ->Complexity(benchmark::oLogN);

// --- the ledger: once per microbatch, and once per fence ---

constexpr uint32_t kLedgerStages = 10;

Incarnation Holder(uint32_t stage, uint32_t index) {
  return Inc(1 + static_cast<int64_t>(stage) * 1000 + index % 1000);
}

// Everything that a microbatch without trouble enters: sent, accepted, added at each stage.
void Enter(uint32_t index, Ledger* ledger) {
  const AttemptId attempt{Inc(0), index + 1};
  ledger->OnSent(index, attempt, Holder(0, index));
  ledger->OnAccepted(index, attempt);
  for (uint32_t stage = kLedgerStages; stage-- > 0;) {
    ledger->OnAdded(index, attempt, StageId{stage}, Holder(stage, index));
  }
}

// A whole step's entries; "entry" is the time of one of them.
void BM_LedgerStep(benchmark::State& state) {
  const auto microbatches = static_cast<uint32_t>(state.range(0));
  for (auto _ : state) {
    Ledger ledger(kLedgerStages, microbatches);
    for (uint32_t index = 0; index < microbatches; ++index) Enter(index, &ledger);
    benchmark::DoNotOptimize(ledger.complete());
  }
  const double entries = (2.0 + kLedgerStages) * microbatches;
  state.counters["entry"] = benchmark::Counter(
      entries, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.SetComplexityN(state.range(0));
}
BENCHMARK(BM_LedgerStep)->RangeMultiplier(10)->Range(10, 10000)->Complexity(benchmark::oNLogN);

// One of a stage's replicas is gone after half of the step: what is to be done about it.
void BM_LedgerResolve(benchmark::State& state) {
  const auto microbatches = static_cast<uint32_t>(state.range(0));
  Ledger ledger(kLedgerStages, microbatches);
  Ledger::FenceAnswers answers;
  for (uint32_t stage = 0; stage < kLedgerStages; ++stage) {
    for (uint32_t i = 0; i < 1000 && i < microbatches; ++i) {
      if (stage != 5 || i != 0) answers[Holder(stage, i)].stage = StageId{stage};
    }
  }
  for (uint32_t index = 0; index < microbatches; index += 2) {
    Enter(index, &ledger);
    for (uint32_t stage = 0; stage < kLedgerStages; ++stage) {
      const auto answer = answers.find(Holder(stage, index));
      if (answer == answers.end()) continue;
      HeldWork held;
      held.work = {{Step{1}, WorkKind::kTrain, index}, {Inc(0), index + 1}};
      held.state = HeldState::kDone;
      if (stage > 0) held.upstream = Holder(stage - 1, index);
      if (stage + 1 < kLedgerStages) held.downstream = Holder(stage + 1, index);
      held.downstream_attempt = held.work.attempt;
      held.accepted = held.output_kept = held.gradient_kept = true;
      answer->second.held.push_back(held);
    }
  }
  for (auto _ : state) {
    Ledger copy = ledger;
    benchmark::DoNotOptimize(copy.Resolve(answers));
  }
  state.SetComplexityN(state.range(0));
}
BENCHMARK(BM_LedgerResolve)->RangeMultiplier(10)->Range(100, 10000)->Complexity(benchmark::oNLogN);

// --- placement: once per period, departure and newcomer ---

PlacementPicture Picture(int64_t replicas, int64_t stages) {
  PlacementPicture picture;
  picture.stages.assign(static_cast<size_t>(stages), {1, absl::Seconds(30)});
  picture.departure_rate = 1.0 / (8 * 3600);
  Rng rng(2);
  for (int64_t i = 0; i < replicas; ++i) {
    PlacementReplica replica;
    replica.id = Inc(i + 1);
    // A burst of departures has hit the first stage.
    int64_t stage = i % stages;
    if (stage == 0 && i % 3 == 0) stage = stages - 1;
    replica.stage = static_cast<StageId>(stage);
    replica.speed = 1 + 3 * rng.Unit();
    picture.replicas.push_back(replica);
  }
  return picture;
}

void BM_ChooseStage(benchmark::State& state) {
  const PlacementPicture picture = Picture(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(ChooseStage(picture, 1));
  state.SetComplexityN(state.range(0));
}
BENCHMARK(BM_ChooseStage)
    ->Args({100, 10})
    ->Args({1000, 10})
    ->Args({10000, 10})
    ->Complexity(benchmark::oNLogN);

void BM_ProposeMoves(benchmark::State& state) {
  const PlacementPicture picture = Picture(state.range(0), state.range(1));
  size_t moves = 0;
  for (auto _ : state) moves = ProposeMoves(picture, PlacementOptions()).moves.size();
  state.counters["moves"] = static_cast<double>(moves);
  state.SetComplexityN(state.range(0));
}
BENCHMARK(BM_ProposeMoves)
    ->Args({100, 10})
    ->Args({1000, 10})
    ->Args({10000, 10})
    ->Complexity(benchmark::oNLogN);

// As many stages as are likely with so many replicas.
void BM_ProposeMovesManyStages(benchmark::State& state) { BM_ProposeMoves(state); }
BENCHMARK(BM_ProposeMovesManyStages)->Args({1000, 30})->Args({10000, 100})->Args({10000, 300});

// --- the plan of a stage's round: once per stage and decision ---

constexpr uint32_t kEach = 4;  // microbatches per replica
constexpr int64_t kStageElements = 50000000;

std::map<Incarnation, std::vector<SegmentSummary>> SealedBy(int64_t replicas) {
  std::map<Incarnation, std::vector<SegmentSummary>> sealed;
  for (int64_t i = 0; i < replicas; ++i) {
    SegmentSummary segment;
    segment.id = SegmentId{1};
    for (uint32_t k = 0; k < kEach; ++k) {
      const auto index = static_cast<uint32_t>(i + k * replicas);
      segment.entries.push_back({index, {Inc(0), index + 1}, 1.0, 1024});
    }
    sealed[Inc(i + 1)].push_back(std::move(segment));
  }
  return sealed;
}

void BM_PickAndPlan(benchmark::State& state) {
  const auto sealed = SealedBy(state.range(0));
  const auto microbatches = static_cast<uint32_t>(state.range(0)) * kEach;
  for (auto _ : state) {
    SegmentPick pick = PickSegments(sealed, microbatches, {});
    benchmark::DoNotOptimize(
        EqualParts(kStageElements, static_cast<uint32_t>(pick.members.size())));
  }
  state.SetComplexityN(state.range(0));
}
BENCHMARK(BM_PickAndPlan)->RangeMultiplier(10)->Range(10, 1000)->Complexity(benchmark::oNLogN);

// A tenth of the members of a round have died in it.
void BM_KeepParts(benchmark::State& state) {
  const int64_t replicas = state.range(0);
  RoundPlan before;
  std::vector<RoundMemberPlan> now;
  for (const Incarnation& member : Incarnations(replicas)) {
    before.members.push_back({member, {{SegmentId{1}, Hash128{}}}});
    if (member.counter % 10 != 0) now.push_back(before.members.back());
  }
  before.parts = EqualParts(kStageElements, static_cast<uint32_t>(replicas));
  for (auto _ : state) benchmark::DoNotOptimize(KeepParts(before, now));
  state.SetComplexityN(replicas);
}
BENCHMARK(BM_KeepParts)->RangeMultiplier(10)->Range(10, 1000)->Complexity(benchmark::oNLogN);

// --- the View: once per change of the membership ---

class StillEnv : public Env {
 public:
  absl::Time Now() const override { return absl::UnixEpoch(); }
  TimerId Schedule(absl::Duration, std::function<void()>) override { return TimerId{++timers_}; }
  void Cancel(TimerId) override {}
  uint64_t Random() override { return 1; }

 private:
  uint64_t timers_ = 0;
};

// Takes packets and counts their bytes.
class CountingTransport : public Transport {
 public:
  const Endpoint& address() const override { return address_; }
  void SetHandler(TransportHandler*) override {}
  absl::Status Send(const Endpoint&, Channel, Packet packet) override {
    bytes_ += packet.envelope.size_bytes();
    return absl::OkStatus();
  }
  void Disconnect(const Endpoint&) override {}
  uint64_t bytes() const { return bytes_; }

 private:
  const Endpoint address_{"tcp://10.0.0.1:49200", "tcp://10.0.0.1:49201"};
  uint64_t bytes_ = 0;
};

class ViewSender {
 public:
  ViewSender(int64_t replicas, uint32_t stages)
      : swarm_(&env_, &transport_, RunId{1}, Epoch{1}, stages) {
    for (int64_t i = 0; i < replicas; ++i) {
      Replica replica;
      replica.member.incarnation = Inc(i + 1);
      replica.member.peer = static_cast<PeerId>(i + 1);
      replica.member.stage = static_cast<StageId>(i % stages);
      const std::string host =
          "tcp://10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250);
      replica.member.address = {host + ":49200", host + ":49201"};
      swarm_.Add(std::move(replica));
    }
  }

  // Lets go of what was sent too, as its answers would.
  void Send() {
    swarm_.SendViews();
    swarm_.outbox().CancelAll();
  }
  // One replica of a stage in the middle is about to leave, or not any more.
  void Change() {
    const Incarnation one = *swarm_.OfStage(StageId{swarm_.stages() / 2}).begin();
    swarm_.SetDraining(one, !swarm_.Find(one)->member.draining);
  }
  double bytes() const { return static_cast<double>(transport_.bytes()); }

 private:
  StillEnv env_;
  CountingTransport transport_;
  Swarm swarm_;
};

// The first View: everyone is told who serves its stage and the next ones. All is as much as there
// are replicas times replicas per stage, which is what N stands for; "MB" is what is sent.
void BM_FirstView(benchmark::State& state) {
  double bytes = 0;
  for (auto _ : state) {
    state.PauseTiming();
    ViewSender sender(state.range(0), static_cast<uint32_t>(state.range(1)));
    state.ResumeTiming();
    sender.Send();
    bytes = sender.bytes();
  }
  state.counters["MB"] = bytes / 1e6;
  state.SetComplexityN(state.range(0) * state.range(0) / state.range(1));
}
BENCHMARK(BM_FirstView)
    ->Args({100, 10})
    ->Args({1000, 20})
    ->Args({10000, 100})
    ->Unit(benchmark::kMillisecond)
    ->Complexity(benchmark::oN);

// One replica comes, goes or is about to go: N is the replicas told times what each is told.
void BM_ViewAfterAChange(benchmark::State& state) {
  ViewSender sender(state.range(0), static_cast<uint32_t>(state.range(1)));
  sender.Send();
  const double before = sender.bytes();
  for (auto _ : state) {
    sender.Change();
    sender.Send();
  }
  state.counters["MB"] = (sender.bytes() - before) / 1e6 / static_cast<double>(state.iterations());
  const int64_t near = 3 * state.range(0) / state.range(1);
  state.SetComplexityN(near * near);
}
BENCHMARK(BM_ViewAfterAChange)
    ->Args({100, 10})
    ->Args({1000, 20})
    ->Args({10000, 100})
    ->Unit(benchmark::kMillisecond)
    ->Complexity(benchmark::oN);

}  // namespace
}  // namespace starling

BENCHMARK_MAIN();
