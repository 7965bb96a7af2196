// Steps, decisions, checkpoints and the end of the run.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "runtime/base/planted.h"
#include "runtime/trainer/state_judge.h"
#include "runtime/trainer/trainer.h"
#include "stages/schedule.h"

namespace starling {
namespace {

nlohmann::ordered_json ToJson(const std::vector<Bottleneck>& bottlenecks) {
  auto list = nlohmann::ordered_json::array();
  for (const Bottleneck& found : bottlenecks) {
    nlohmann::ordered_json json = {{"cause", ToString(found.cause)}};
    if (found.stage) json["stage"] = Value(*found.stage);
    json["share"] = found.share;
    json["speedup"] = found.speedup;
    json["words"] = ToWords(found);
    list.push_back(std::move(json));
  }
  return list;
}

nlohmann::ordered_json Describe(const Replica& replica, const char* state, absl::Time now,
                                const TimePicture& times) {
  auto time = nlohmann::ordered_json::object();
  const auto mean = std::lower_bound(
      times.replicas.begin(), times.replicas.end(), replica.member.incarnation,
      [](const MeanTimes& row, const Incarnation& name) { return row.replica < name; });
  if (mean != times.replicas.end() && mean->replica == replica.member.incarnation &&
      mean->total_s() > 0) {
    for (size_t part = 0; part < kStepParts; ++part) {
      time[ToString(static_cast<StepPart>(part))] = mean->seconds[part];
    }
  }
  const double seconds = absl::ToDoubleSeconds(now - replica.since);
  return {{"peer", ToString(replica.member.peer)},
          {"pid", replica.hello.pid},
          {"host", replica.hello.host},
          {"state", state},
          {"version", Value(replica.state.version)},
          {"tokens_per_s", seconds > 0 ? static_cast<double>(replica.tokens) / seconds : 0.0},
          {"hash", ToHex(replica.state.hash)},
          {"replica", ToString(replica.member.incarnation)},
          {"device", replica.hello.device},
          {"threads", replica.hello.threads},
          {"queued", replica.load.queued},
          {"service_s", replica.load.service_s},
          {"address", replica.member.address.control},
          {"time", time}};
}

}  // namespace

void Trainer::BeginStep() {
  const auto& train = options_.config.train;
  const bool last = static_cast<int64_t>(Value(version_)) >= train.steps;
  if (paused_ && stop_reason_.empty() && !last) {
    Emit(Event("paused").With("step", Value(version_)));
    return DepartWithoutStep();
  }
  if (last || !stop_reason_.empty()) phase_ = Phase::kEnding;
  StepRun::Options step;
  step.step = Step{Value(version_) + 1};
  step.evaluate = EvaluationIsDue();
  step.microbatches = phase_ == Phase::kEnding ? 0 : data_->train_microbatches();
  if (phase_ == Phase::kEnding && !step.evaluate) {
    step_run_.reset();
    final_evaluation_done_ = true;
    return MaybeEnd();
  }
  step_run_ = MakeStep(std::move(step));
  step_run_->Start();
  BeginAhead();
}

// Of version_, as work of the step after it.
bool Trainer::EvaluationIsDue() const {
  const auto& train = options_.config.train;
  if (train.eval_every <= 0 || version_ <= base_version_ || !stop_reason_.empty()) return false;
  const bool last = static_cast<int64_t>(Value(version_)) >= train.steps;
  return (last || Value(version_) % static_cast<uint64_t>(train.eval_every) == 0) &&
         data_->evaluate_microbatches() > 0;
}

std::unique_ptr<StepRun> Trainer::MakeStep(StepRun::Options step) {
  const auto& train = options_.config.train;
  const int64_t verify_every = options_.config.swarm.verify_every;
  step.verify = verify_every > 0 && Value(step.step) % static_cast<uint64_t>(verify_every) == 0;
  step.microbatch_tokens = train.microbatch * options_.config.model.context;
  step.window = Window();
  step.groups = groups_;
  step.round_encoding = options_.config.codec.round;
  step.tokens = train.global_batch * options_.config.model.context;
  step.pace = &pace_;
  step.answers.least = 2 * options_.config.swarm.dead_after;
  step.answers.most = 6 * options_.config.swarm.dead_after;
  return std::make_unique<StepRun>(
      std::move(step), env_, &swarm_, data_, wiring_.get(),
      [this](const Event& event) { Emit(event); }, [this] { return MaySeal(); },
      [this](const std::map<Incarnation, Hash128>& states) {
        bool right = true;
        for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
          right = Judge(StageId{stage}, states) && right;
        }
        return right;
      },
      [this](Incarnation replica, const std::string& reason) { Fence(replica, reason); },
      [this](absl::StatusOr<StepOutcome> outcome) { OnStepDone(std::move(outcome)); });
}

