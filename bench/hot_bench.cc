// Hot paths that are pure code: envelopes, the mailbox, rounds, snapshots, the update. What passes
// over memory stands beside the pass that it cannot be faster than.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/google_bench.h"
#include "runtime/base/check.h"
#include "runtime/base/lane.h"
#include "runtime/reactor/mailbox.h"
#include "runtime/wire/wire.h"
#include "stages/optimizer.h"
#include "sync/plan.h"
#include "sync/round.h"

namespace starling::bench {
namespace {

using benchmark::State;

// The first argument of each benchmark that passes over memory: elements of a tensor or a stage.
constexpr int64_t kSmall = 1024;
constexpr int64_t kMedium = int64_t{1} << 20;
constexpr int64_t kLarge = int64_t{16} << 20;  // 64 MiB: in no cache

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

void EncodeEnvelope(State& state) {
  const Message message = ForwardOf(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(EncodeMessage(message));
}

void DecodeEnvelope(State& state) {
  const Packet packet = EncodeMessage(ForwardOf(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(DecodeMessage(packet, WireLimits()));
}

// --- the mailbox: four times per microbatch and stage. A closure in and out, the signal too ---

void PushAndTake(State& state) {
  Mailbox<std::function<void()>> mailbox(1024);
  int64_t count = 0;
  for (auto _ : state) {
    mailbox.Push([&count] { ++count; });
    for (const auto& closure : mailbox.Take()) closure();
  }
  benchmark::DoNotOptimize(count);
}

// --- rounds: all members' work of one, delivered in memory ---

RoundPlan PlanOf(uint32_t members, int64_t elements) {
  RoundPlan plan;
  plan.id = {Epoch{1}, Step{5}, 0, 1};
  for (uint32_t i = 0; i < members; ++i) {
    plan.members.push_back({{Epoch{1}, i + 1}, {{SegmentId{0}, {}}}});
    plan.expected_lane += LaneTerm(Step{5}, i, StageId{0});
  }
  plan.parts = EqualParts(elements, members);
  return plan;
}

// Messages under way, with their senders.
using Flying = std::deque<std::pair<Incarnation, RoundSend>>;

void Post(Incarnation from, std::vector<RoundSend> sends, Flying* flying) {
  for (RoundSend& send : sends) flying->emplace_back(from, std::move(send));
}

void Round(State& state) {
  const int64_t elements = state.range(0);
  const auto count = static_cast<uint32_t>(state.range(1));
  const RoundPlan plan = PlanOf(count, elements);
  const Blob gradient = MutableBlob::Zeros(DType::kF32, {elements}).Freeze();
  for (auto _ : state) {
    std::vector<std::unique_ptr<RoundMember>> members;
    Flying flying;
    for (uint32_t i = 0; i < count; ++i) {
      members.push_back(std::make_unique<RoundMember>(plan, plan.members[i].incarnation, elements));
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
      STARLING_CHECK(member->complete() && member->status().ok());
    }
  }
  // Of the gradient, by each member.
  state.SetBytesProcessed(state.iterations() * int64_t{count} * elements * 4);
}

// --- what passes over memory ---

struct Stage {
  explicit Stage(int64_t elements) : state(static_cast<size_t>(kStatePlanes * elements), 0.5f) {
    TensorSpec tensor;
    tensor.name = "matrix";
    tensor.shape = {elements};
    tensor.decay = true;
    tensor.count = elements;
    layout.tensors = {tensor};
    layout.size = elements;
  }
  int64_t bytes() const { return static_cast<int64_t>(state.size() * sizeof(float)); }

  StageLayout layout;
  std::vector<float> state;
};

// What an update reads and writes: the state both, the gradient is read.
int64_t UpdateBytes(int64_t elements) { return (2 * kStatePlanes + 1) * elements * 4; }

void Update(State& state) {
  Stage stage(state.range(0));
  const Blob gradient = MutableBlob::Zeros(DType::kF32, {state.range(0)}).Freeze();
  UpdateScalars scalars;
  scalars.step_size = 1e-3f;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        ApplyAdamW(stage.layout, scalars, {gradient}, absl::MakeSpan(stage.state)));
  }
  state.SetBytesProcessed(state.iterations() * UpdateBytes(state.range(0)));
}

void PlainUpdate(State& state) {
  const int64_t elements = state.range(0);
  Stage stage(elements);
  const std::vector<float> gradient(static_cast<size_t>(elements), 0.25f);
  float* const p = stage.state.data();
  for (auto _ : state) {
    for (int64_t i = 0; i < elements; ++i) {
      const float g = gradient[static_cast<size_t>(i)];
      p[i] += g;
      p[i + elements] += g;
      p[i + 2 * elements] += g;
    }
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * UpdateBytes(state.range(0)));
}

void HashState(State& state) {
  const Stage stage(state.range(0));
  for (auto _ : state) {
    benchmark::DoNotOptimize(HashBytes(stage.state.data(), static_cast<size_t>(stage.bytes())));
  }
  state.SetBytesProcessed(state.iterations() * stage.bytes());
}

// A copy of the state into memory of its own, as a snapshot is taken.
void Snapshot(State& state) {
  const Stage stage(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(Blob::OfFloats(stage.state));
  state.SetBytesProcessed(state.iterations() * stage.bytes());
}

void PlainCopy(State& state) {
  const Stage stage(state.range(0));
  std::vector<float> to(stage.state.size());
  for (auto _ : state) {
    std::memcpy(to.data(), stage.state.data(), to.size() * sizeof(float));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * stage.bytes());
}

void Register(int64_t large) {
  using benchmark::RegisterBenchmark;
  RegisterBenchmark("envelope, encoded", EncodeEnvelope)->Arg(kSmall)->Arg(kMedium);
  RegisterBenchmark("envelope, decoded", DecodeEnvelope)->Arg(kSmall)->Arg(kMedium);
  RegisterBenchmark("mailbox, a closure in and out", PushAndTake);
  RegisterBenchmark("round of 2, in memory", Round)->Args({large, 2});
  RegisterBenchmark("round of 4, in memory", Round)->Args({large, 4});
  RegisterBenchmark("update (AdamW)", Update)->Arg(large);
  RegisterBenchmark("  a plain loop over as much", PlainUpdate)->Arg(large);
  RegisterBenchmark("hash of a state", HashState)->Arg(large);
  RegisterBenchmark("snapshot of a state", Snapshot)->Arg(large);
  RegisterBenchmark("  its copy into used memory", PlainCopy)->Arg(large);
}

}  // namespace

absl::StatusOr<nlohmann::json> RunHot(const BenchOptions& options) {
  Register(options.short_form ? kMedium : kLarge);
  std::printf(
      "\nHot paths, CPU time of one core, median of %d rounds in turn\n%-32s %12s %12s %9s\n",
      RoundsOf(options), "", "KiB of fp32", "us", "GB/s");
  nlohmann::json rows = nlohmann::json::array();
  for (const Timed& timed : RunRegistered(options).timed) {
    const std::string kib = timed.size == 0 ? "" : absl::StrCat(timed.size * 4 / 1024);
    const std::string rate =
        timed.bytes_per_s == 0 ? "" : absl::StrFormat("%.2f", timed.bytes_per_s / 1e9);
    std::printf("%-32s %12s %12.2f %9s\n", timed.name.c_str(), kib.c_str(), Median(timed.cpu_us),
                rate.c_str());
    rows.push_back({{"what", std::string(absl::StripLeadingAsciiWhitespace(timed.name))},
                    {"bytes", timed.size * 4},
                    {"cpu_us", timed.cpu_us}});
    if (timed.bytes_per_s != 0) rows.back()["gb_s"] = timed.bytes_per_s / 1e9;
  }
  return rows;
}

}  // namespace starling::bench
