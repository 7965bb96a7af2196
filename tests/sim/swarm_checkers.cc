#include "tests/sim/swarm_checkers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/manifest.h"
#include "codec/codec.h"
#include "runtime/base/check.h"
#include "runtime/base/lane.h"

namespace starling::sim {

SwarmCheckers::SwarmCheckers(World* world, std::vector<SimStage> stages, const DataFeed* feed)
    : world_(world), stages_(std::move(stages)), feed_(feed) {
  std::vector<Blob> states;
  std::vector<StageLayout> layouts;
  for (const SimStage& stage : stages_) {
    states.push_back(SimInitialState(stage.layout, 1));
    layouts.push_back(stage.layout);
  }
  groups_ = ParameterGroups(layouts);
  references_.emplace(std::make_pair(Era{0}, Version{0}), SimReference(stages_, states));
}

void SwarmCheckers::OnAdmitted(const std::string& incarnation, NodeId node, uint32_t life) {
  admitted_[incarnation] = {node, life};
}

void SwarmCheckers::OnTrainerStart(const std::optional<Decision>& newest) {
  if (newest && newest->number > std::get<0>(newest_)) OnDecision(*newest);
}

void SwarmCheckers::OnEvent(const Event& event) {
  ++events_[event.name];
  if (event.name != "state_hash") world_->trace().Line("trainer", event);
  if (event.name == "segment_voided") {
    // The picker repairs it, at a cost; the rules of the baton say that it never has to.
    Violation(absl::StrCat("I1: ", ToString(event)));
  }
  if (event.name == "era_began") OnEra(event);
  if (event.name != "checkpoint_saved") return;
  for (const auto& [key, value] : event.fields) {
    if (key == "path") CheckCheckpoint(std::get<std::string>(value));
  }
}

void SwarmCheckers::OnEra(const Event& event) {
  Era era{0};
  std::string path;
  for (const auto& [key, value] : event.fields) {
    if (key == "era") era = Era{static_cast<uint32_t>(std::get<int64_t>(value))};
    if (key == "checkpoint") path = std::get<std::string>(value);
  }
  if (disk_ == nullptr) return;
  const CheckpointInfo base = FindCheckpoint(*disk_->AsAfterPowerCut(), path);
  const auto known = references_.find({base.era, base.version});
  if (base.path.empty() || known == references_.end()) {
    return Violation(
        absl::StrCat("I7: an era begins with ", path, ", of a version nobody decided"));
  }
  const auto [first, made] = references_.insert_or_assign({era, base.version}, known->second);
  first->second.ForgetOlder();
}

uint64_t SwarmCheckers::count(const std::string& event) const {
  const auto it = events_.find(event);
  return it == events_.end() ? 0 : it->second;
}

void SwarmCheckers::OnStep(const StepReport& report) {
  world_->trace().Line("trainer", Event("decided")
                                      .With("step", Value(report.step))
                                      .With("retries", report.retries)
                                      .With("replayed", report.replayed));
  steps_.push_back(report);
}

void SwarmCheckers::OnEvaluation(Version version, double loss) {
  world_->trace().Line("trainer",
                       Event("evaluation").With("step", Value(version)).With("loss", loss));
  evaluated_.push_back(version);
  const auto machine = references_.find({std::get<Era>(newest_), version});
  if (machine == references_.end())
    return Violation("I1: a version that nobody decided is evaluated");
  std::vector<SimMicrobatch> microbatches;
  for (uint32_t i = 0; i < feed_->evaluate_microbatches(); ++i) {
    MicrobatchData data = feed_->Evaluate(i);
    microbatches.push_back({data.tokens, data.targets, data.first_sequence});
  }
  const SimStepResult result = machine->second.Evaluate(Step{Value(version) + 1}, microbatches);
  if (loss != result.loss_sum / static_cast<double>(result.tokens)) {
    Violation(absl::StrCat("I1: version ", Value(version), " is evaluated to ", loss));
  }
}

void SwarmCheckers::OnFinished(const absl::Status& status, const std::string& summary) {
  finished_ = true;
  status_ = status;
  world_->trace().Line(
      "trainer", Event("finished").With("status", status.ToString()).With("summary", summary));
  if (!ended_well()) Violation(absl::StrCat("the run failed: ", status.ToString()));
}

std::optional<SwarmCheckers::Expected> SwarmCheckers::Advance(const Decision& decision) {
  const Version before = VersionBefore(decision.step);
  const auto known = references_.find({decision.era, before});
  if (known == references_.end()) {
    Violation(absl::StrCat("I3: step ", Value(decision.step), " of era ", Value(decision.era),
                           " is decided, the step before it was not"));
    return std::nullopt;
  }
  const bool older = Next(decision.computed_on) == before;
  const bool held = references_.count({decision.era, decision.computed_on}) > 0;
  if (decision.computed_on != before && !(older && delayed_ && held)) {
    Violation(absl::StrCat("I1: step ", Value(decision.step), " is said to be computed on version ",
                           Value(decision.computed_on)));
  }
  std::vector<SimMicrobatch> microbatches;
  for (uint32_t i = 0; i < feed_->train_microbatches(); ++i) {
    MicrobatchData data = feed_->Train(decision.step, i);
    microbatches.push_back({data.tokens, data.targets, data.first_sequence});
  }
  SimReference machine = known->second;
  const SimStepResult result = machine.Advance(decision.step, microbatches, older);
  references_.insert_or_assign({decision.era, VersionAfter(decision.step)}, std::move(machine));
  return Expected{result.loss_sum / static_cast<double>(result.tokens), result.tokens,
                  result.square_norms};
}

void SwarmCheckers::OnDecision(const Decision& decision) {
  CheckMembership(decision);
  if (Value(decision.step) == 0) return;
  Version& newest = decided_[decision.era];
  newest = std::max(newest, VersionAfter(decision.step));
  CheckNumbers(decision);
  CheckAdditions(decision);
  NoteSums(decision);
  world_->journal().ForgetThrough(Step{Value(decision.step) < 3 ? 0 : Value(decision.step) - 3});
}

void SwarmCheckers::CheckMembership(const Decision& decision) {
  const auto& [number, epoch, era, step] = newest_;
  if (decision.number <= number) Violation("I3: a record number does not grow");
  if (decision.epoch < epoch || decision.era < era) Violation("I3: epoch or era went back");
  if (decision.step != Step{0} && decision.era == era && decision.step <= step) {
    Violation(absl::StrCat("I3: step ", Value(decision.step), " decided twice in an era"));
  }
  const Step newest_step = decision.era != era ? decision.step : std::max(step, decision.step);
  newest_ = {decision.number, decision.epoch, decision.era, newest_step};
  // Those that depart in order leave at this very decision: their work counts in it.
  std::set<Incarnation> departing;
  for (const Departure& departure : decision.departures) departing.insert(departure.incarnation);
  for (const Incarnation& leaver : decision.leaves) {
    if (departing.count(leaver) == 0) left_.insert(leaver);
  }
  for (const Member& member : decision.joins) {
    if (!joined_.insert(member.incarnation).second && left_.count(member.incarnation) > 0) {
      Violation(absl::StrCat("I3: incarnation ", ToString(member.incarnation), " came back"));
    }
  }
  for (const GroupOutcome& group : decision.groups) {
    for (const RoundMemberPlan& member : group.members) {
      if (left_.count(member.incarnation) > 0) {
        Violation(absl::StrCat("I4: step ", Value(decision.step), " counts ",
                               ToString(member.incarnation), ", which had left"));
      }
    }
  }
  left_.insert(departing.begin(), departing.end());
}

void SwarmCheckers::CheckNumbers(const Decision& decision) {
  const std::optional<Expected> expected = Advance(decision);
  if (!expected) return;
  if (decision.loss != expected->loss || decision.tokens != expected->tokens) {
    Violation(absl::StrCat("I1: step ", Value(decision.step), " has loss ", decision.loss,
                           ", one machine ", expected->loss));
  }
  if (decision.groups.size() != groups_.size()) {
    Violation(absl::StrCat("I1: step ", Value(decision.step), " sums ", decision.groups.size(),
                           " parameter groups, there are ", groups_.size()));
  }
  for (const GroupOutcome& outcome : decision.groups) {
    const ParameterGroup* const group = GroupOf(outcome);
    if (group == nullptr) continue;
    const double square_norm = expected->square_norms[outcome.round.group];
    if (outcome.square_norm != square_norm) {
      Violation(absl::StrCat("I1: step ", Value(decision.step), " ", starling::ToString(*group),
                             " has square norm ", outcome.square_norm, ", one machine ",
                             square_norm));
    }
    uint64_t lane = 0;
    for (const StageId& stage : group->stages) {
      lane += LaneTotal(decision.step, stage, feed_->train_microbatches());
    }
    if (outcome.lane != lane) {
      Violation(absl::StrCat("I1: step ", Value(decision.step), " ", starling::ToString(*group),
                             " lane wrong"));
    }
  }
}

const ParameterGroup* SwarmCheckers::GroupOf(const GroupOutcome& outcome) const {
  return outcome.round.group < groups_.size() ? &groups_[outcome.round.group] : nullptr;
}

GroupRange SwarmCheckers::RangeOf(StageId stage, uint32_t group) const {
  const auto stages = static_cast<uint32_t>(stages_.size());
  for (const GroupRange& range : GroupRangesOf(stages_[Value(stage)].layout, stage, stages)) {
    if (range.group == group) return range;
  }
  return {};
}

void SwarmCheckers::CheckAdditions(const Decision& decision) {
  for (const GroupOutcome& outcome : decision.groups) {
    const ParameterGroup* const group = GroupOf(outcome);
    if (group == nullptr) continue;
    for (const StageId& stage : group->stages) CheckAdditions(decision, outcome, stage);
  }
}

void SwarmCheckers::CheckAdditions(const Decision& decision, const GroupOutcome& group,
                                   StageId stage) {
  std::vector<int> times(feed_->train_microbatches(), 0);
  const std::vector<Addition> additions = world_->journal().Of(decision.step, stage);
  for (const RoundMemberPlan& member : group.members) {
    const auto who = admitted_.find(ToString(member.incarnation));
    if (who == admitted_.end()) continue;
    const auto& [node, life] = who->second;
    for (const Addition& addition : additions) {
      const bool named =
          std::any_of(member.segments.begin(), member.segments.end(),
                      [&](const SegmentRef& ref) { return ref.id == addition.segment; });
      if (addition.replica.node != node || addition.replica.life != life || !named) continue;
      times[addition.index] += addition.times;
      if (addition.updates != Value(decision.computed_on)) {
        Violation(absl::StrCat("I1: step ", Value(decision.step), " stage ", Value(stage),
                               " counts microbatch ", addition.index, " on version ",
                               addition.updates, ", not ", Value(decision.computed_on)));
      }
    }
  }
  for (size_t index = 0; index < times.size(); ++index) {
    if (times[index] == 1) continue;
    Violation(absl::StrCat("I1: step ", Value(decision.step), " group ", group.round.group,
                           " counts microbatch ", index, " of stage ", Value(stage), " ",
                           times[index], " times"));
  }
}

std::vector<float> SwarmCheckers::SumOf(const Decision& decision, const GroupOutcome& group) const {
  const auto add = [](const std::vector<float>& from, std::vector<float>* to) {
    for (size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
  };
  const auto travel = [&](std::vector<float>* values) {
    if (group.members.size() == 1 || round_coding_.encoding == Encoding::kRaw) return;
    std::vector<std::byte> bytes(EncodedBytes(round_coding_.encoding, values->size()));
    Encode(round_coding_, *values, bytes.data());
    const absl::Status status = Decode(round_coding_.encoding, bytes.data(), bytes.size(),
                                       round_coding_.scale_exponent, absl::MakeSpan(*values));
    STARLING_CHECK(status.ok());
  };
  const ParameterGroup& parameters = groups_[group.round.group];
  std::vector<float> total(static_cast<size_t>(parameters.size), 0.0f);
  // Plans have the members stage by stage, as the group has the stages; who sums nothing adds none.
  for (const StageId& stage : parameters.stages) {
    const StageLayout& layout = stages_[Value(stage)].layout;
    const GroupRange range = RangeOf(stage, group.round.group);
    const std::vector<Addition> additions = world_->journal().Of(decision.step, stage);
    for (const RoundMemberPlan& member : group.members) {
      const auto who = admitted_.find(ToString(member.incarnation));
      if (who == admitted_.end()) continue;
      std::vector<float> own(total.size(), 0.0f);
      for (const SegmentRef& ref : member.segments) {
        std::vector<float> segment(static_cast<size_t>(layout.size), 0.0f);
        for (const Addition& addition : additions) {
          const ReplicaName& name = addition.replica;
          if (name.node != who->second.first || name.life != who->second.second) continue;
          if (addition.segment == ref.id) AddGradient(layout, addition.digest, 1, segment.data());
        }
        const auto begin = segment.begin() + range.begin;
        add(std::vector<float>(begin, begin + range.count), &own);
      }
      travel(&own);
      add(own, &total);
    }
  }
  travel(&total);
  return total;
}

// Of each stage what its replicas are to apply: the sums of its groups in a row.
void SwarmCheckers::NoteSums(const Decision& decision) {
  std::map<uint32_t, std::vector<float>> sums;
  for (const GroupOutcome& outcome : decision.groups) {
    if (GroupOf(outcome) != nullptr) sums[outcome.round.group] = SumOf(decision, outcome);
  }
  const auto stages = static_cast<uint32_t>(stages_.size());
  for (const SimStage& stage : stages_) {
    std::vector<float> run;
    for (const GroupRange& range : GroupRangesOf(stage.layout, stage.stage, stages)) {
      const std::vector<float>& sum = sums[range.group];
      run.insert(run.end(), sum.begin(), sum.end());
    }
    sums_[{Value(stage.stage), decision.step}].insert(
        HashBytes(run.data(), run.size() * sizeof(float)));
  }
}

void SwarmCheckers::CheckState(const StateSeen& seen) {
  const auto key = std::make_pair(Value(seen.replica.stage), seen.updates);
  tensors_.emplace(std::make_pair(seen.replica.stage, seen.hash), seen.tensors);
  const auto [entry, first] = hashes_.emplace(key, seen.tensors);
  if (!first && entry->second != seen.tensors && !delayed_) {
    Violation(absl::StrCat("I2: stage ", key.first, " after ", key.second, " updates is ",
                           ToHex(seen.tensors), " at ", sim::ToString(seen.replica), ", was ",
                           ToHex(entry->second)));
  }
  if (groups_.size() > stages_.size() && Concerns(groups_.back(), seen.replica.stage)) {
    const auto [tied, first_tied] = tied_hashes_.emplace(seen.updates, seen.tied);
    if (!first_tied && tied->second != seen.tied && !delayed_) {
      Violation(absl::StrCat("I2: what ", starling::ToString(groups_.back()), " share after ",
                             seen.updates, " updates is ", ToHex(seen.tied), " at ",
                             sim::ToString(seen.replica), ", was ", ToHex(tied->second)));
    }
  }
  if (seen.loaded) return;
  const auto sums = sums_.find({key.first, Step{seen.updates}});
  if (sums == sums_.end()) {
    Violation(absl::StrCat("I1: ", sim::ToString(seen.replica), " applied step ", seen.updates,
                           ", which nobody has decided"));
  } else if (sums->second.count(seen.gradient) == 0) {
    Violation(absl::StrCat("I1: ", sim::ToString(seen.replica), " applied another sum to step ",
                           seen.updates, " than the decided one"));
  }
}

void SwarmCheckers::CheckStates() {
  const std::vector<StateSeen>& states = world_->journal().states();
  for (; states_checked_ < states.size(); ++states_checked_) CheckState(states[states_checked_]);
}

void SwarmCheckers::CheckBuffer(const std::string& who, const char* name, size_t used,
                                size_t bound) {
  if (used <= bound) return;
  Violation(absl::StrCat("I5: ", who, " holds ", used, " ", name, ", its bound is ", bound));
}

void SwarmCheckers::CheckPeer(NodeId node, uint32_t life, const Peer& peer) {
  const std::string& who = world_->name(node);
  peer.VisitBuffers(
      [&](const char* name, size_t used, size_t bound) { CheckBuffer(who, name, used, bound); });
  Peer::Look now = peer.Inspect();
  PeerBefore& before = before_[node];
  if (before.life != life) before = {life, Peer::Look()};
  const Peer::Look& was = before.look;
  if (now.epoch < was.epoch) Violation(absl::StrCat("I3: the epoch of ", who, " went back"));
  if (now.self < was.self) {
    Violation(absl::StrCat("I3: ", who, " was ", ToString(was.self), ", is ", ToString(now.self)));
  }
  if (now.self == was.self && std::tie(now.era, now.version) < std::tie(was.era, was.version)) {
    Violation(absl::StrCat("I3: ", who, " went from version ", Value(was.version), " of era ",
                           Value(was.era), " to version ", Value(now.version), " of era ",
                           Value(now.era)));
  }
  if (now.version > was.version && now.version > decided_[now.era]) {
    Violation(absl::StrCat("I3: ", who, " is at version ", Value(now.version), " of era ",
                           Value(now.era), ", which is not decided"));
  }
  if (now.held && !world_->faults(node).flipped) {
    const auto key = std::make_tuple(now.stage, now.held->era, now.held->version);
    const auto [entry, first] = names_.emplace(key, now.held->hash);
    if (!first && entry->second != now.held->hash) {
      Violation(absl::StrCat("I2: ", who, " holds stage ", Value(now.stage), " at version ",
                             Value(now.held->version), " of era ", Value(now.held->era), " as ",
                             ToHex(now.held->hash), ", it was ", ToHex(entry->second)));
      entry->second = now.held->hash;
    }
  }
  before.look = std::move(now);
}

Peer::Look SwarmCheckers::LookOf(NodeId node) const {
  const auto found = before_.find(node);
  return found == before_.end() ? Peer::Look() : found->second.look;
}

void SwarmCheckers::CheckTrainer(const Trainer& trainer) {
  trainer.VisitBuffers([&](const char* name, size_t used, size_t bound) {
    CheckBuffer("trainer", name, used, bound);
  });
  const Swarm& swarm = trainer.swarm();
  if (swarm.replicas().size() > members_before_) {
    std::set<PeerId> peers;
    for (const auto& [incarnation, replica] : swarm.replicas()) {
      if (peers.insert(replica.member.peer).second) continue;
      Violation(absl::StrCat("I3: peer ", ToString(replica.member.peer),
                             " serves under two names, one is ", ToString(incarnation)));
    }
  }
  members_before_ = swarm.replicas().size();
  const auto now = std::make_tuple(swarm.epoch(), swarm.era(), trainer.version());
  if (now == trainer_before_) return;
  const auto& [epoch, era, version] = trainer_before_;
  // An era that a trainer had in mind when it died, and had not recorded, has not been.
  const Era least = swarm.epoch() == epoch ? era : std::get<2>(newest_);
  if (swarm.epoch() < epoch || swarm.era() < least) {
    Violation("I3: the trainer's epoch or era went back");
  }
  if (swarm.epoch() == epoch && swarm.era() == era &&
      Value(trainer.version()) != Value(version) + 1) {
    Violation(absl::StrCat("I3: the trainer went from version ", Value(version), " to ",
                           Value(trainer.version())));
  }
  Version& newest = decided_[swarm.era()];
  newest = std::max(newest, trainer.version());
  trainer_before_ = now;
}

std::optional<Hash128> SwarmCheckers::TensorsOf(StageId stage, Era era, Version version) const {
  const auto name = names_.find({stage, era, version});
  if (name == names_.end()) return std::nullopt;
  const auto tensors = tensors_.find({stage, name->second});
  return tensors == tensors_.end() ? std::nullopt : std::optional<Hash128>(tensors->second);
}

CheckpointInfo SwarmCheckers::FindCheckpoint(SimDisk& disk, const std::string& path) {
  const auto list = CheckpointStore(path.substr(0, path.rfind('/'))).List(disk);
  for (size_t i = 0; list.ok() && i < list->size(); ++i) {
    if ((*list)[i].path == path) return (*list)[i];
  }
  return {};
}

void SwarmCheckers::CheckCheckpoint(const std::string& path) {
  if (disk_ == nullptr) return;
  const std::unique_ptr<SimDisk> left = disk_->AsAfterPowerCut();
  const CheckpointInfo info = FindCheckpoint(*left, path);
  if (info.path.empty()) return Violation(absl::StrCat("I7: a power cut would lose ", path));
  const auto manifest = LoadManifest(*left, info);
  if (!manifest.ok()) {
    return Violation(
        absl::StrCat("I7: after a power cut ", path, " would be: ", manifest.status().ToString()));
  }
  for (const SimStage& stage : stages_) {
    const auto state = LoadStage(*left, info, stage.layout);
    if (!state.ok()) {
      Violation(
          absl::StrCat("I7: after a power cut ", path, " would be: ", state.status().ToString()));
      continue;
    }
    const Hash128 hash = HashOfTensors(state->As<float>().data(), stage.layout);
    const uint32_t updates = static_cast<uint32_t>(manifest->meta.updates);
    const auto known = hashes_.find({Value(stage.stage), updates});
    std::optional<Hash128> right;
    if (known != hashes_.end()) right = known->second;
    if (delayed_) right = TensorsOf(stage.stage, manifest->meta.era, manifest->meta.version);
    if (right && *right != hash) {
      Violation(absl::StrCat("I7: ", path, " does not hold the bits of its version"));
    }
  }
}

}  // namespace starling::sim