void Trainer::ForgetSteps() {
  expected_joiners_.clear();
  step_run_.reset();
  ahead_run_.reset();
}

uint32_t Trainer::Window() const {
  return options_.config.swarm.window > 0 ? static_cast<uint32_t>(options_.config.swarm.window)
                                          : 2 * static_cast<uint32_t>(swarm_.replicas().size());
}

// The end of a step waits for a record that is being written: those it names join this very step;
// and, for a moment, until replicas have been asked for the snapshot of its version, and with
// delayed commit until joiners have come to it.
bool Trainer::MaySeal() const { return !admitting_ && !saver_.holds() && !WaitsForJoiner(); }

void Trainer::OnStepDone(absl::StatusOr<StepOutcome> outcome) {
  if (phase_ == Phase::kDone) return;  // the last checkpoint failed while it evaluated
  if (absl::IsAborted(outcome.status())) {
    Emit(Event("step_given_up")
             .With("step", Value(version_) + 1)
             .With("reason", std::string(outcome.status().message())));
    return TakeStepAgain();
  }
  if (!outcome.ok()) return Finish(outcome.status(), "the step was not applied");
  if (outcome->evaluation_loss) observer_->OnEvaluation(version_, *outcome->evaluation_loss);
  if (phase_ == Phase::kEnding) {
    final_evaluation_done_ = true;
    // The run that called this is on the stack.
    env_->Schedule(absl::ZeroDuration(), [this] {
      step_run_.reset();
      MaybeEnd();
    });
    return;
  }
  Decide(*outcome);
}

void Trainer::Decide(const StepOutcome& outcome) {
  const Step step{Value(version_) + 1};
  // What runs ahead has no work of those who were avoided when it began.
  Decision record = NewRecord(departures_.Due(ahead_run_ ? &ahead_avoids_ : nullptr));
  record.step = step;
  record.computed_on = outcome.computed_on;
  record.groups = outcome.groups;
  record.tokens = outcome.tokens;
  record.loss = outcome.loss_sum / static_cast<double>(outcome.tokens);
  record.scalars =
      MakeUpdate(options_.config.optimizer, options_.config.train.steps, step, outcome.square_norm,
                 outcome.tokens, &record.gradient_norm, &record.learning_rate);
  record.skip = !std::isfinite(outcome.square_norm) || !std::isfinite(record.loss);
  if (record.skip) {
    const std::string what =
        outcome.nonfinite ? absl::StrCat("the loss of microbatch ", *outcome.nonfinite, " of step ",
                                         Value(step), " is not finite")
                          : absl::StrCat("the gradient of step ", Value(step), " is not finite");
    if (options_.config.train.on_nonfinite == "stop") {
      return Finish(absl::InternalError(absl::StrCat(what, " (train.on_nonfinite = \"stop\")")),
                    "stopped");
    }
    Emit(Event("step_skipped").With("step", Value(step)).With("reason", what));
  }
  deciding_ = true;
  log_.Append(record, [this, record, outcome](absl::Status status) {
    deciding_ = false;
    if (phase_ == Phase::kDone) return;
    if (!status.ok()) return Finish(status, "the decision log cannot be written");
    observer_->OnDecision(record);
    Commit(record, outcome);
  });
}

