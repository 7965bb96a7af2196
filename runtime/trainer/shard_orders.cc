#include "runtime/trainer/shard_orders.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace starling {
namespace {

constexpr size_t kHolders = 2;  // per stage

// What it may not be named: a replica's word is not taken for the names of files.
absl::Status CheckNames(uint32_t index, const std::vector<ShardFile>& files) {
  const std::vector<std::string> names = ShardFileNames(index);
  bool as_expected = files.size() == names.size();
  for (size_t i = 0; as_expected && i < names.size(); ++i) as_expected = files[i].name == names[i];
  if (as_expected) return absl::OkStatus();
  return absl::InvalidArgumentError("it has written other files than it was asked for");
}

}  // namespace

ShardOrders::ShardOrders(Swarm* swarm, Era era, Version version, uint64_t save,
                         const std::vector<StageLayout>* layouts, Events events)
    : swarm_(swarm),
      era_(era),
      version_(version),
      save_(save),
      layouts_(layouts),
      events_(std::move(events)),
      states_(layouts->size()),
      parts_(layouts->size()) {}

ShardOrders::~ShardOrders() {
  for (uint32_t stage = 0; stage < parts_.size(); ++stage) Release(StageId{stage});
}

void ShardOrders::Release(StageId stage) {
  for (const auto& [incarnation, holder] : std::exchange(parts_[Value(stage)].holders, {})) {
    if (holder.request != 0) swarm_->outbox().Cancel(holder.request);
    swarm_->Tell(holder.address, Order(ShardOrder::kRelease, stage));
  }
}

bool ShardOrders::Look() {
  bool all = true;
  for (uint32_t stage = 0; stage < parts_.size(); ++stage) {
    all = LookAt(StageId{stage}) && all;
  }
  return all;
}

bool ShardOrders::LookAt(StageId stage) {
  Part* const part = &parts_[Value(stage)];
  if (part->done) return true;
  bool moved_on = false;
  for (const Incarnation& incarnation : swarm_->OfStage(stage)) {
    const Replica& replica = *swarm_->Find(incarnation);
    if (replica.state.era != era_) continue;
    moved_on = moved_on || replica.state.version > version_;
    const bool asked = part->holders.count(incarnation) > 0 || part->refused.count(incarnation) > 0;
    if (replica.state.version != version_ || asked || part->holders.size() >= kHolders) continue;
    states_[Value(stage)] = replica.state;
    AskToHold(stage, incarnation, replica.member.address);
  }
  return !part->holders.empty() || (!moved_on && part->refused.empty());
}

SaveShard ShardOrders::Order(ShardOrder order, StageId stage) const {
  return SaveShard{order, save_, stage, states_[Value(stage)],
                   order == ShardOrder::kWrite ? folder_ : std::string()};
}

uint64_t ShardOrders::Ask(Incarnation to, const Endpoint& address, SaveShard order,
                          OnAnswer on_answer) {
  return swarm_->AskAt(address, to, std::move(order),
                       [on_answer = std::move(on_answer)](const Message& reply) {
                         const auto* saved = std::get_if<ShardSaved>(&reply.body);
                         // Refused: it is another one by now, and will be fenced.
                         if (saved != nullptr) return on_answer(*saved);
                         on_answer(ShardSaved{absl::StatusCode::kAborted, "it is gone", {}});
                       });
}

void ShardOrders::AskToHold(StageId stage, Incarnation incarnation, const Endpoint& address) {
  Holder& holder = parts_[Value(stage)].holders[incarnation];
  holder.address = address;
  holder.request = Ask(
      incarnation, address, Order(ShardOrder::kHold, stage),
      [this, stage, incarnation](const ShardSaved& answer) { OnHeld(stage, incarnation, answer); });
}

void ShardOrders::OnHeld(StageId stage, Incarnation from, const ShardSaved& answer) {
  Holder& holder = parts_[Value(stage)].holders.at(from);
  holder.request = 0;
  if (answer.code != absl::StatusCode::kOk) return OnRefused(stage, from, answer);
  holder.held = true;
  ChooseWriter(stage);
  events_.changed();
}

void ShardOrders::OnRefused(StageId stage, Incarnation from, const ShardSaved& answer) {
  Part& part = parts_[Value(stage)];
  if (answer.code == absl::StatusCode::kAborted) {
    part.holders.erase(from);
    part.refused.insert(from);
    if (part.writer == from) part.writer.reset();
    return ChooseWriter(stage);
  }
  const auto failed = events_.failed;
  failed(absl::Status(answer.code, absl::StrCat("replica ", ToString(from), " of stage ",
                                                Value(stage), " cannot: ", answer.error)));
}

void ShardOrders::OnFolder(std::string folder) {
  folder_ = std::move(folder);
  for (uint32_t stage = 0; stage < parts_.size(); ++stage) ChooseWriter(StageId{stage});
}

void ShardOrders::ChooseWriter(StageId stage) {
  Part& part = parts_[Value(stage)];
  if (folder_.empty() || part.done || part.writer) return;
  for (auto& [incarnation, holder] : part.holders) {
    if (!holder.held) continue;
    part.writer = incarnation;
    holder.request = Ask(incarnation, holder.address, Order(ShardOrder::kWrite, stage),
                         [this, stage, from = incarnation](const ShardSaved& answer) {
                           OnSaved(stage, from, answer);
                         });
    return;
  }
}

void ShardOrders::OnSaved(StageId stage, Incarnation from, const ShardSaved& answer) {
  Part& part = parts_[Value(stage)];
  part.holders.at(from).request = 0;
  if (answer.code != absl::StatusCode::kOk) return OnRefused(stage, from, answer);
  if (absl::Status status = CheckNames(Value(stage), answer.files); !status.ok()) {
    return OnRefused(stage, from, ShardSaved{status.code(), std::string(status.message()), {}});
  }
  part.done = true;
  Release(stage);
  Shard shard;
  for (const ShardFile& file : answer.files) {
    shard.files.push_back({file.name, file.bytes, file.hash});
  }
  shard.parameters = ParametersOf((*layouts_)[Value(stage)]);
  const auto written = events_.written;
  written(stage, std::move(shard), ToString(from));
}

void ShardOrders::OnFenced(const Endpoint& address) {
  for (uint32_t stage = 0; stage < parts_.size(); ++stage) {
    Part& part = parts_[stage];
    for (auto it = part.holders.begin(); it != part.holders.end();) {
      if (it->second.address != address) {
        ++it;
        continue;
      }
      if (it->second.request != 0) swarm_->outbox().Cancel(it->second.request);
      if (part.writer == it->first) part.writer.reset();
      it = part.holders.erase(it);
    }
    ChooseWriter(StageId{stage});
  }
}

bool ShardOrders::holds() const {
  for (const Part& part : parts_) {
    bool held = part.done;
    for (const auto& [incarnation, holder] : part.holders) held = held || holder.held;
    if (!held) return true;
  }
  return false;
}

}  // namespace starling
