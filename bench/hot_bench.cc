// Hot paths that are pure code: envelopes, the mailbox, rounds, snapshots, the update. CPU time of
// one core (Google Benchmark).
//
//   build/bin/hot_bench [--benchmark_filter=Round] [--benchmark_min_time=0.5] [...]
//
// What passes over memory stands beside the pass that it cannot be faster than.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/lane.h"
#include "runtime/reactor/mailbox.h"
#include "runtime/wire/wire.h"
#include "stages/optimizer.h"
#include "sync/plan.h"
#include "sync/round.h"

namespace starling {
namespace {

constexpr int64_t kElements = int64_t{16} << 20;  // 64 MiB: in no cache

// --- envelopes: twice per microbatch and hop ---

Message ForwardOf(int64_t elements) {
  Message message;
  message.run = RunId{7};
  message.sender = {Epoch{1}, 3};
  message.request = 12;
  Forward forward;
  forward.work = {{Step{5}, WorkKind::kTrain, 4}, {{Epoch{1}, 0}, 9}};
  forward.version = Version{4};
  forward.input = MutableBlob::Zeros(DType::kF32, {1, 1, elements}).Freeze();
  forward.targets = MutableBlob::Zeros(DType::kI32, {1, 128}).Freeze();
  message.body = std::move(forward);
  return message;
}

void BM_EnvelopeEncode(benchmark::State& state) {
  const Message message = ForwardOf(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(EncodeMessage(message));
}
BENCHMARK(BM_EnvelopeEncode)->Arg(1024)->Arg(1 << 20);

void BM_EnvelopeDecode(benchmark::State& state) {
  const Packet packet = EncodeMessage(ForwardOf(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(DecodeMessage(packet, WireLimits()));
}
BENCHMARK(BM_EnvelopeDecode)->Arg(1024)->Arg(1 << 20);

// --- the mailbox: four times per microbatch and stage. A closure in and out, the signal too ---

void BM_MailboxPushAndTake(benchmark::State& state) {
  Mailbox<std::function<void()>> mailbox(1024);
  int64_t count = 0;
  for (auto _ : state) {
    mailbox.Push([&count] { ++count; });
    for (const auto& closure : mailbox.Take()) closure();
  }
  benchmark::DoNotOptimize(count);
}
BENCHMARK(BM_MailboxPushAndTake);

// --- rounds: all members' work of one, delivered in memory ---

RoundPlan PlanOf(uint32_t members) {
  RoundPlan plan;
  plan.id = {Epoch{1}, Step{5}, 0, 1};
  for (uint32_t i = 0; i < members; ++i) {
    plan.members.push_back({{Epoch{1}, i + 1}, {{SegmentId{0}, {}}}});
    plan.expected_lane += LaneTerm(Step{5}, i, StageId{0});
  }
  plan.parts = EqualParts(kElements, members);
  return plan;
}

// Messages under way, with their senders.
using Flying = std::deque<std::pair<Incarnation, RoundSend>>;

void Post(Incarnation from, std::vector<RoundSend> sends, Flying* flying) {
  for (RoundSend& send : sends) flying->emplace_back(from, std::move(send));
}

void BM_Round(benchmark::State& state) {
  const auto count = static_cast<uint32_t>(state.range(0));
  const RoundPlan plan = PlanOf(count);
  const Blob gradient = MutableBlob::Zeros(DType::kF32, {kElements}).Freeze();
  for (auto _ : state) {
    std::vector<std::unique_ptr<RoundMember>> members;
    Flying flying;
    for (uint32_t i = 0; i < count; ++i) {
      members.push_back(
          std::make_unique<RoundMember>(plan, plan.members[i].incarnation, kElements));
      Post(plan.members[i].incarnation,
           members[i]->Contribute({gradient, LaneTerm(Step{5}, i, StageId{0})}), &flying);
    }
    while (!flying.empty()) {
      const auto [from, send] = std::move(flying.front());
      flying.pop_front();
      RoundMember& to = *members[send.to.counter - 1];
      if (const auto* piece = std::get_if<Piece>(&send.message)) {
        auto more = to.OnPiece(from, *piece);
        if (more.ok()) Post(send.to, *std::move(more), &flying);
      } else {
        benchmark::DoNotOptimize(to.OnResult(from, std::get<Result>(send.message)));
      }
    }
    for (const auto& member : members) {
      if (!member->complete() || !member->status().ok()) state.SkipWithError("incomplete");
    }
  }
  // Of the gradient, by each member.
  state.SetBytesProcessed(state.iterations() * int64_t{count} * kElements * 4);
}
BENCHMARK(BM_Round)->Arg(2)->Arg(4)->Unit(benchmark::kMillisecond);

// --- what passes over memory ---

struct Stage {
  Stage() {
    TensorSpec tensor;
    tensor.name = "matrix";
    tensor.shape = {kElements};
    tensor.decay = true;
    tensor.count = kElements;
    layout.tensors = {tensor};
    layout.size = kElements;
  }
  StageLayout layout;
  std::vector<float> state = std::vector<float>(kStatePlanes * kElements, 0.5f);
};

// Reads and writes what the update does: the state is read and written, the gradient read.
constexpr int64_t kUpdateBytes = (2 * kStatePlanes + 1) * kElements * 4;

void BM_Update(benchmark::State& state) {
  Stage stage;
  const Blob gradient = MutableBlob::Zeros(DType::kF32, {kElements}).Freeze();
  UpdateScalars scalars;
  scalars.step_size = 1e-3f;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        ApplyAdamW(stage.layout, scalars, {gradient}, absl::MakeSpan(stage.state)));
  }
  state.SetBytesProcessed(state.iterations() * kUpdateBytes);
}
BENCHMARK(BM_Update)->Unit(benchmark::kMillisecond);

void BM_PlainReadModifyWrite(benchmark::State& state) {
  Stage stage;
  const std::vector<float> gradient(kElements, 0.25f);
  float* const p = stage.state.data();
  for (auto _ : state) {
    for (int64_t i = 0; i < kElements; ++i) {
      const float g = gradient[static_cast<size_t>(i)];
      p[i] += g;
      p[i + kElements] += g;
      p[i + 2 * kElements] += g;
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kUpdateBytes);
}
BENCHMARK(BM_PlainReadModifyWrite)->Unit(benchmark::kMillisecond);

void BM_StateHash(benchmark::State& state) {
  const Stage stage;
  for (auto _ : state) {
    benchmark::DoNotOptimize(HashBytes(stage.state.data(), stage.state.size() * sizeof(float)));
  }
  state.SetBytesProcessed(state.iterations() * kStatePlanes * kElements * 4);
}
BENCHMARK(BM_StateHash)->Unit(benchmark::kMillisecond);

// A copy of the state into memory of its own, as a snapshot is taken.
void BM_Snapshot(benchmark::State& state) {
  const Stage stage;
  for (auto _ : state) benchmark::DoNotOptimize(Blob::OfFloats(stage.state));
  state.SetBytesProcessed(state.iterations() * kStatePlanes * kElements * 4);
}
BENCHMARK(BM_Snapshot)->Unit(benchmark::kMillisecond);

void BM_PlainCopy(benchmark::State& state) {
  const Stage stage;
  std::vector<float> to(stage.state.size());
  for (auto _ : state) {
    std::memcpy(to.data(), stage.state.data(), to.size() * sizeof(float));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kStatePlanes * kElements * 4);
}
BENCHMARK(BM_PlainCopy)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace starling

BENCHMARK_MAIN();