void Trainer::Commit(const Decision& decision, const StepOutcome& outcome) {
  step_run_.reset();
  ExpectJoiners();
  version_ = VersionAfter(decision.step);
  if (decision.skip) ++skipped_;
  live_.emplace().newest = decision;
  live_->reported = true;
  applied_.clear();
  for (auto& state : stage_states_) {
    if (decision.skip && state) {
      state->version = version_;
    } else {
      state.reset();
    }
  }
  if (!Planted(Bug::kServeBeforeCaughtUp)) admission_.RestartLoads();
  Depart(decision, version_);
  if (ahead_run_ && !decision.departures.empty()) ahead_run_->OnMembersChanged();
  SendApply(decision);
  Report(decision, outcome);
  if (CheckpointIsDue()) BeginSave();
  NextStep();
  OnAdmissionChanged();
}

// Each stage hears of its own rounds only: what is told grows with the swarm, not with its square.
void Trainer::SendApply(const Decision& decision) {
  for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
    Apply apply{decision};
    auto& groups = apply.decision.groups;
    groups.erase(std::remove_if(groups.begin(), groups.end(),
                                [this, stage](const GroupOutcome& outcome) {
                                  const uint32_t group = outcome.round.group;
                                  return group >= groups_.size() ||
                                         !Concerns(groups_[group], StageId{stage});
                                }),
                 groups.end());
    for (const Incarnation& incarnation : swarm_.OfStage(StageId{stage})) {
      swarm_.Ask(incarnation, apply, [this, incarnation](const Message& reply) {
        const auto* applied = std::get_if<Applied>(&reply.body);
        if (applied != nullptr) OnApplied(incarnation, *applied);
      });
    }
  }
}

bool Trainer::CheckpointIsDue() const {
  const int64_t every = options_.config.checkpoint.every;
  const int64_t at = static_cast<int64_t>(Value(version_));
  return at >= options_.config.train.steps || !stop_reason_.empty() ||
         (every > 0 && at % every == 0);
}

void Trainer::OnApplied(Incarnation from, const Applied& applied) {
  Replica* replica = swarm_.Find(from);
  if (replica == nullptr || applied.state.era != swarm_.era()) return;
  const uint32_t stage = Value(replica->member.stage);
  const int64_t every = options_.config.train.hash_every;
  if (every > 0 && Value(applied.state.version) % static_cast<uint64_t>(every) == 0) {
    Emit(Event("state_hash")
             .With("era", Value(applied.state.era))
             .With("stage", stage)
             .With("peer", ToString(replica->member.peer))
             .With("version", Value(applied.state.version))
             .With("hash", ToHex(applied.state.hash)));
  }
  if (applied.state.version != version_ || taking_again_) return;
  applied_[from] = applied.state;
  if (!Judge(replica->member.stage, {})) return;
  saver_.OnApplied(replica->member.stage);
  if (!admission_.empty()) OnAdmissionChanged();
}

// Compares what the replicas of a stage hold of version_: what they acknowledged, or `reported` at
// the seal. False if somebody's state is wrong: the step is given up then.
bool Trainer::Judge(StageId stage, const std::map<Incarnation, Hash128>& reported) {
  if (taking_again_ || phase_ == Phase::kGathering || phase_ == Phase::kReturning) return true;
  const std::set<Incarnation>& members = swarm_.OfStage(stage);
  std::map<Incarnation, Hash128> hashes = reported;
  for (const Incarnation& member : members) {
    const auto applied = applied_.find(member);
    if (reported.empty() && applied != applied_.end()) hashes[member] = applied->second.hash;
  }
  std::optional<StateName>& known = stage_states_[Value(stage)];
  const std::optional<StateVerdict> verdict =
      JudgeStates(known ? std::optional<Hash128>(known->hash) : std::nullopt, hashes, members);
  if (!verdict) return true;
  if (verdict->right) known = StateName{swarm_.era(), version_, *verdict->right};
  for (const Incarnation& member : members) {
    const auto hash = hashes.find(member);
    if (hash == hashes.end() || !known || hash->second != known->hash) continue;
    swarm_.Find(member)->state = *known;  // may be copied from, from here on
  }
  if (verdict->wrong.empty()) return true;
  for (const Incarnation& wrong : verdict->wrong) {
    Emit(Event("state_differs")
             .With("stage", Value(stage))
             .With("replica", ToString(wrong))
             .With("version", Value(version_))
             .With("reason", absl::StrCat("its state has hash ", ToHex(hashes.at(wrong)), ", ",
                                          known ? "the right one " + ToHex(known->hash)
                                                : std::string("and no hash has the majority"),
                                          ": it must load it, and the step is taken again")));
  }
  TakeStepAgain();
  return false;
}

