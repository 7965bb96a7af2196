// What one decision, or one microbatch, costs the trainer's and the router's pure code as the swarm
// grows, beside the order that its header states.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/google_bench.h"
#include "router/placement.h"
#include "router/wiring.h"
#include "runtime/base/rng.h"
#include "runtime/env/env.h"
#include "runtime/env/transport.h"
#include "runtime/trainer/ledger.h"
#include "runtime/trainer/segment_picker.h"
#include "runtime/trainer/swarm.h"
#include "sync/plan.h"

namespace starling::bench {
namespace {

using benchmark::State;

Incarnation Inc(int64_t counter) { return {Epoch{1}, static_cast<uint32_t>(counter)}; }

std::vector<Incarnation> Incarnations(int64_t count) {
  std::vector<Incarnation> all;
  for (int64_t i = 0; i < count; ++i) all.push_back(Inc(i + 1));
  return all;
}

// --- wiring: once per microbatch and hop ---

// A choice, and the answer to one made earlier: as many microbatches are under way as there are
// candidates.
void ChooseAndReport(State& state) {
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

// A whole step's entries.
void EnterStep(State& state) {
  const auto microbatches = static_cast<uint32_t>(state.range(0));
  for (auto _ : state) {
    Ledger ledger(kLedgerStages, microbatches);
    for (uint32_t index = 0; index < microbatches; ++index) Enter(index, &ledger);
    benchmark::DoNotOptimize(ledger.complete());
  }
  state.SetComplexityN(state.range(0));
}

// One of a stage's replicas is gone after half of the step: what is to be done about it.
void Resolve(State& state) {
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

void StageOfOne(State& state) {
  const PlacementPicture picture = Picture(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(ChooseStage(picture, 1));
  state.SetComplexityN(state.range(0));
}

void Moves(State& state) {
  const PlacementPicture picture = Picture(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(ProposeMoves(picture, PlacementOptions()));
  state.SetComplexityN(state.range(0));
}

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

void PickAndPlan(State& state) {
  const auto sealed = SealedBy(state.range(0));
  const auto microbatches = static_cast<uint32_t>(state.range(0)) * kEach;
  for (auto _ : state) {
    SegmentPick pick = PickSegments(sealed, microbatches, {});
    benchmark::DoNotOptimize(
        EqualParts(kStageElements, static_cast<uint32_t>(pick.members.size())));
  }
  state.SetComplexityN(state.range(0));
}

// A tenth of the members of a round have died in it.
void PartsKept(State& state) {
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

class StillTransport : public Transport {
 public:
  const Endpoint& address() const override { return address_; }
  void SetHandler(TransportHandler*) override {}
  absl::Status Send(const Endpoint&, Channel, Packet) override { return absl::OkStatus(); }
  void Disconnect(const Endpoint&) override {}

 private:
  const Endpoint address_{"tcp://10.0.0.1:49200", "tcp://10.0.0.1:49201"};
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

 private:
  StillEnv env_;
  StillTransport transport_;
  Swarm swarm_;
};

// Everyone is told who serves its stage and the next ones: as much as there are replicas times
// replicas per stage.
void FirstView(State& state) {
  for (auto _ : state) {
    state.PauseTiming();
    ViewSender sender(state.range(0), static_cast<uint32_t>(state.range(1)));
    state.ResumeTiming();
    sender.Send();
  }
  state.SetComplexityN(state.range(0) * state.range(0) / state.range(1));
}

// One replica is about to go: those are told that are near it, each of as many.
void ViewAfterAChange(State& state) {
  ViewSender sender(state.range(0), static_cast<uint32_t>(state.range(1)));
  sender.Send();
  for (auto _ : state) {
    sender.Change();
    sender.Send();
  }
  const int64_t near = state.range(0) / state.range(1);
  state.SetComplexityN(near * near);
}

using Sizes = std::vector<std::vector<int64_t>>;  // N, and the stages where they matter

struct Row {
  const char* name;
  void (*run)(State&);
  Sizes sizes;
  benchmark::BigO order;   // of the number that it gives as its complexity
  const char* order_name;  // by N
};

std::vector<Row> Rows() {
  using benchmark::oLogN;
  using benchmark::oN;
  using benchmark::oNLogN;
  const Sizes many = {{10}, {100}, {1000}, {10000}};
  const Sizes fences = {{100}, {1000}, {10000}};
  const Sizes ten_stages = {{100, 10}, {1000, 10}, {10000, 10}};
  const Sizes more_stages = {{1000, 30}, {10000, 300}};
  const Sizes rounds = {{10}, {100}, {1000}};
  const Sizes views = {{100, 10}, {1000, 20}, {10000, 100}};
  return {
      {"wiring: a choice among N, an answer", ChooseAndReport, many, oLogN, "log N"},
      {"ledger: all entries of N microbatches", EnterStep, many, oNLogN, "N log N"},
      {"ledger: a fence in N microbatches", Resolve, fences, oNLogN, "N log N"},
      {"placement: one more of N replicas", StageOfOne, ten_stages, oNLogN, "N log N"},
      {"placement: moves, 10 stages", Moves, ten_stages, oNLogN, "N log N"},
      {"placement: moves, N/33 stages", Moves, more_stages, benchmark::oNone, ""},
      {"round: plan of N members", PickAndPlan, rounds, oNLogN, "N log N"},
      {"round: a tenth of N members is gone", PartsKept, rounds, oNLogN, "N log N"},
      {"first View; 10, 20, 100 stages", FirstView, views, oN, "N^2/stages"},
      {"Views after a change; as many", ViewAfterAChange, views, oN, "(N/stages)^2"},
  };
}

std::string Short(double us) { return absl::StrFormat("%.*f", us < 10 ? 2 : us < 100 ? 1 : 0, us); }

}  // namespace

absl::StatusOr<nlohmann::json> RunScale(const BenchOptions& options) {
  const std::vector<Row> rows = Rows();
  for (const Row& row : rows) {
    auto* const family = benchmark::RegisterBenchmark(row.name, row.run);
    for (const std::vector<int64_t>& size : row.sizes) family->Args(size);
    if (row.order != benchmark::oNone) family->Complexity(row.order);
  }
  std::printf(
      "\nCost of one call as the swarm grows, CPU us of one core, median of %d rounds in turn\n"
      "%-38s %7s %7s %7s %7s  %-12s %6s\n",
      RoundsOf(options), "N:", "10", "100", "1000", "10000", "stated order", "off it");
  const Measured measured = RunRegistered(options);
  nlohmann::json json = nlohmann::json::array();
  for (const Row& row : rows) {
    std::map<int64_t, std::vector<double>> us;
    for (const Timed& timed : measured.timed) {
      if (timed.name == row.name) us[timed.size] = timed.cpu_us;
    }
    nlohmann::json entry = {{"what", row.name}, {"order", row.order_name}};
    std::string line = absl::StrFormat("%-38s", row.name);
    for (const int64_t n : {10, 100, 1000, 10000}) {
      const auto found = us.find(n);
      absl::StrAppendFormat(&line, " %7s", found == us.end() ? "" : Short(Median(found->second)));
      if (found != us.end()) entry["cpu_us"][absl::StrCat(n)] = found->second;
    }
    if (const auto off = measured.off_order.find(row.name); off != measured.off_order.end()) {
      absl::StrAppendFormat(&line, "  %-12s %4.0f %%", row.order_name, 100 * off->second);
      entry["off_order"] = off->second;
    }
    std::printf("%s\n", line.c_str());
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace starling::bench