void Trainer::Report(const Decision& decision, const StepOutcome& outcome) {
  StepReport report;
  report.step = decision.step;
  report.loss = decision.loss;
  report.gradient_norm = decision.gradient_norm;
  report.learning_rate = decision.learning_rate;
  report.tokens = decision.tokens;
  report.step_s = absl::ToDoubleSeconds(env_->Now() - last_decision_);
  report.tokens_per_s =
      report.step_s > 0 ? static_cast<double>(decision.tokens) / report.step_s : 0;
  report.replicas = swarm_.CountPerStage();
  report.retries = outcome.retries;
  report.replayed = outcome.replayed;
  report.bytes_forward = outcome.bytes_forward;
  report.bytes_backward = outcome.bytes_backward;
  report.skipped = decision.skip;
  for (const ReplicaTimes& times : outcome.times) {
    if (times.times.total() > 0) report.times.push_back(times);
  }
  TimeTable::StepFacts facts;
  facts.feeding_s = absl::ToDoubleSeconds(outcome.feeding);
  facts.bytes_forward = outcome.bytes_forward;
  facts.outputs = uint64_t{data_->train_microbatches()} * (swarm_.stages() - 1);
  times_.OnStep(outcome.times, facts);
  last_decision_ = env_->Now();
  observer_->OnStep(report);
}

TimePicture Trainer::Times(TimeSpan span) const {
  TimePicture picture = times_.Picture(span);
  picture.microbatches = data_->train_microbatches();
  picture.in_flight = Window();
  const CodecConfig& codec = options_.config.codec;
  // The numbers of encodings rise as their bytes fall.
  picture.boundaries = std::min(codec.forward, codec.backward);
  picture.round = codec.round;
  return picture;
}

std::vector<Bottleneck> Trainer::Bottlenecks(TimeSpan span) const {
  return FindBottlenecks(Times(span));
}

// --- checkpoints and the end -----------------------------------------------------------

void Trainer::BeginSave() {
  if (saver_.busy() || saved_ == version_) return;
  CheckpointMeta meta = options_.start_meta;
  meta.run = options_.run;
  meta.era = swarm_.era();
  meta.version = version_;
  meta.updates = Value(version_) - skipped_;
  const uint64_t steps = Value(version_) - Value(options_.start.version);
  meta.sequences = options_.start_meta.sequences +
                   steps * static_cast<uint64_t>(options_.config.train.global_batch);
  meta.config_toml = options_.config_toml;
  saver_.Begin(
      meta,
      [this] {
        if (step_run_) step_run_->Poke();
      },
      [this, version = version_, era = swarm_.era()](absl::StatusOr<CheckpointInfo> saved) {
        if (phase_ == Phase::kDone) return;
        if (saved.ok()) {
          if (era == swarm_.era())
            saved_ = version;  // a later era has a version of that number too
          base_ = *saved;
          Emit(Event("checkpoint_saved").With("step", Value(version)).With("path", saved->path));
        } else {
          Emit(Event("checkpoint_failed")
                   .With("step", Value(version))
                   .With("reason", std::string(saved.status().message())));
          const bool gone_on = absl::IsAborted(saved.status()) && version != version_;
          if (gone_on && phase_ != Phase::kGathering) {
            if (phase_ == Phase::kTraining) BeginSave();  // the newest one instead
          } else if (phase_ == Phase::kEnding) {
            return Finish(
                saved.status(),
                absl::StrCat("step ", Value(version),
                             " could not be saved; the newest checkpoint is ", base_.path));
          }
        }
        MaybeEnd();
      });
}

void Trainer::MaybeEnd() {
  if (taking_again_) return;
  const bool begun = phase_ != Phase::kGathering && phase_ != Phase::kReturning;
  if (!begun && !stop_reason_.empty()) {
    return Finish(absl::OkStatus(),
                  absl::StrCat(stop_reason_, "; the newest checkpoint is ", base_.path));
  }
  if (phase_ != Phase::kEnding || !final_evaluation_done_ || saver_.busy()) return;
  const bool complete = static_cast<int64_t>(Value(version_)) >= options_.config.train.steps;
  if (saved_ != version_ && !swarm_.EmptyStage()) return BeginSave();
  std::string summary = complete ? absl::StrCat("all ", Value(version_), " steps done")
                                 : absl::StrCat(stop_reason_, " after step ", Value(version_));
  if (saved_ != version_) absl::StrAppend(&summary, ", of which the last are not saved");
  Finish(absl::OkStatus(), absl::StrCat(summary, "; checkpoint ", base_.path));
}

void Trainer::Finish(absl::Status status, const std::string& summary) {
  if (phase_ == Phase::kDone) return;
  phase_ = Phase::kDone;
  env_->Cancel(watch_);
  swarm_.outbox().CancelAll();
  for (const auto& [incarnation, replica] : swarm_.replicas()) {
    swarm_.Tell(replica.member.address, Stop{summary});
  }
  admission_.ForEach(
      [&](const Replica& joiner) { swarm_.Tell(joiner.member.address, Stop{summary}); });
  observer_->OnFinished(status, summary);
}

// --- status ----------------------------------------------------------------------------

std::string Trainer::StatusJson() const {
  using Json = nlohmann::ordered_json;
  const auto ranges = StageRanges(options_.config);
  const TimePicture times = Times(TimeSpan::kRecent);
  const auto describe = [&](const Replica& replica, const char* state) {
    return Describe(replica, state, env_->Now(), times);
  };
  Json stages = Json::array();
  for (uint32_t stage = 0; stage < swarm_.stages(); ++stage) {
    Json replicas = Json::array();
    for (const auto& [incarnation, replica] : swarm_.replicas()) {
      if (Value(replica.member.stage) != stage) continue;
      replicas.push_back(
          describe(replica, departures_.WasAsked(incarnation) ? "draining" : "serving"));
    }
    admission_.ForEach([&](const Replica& joiner) {
      if (Value(joiner.member.stage) == stage) replicas.push_back(describe(joiner, "joining"));
    });
    stages.push_back({{"stage", stage},
                      {"layers", {ranges[stage].begin, ranges[stage].end}},
                      {"replicas", replicas}});
  }
  const char* state = phase_ == Phase::kReturning ? "returning" : "gathering";
  if (phase_ == Phase::kTraining) {
    state = swarm_.EmptyStage() ? "waiting" : paused_ && !step_run_ ? "paused" : "training";
  }
  if (phase_ == Phase::kEnding) state = "ending";
  if (phase_ == Phase::kDone) state = "done";
  Json json = {{"address", self_.control},
               {"run", Value(options_.run)},
               {"era", Value(swarm_.era())},
               {"epoch", Value(swarm_.epoch())},
               {"step", Value(version_) + (phase_ == Phase::kTraining ? 1 : 0)},
               {"steps", options_.config.train.steps},
               {"version", Value(version_)},
               {"state", state},
               {"waiting_for", WaitingFor()},
               {"stages", stages},
               {"bottlenecks", ToJson(FindBottlenecks(times))}};
  if (step_run_) {
    json["phase"] = step_run_->phase_name();
    json["microbatches_done"] = step_run_->done_microbatches();
  }
  return json.dump();
}

}  // namespace starling
