#include "runtime/trainer/bottleneck.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace starling {
namespace {

constexpr double kSlower = 1.5;       // than its siblings: a slow replica
constexpr double kLongWay = 4096;     // bytes below which a boundary's size is not its trouble
constexpr double kMostSpeedup = 100;  // what is above is not said
constexpr double kRounding = 1e-6;

struct StageMeans {
  StageId stage{0};
  std::vector<const MeanTimes*> replicas;
  double busy = 0;       // shares of the step, means over the replicas
  double waits = 0;      // for input, or idle
  double service_s = 0;  // of a microbatch
  double sending_s = 0;
  double count() const { return static_cast<double>(replicas.size()); }
};

double ServiceOf(const MeanTimes& times) {
  return times.microbatches > 0 ? times.passes_s() / times.microbatches : 0;
}

// What all causes are weighed on.
class View {
 public:
  explicit View(const TimePicture& picture) : picture_(picture) {
    std::map<StageId, StageMeans> stages;
    for (const MeanTimes& times : picture.replicas) {
      if (times.total_s() <= 0) continue;
      all_.push_back(&times);
      stages[times.stage].stage = times.stage;
      stages[times.stage].replicas.push_back(&times);
    }
    for (auto& [id, stage] : stages) {
      Average(&stage);
      trip_s_ += stage.service_s;
      way_s_ += stage.sending_s;  // there, and about as long back
      stages_.push_back(std::move(stage));
    }
    for (size_t s = 0; s < stages_.size(); ++s) {
      if (stages_[s].busy > stages_[busiest_].busy) busiest_ = s;
    }
    for (const MeanTimes* times : all_) {
      step_s_ += times->total_s() / static_cast<double>(all_.size());
    }
  }

  const TimePicture& picture() const { return picture_; }
  const std::vector<StageMeans>& stages() const { return stages_; }
  const StageMeans& busiest() const { return stages_[busiest_]; }
  bool empty() const { return all_.empty(); }
  double step_s() const { return step_s_; }
  double trip_s() const { return trip_s_; }  // computing of one microbatch at all stages
  double way_s() const { return way_s_; }    // and on the way between them

  // Means over replicas.
  double Share(StepPart part) const {
    double sum = 0;
    for (const MeanTimes* times : all_) sum += times->share(part);
    return sum / static_cast<double>(all_.size());
  }
  static double Share(const StageMeans& stage, StepPart part) {
    double sum = 0;
    for (const MeanTimes* times : stage.replicas) sum += times->share(part);
    return sum / stage.count();
  }
  const StageMeans& MostOf(StepPart part) const {
    return *std::max_element(stages_.begin(), stages_.end(), [&](const auto& a, const auto& b) {
      return Share(a, part) < Share(b, part);
    });
  }
  double mean_busy() const {
    double sum = 0;
    for (const MeanTimes* times : all_) sum += times->busy_share();
    return sum / static_cast<double>(all_.size());
  }

 private:
  static void Average(StageMeans* stage) {
    double passes_s = 0;
    double microbatches = 0;
    double sending = 0;
    for (const MeanTimes* times : stage->replicas) {
      stage->busy += times->busy_share() / stage->count();
      passes_s += times->passes_s();
      microbatches += times->microbatches;
      stage->sending_s += times->sending_s;
      if (times->sending_s > 0) ++sending;
    }
    stage->waits = Share(*stage, StepPart::kInput) + Share(*stage, StepPart::kIdle);
    if (microbatches > 0) stage->service_s = passes_s / microbatches;
    if (sending > 0) stage->sending_s /= sending;
  }

  const TimePicture& picture_;
  std::vector<const MeanTimes*> all_;
  std::vector<StageMeans> stages_;
  size_t busiest_ = 0;
  double step_s_ = 0;
  double trip_s_ = 0;
  double way_s_ = 0;
};

std::string Percent(double share) { return absl::StrFormat("%.0f %%", 100 * share); }

std::string Seconds(double seconds) {
  if (seconds >= 1) return absl::StrFormat("%.2f s", seconds);
  if (seconds >= 0.00995) return absl::StrFormat("%.0f ms", 1000 * seconds);
  return absl::StrFormat("%.2f ms", 1000 * seconds);
}

std::string Bytes(double bytes) {
  if (bytes >= 1e6) return absl::StrFormat("%.1f MB", bytes / 1e6);
  return absl::StrFormat("%.0f kB", std::max(1.0, bytes / 1e3));
}

std::string Name(StageId stage) { return absl::StrCat("stage ", Value(stage)); }

Bottleneck Make(Cause cause, double share, std::string reason, std::string advice) {
  Bottleneck found;
  found.cause = cause;
  found.share = std::clamp(share, 0.0, 1.0);
  found.speedup = std::min(kMostSpeedup, 1 / std::max(1 - found.share, 1 / kMostSpeedup));
  found.reason = std::move(reason);
  found.advice = std::move(advice);
  return found;
}

// --- computing ---------------------------------------------------------------------------

Bottleneck UnevenStages(const View& view) {
  const StageMeans& most = view.busiest();
  double others = 0;
  double count = 0;
  double second = 0;
  for (const StageMeans& stage : view.stages()) {
    if (&stage == &most) continue;
    others += stage.busy * stage.count();
    count += stage.count();
    second = std::max(second, stage.busy);
  }
  if (count == 0) return Make(Cause::kStage, 0, "", "");
  others /= count;
  // One more replica, or better cuts: whichever does more.
  const double one_more = std::max(second, most.busy * most.count() / (most.count() + 1));
  const double left = std::min(one_more, view.mean_busy());
  const std::string who = most.count() > 1 ? "its replicas compute " : "its replica computes ";
  Bottleneck found =
      Make(Cause::kStage, most.busy - left,
           absl::StrCat(Name(most.stage), " limits this run: ", who, Percent(most.busy),
                        " of the step, those of the other stages ", Percent(others),
                        " on average, and they wait for it."),
           "One more replica there, or swarm.cuts that give it fewer layers, would help.");
  found.stage = most.stage;
  return found;
}

// Wiring gives a slow replica less to do; what is left is that others wait for its last ones.
Bottleneck SlowReplica(const View& view) {
  Bottleneck worst = Make(Cause::kReplica, 0, "", "");
  for (const StageMeans& stage : view.stages()) {
    for (const MeanTimes* times : stage.replicas) {
      double siblings_busy = 0;
      double siblings_s = 0;
      for (const MeanTimes* other : stage.replicas) {
        if (other == times) continue;
        siblings_busy += other->busy_share() / (stage.count() - 1);
        siblings_s += ServiceOf(*other) / (stage.count() - 1);
      }
      const double busy = times->busy_share();
      if (siblings_s <= 0 || ServiceOf(*times) < kSlower * siblings_s) continue;
      if (busy - siblings_busy <= worst.share) continue;
      worst = Make(
          Cause::kReplica, busy - siblings_busy,
          absl::StrFormat("replica %s of %s is slow: %s per microbatch, its siblings %s; it is at "
                          "work %s of the step and they %s, so that they wait for it.",
                          ToString(times->replica), Name(stage.stage), Seconds(ServiceOf(*times)),
                          Seconds(siblings_s), Percent(busy), Percent(siblings_busy)),
          "More and smaller microbatches (train.microbatch) would share the work out more finely; "
          "so would doing without it.");
      worst.stage = stage.stage;
    }
  }
  return worst;
}

// --- waiting -----------------------------------------------------------------------------

// What the busiest stage waits for, in seconds of a step: found by what each cause would make of
// it. They are the most that can be put down to each; what is left has another reason.
struct Waits {
  double pipeline_s = 0;
  double window_s = 0;
  double links_s = 0;
  double unknown_s = 0;
  double needed_in_flight = 0;
};

Waits ExplainWaits(const View& view) {
  const TimePicture& picture = view.picture();
  const StageMeans& stage = view.busiest();
  Waits waits;
  double left = stage.waits * view.step_s();
  const auto take = [&left](double most) {
    const double taken = std::clamp(most, 0.0, left);
    left -= taken;
    return taken;
  };
  if (stage.service_s > 0 && picture.microbatches > 0 && picture.in_flight > 0) {
    const double compute_s = picture.microbatches * stage.service_s / stage.count();
    const double fill_s = view.trip_s() - stage.service_s;
    const double in_flight = std::min(picture.in_flight, picture.microbatches);
    const double per_trip = picture.microbatches / in_flight;
    const double without_way = std::max(compute_s + fill_s, per_trip * view.trip_s());
    const double with_way =
        std::max(compute_s + fill_s + view.way_s(), per_trip * (view.trip_s() + view.way_s()));
    waits.pipeline_s = take(fill_s);
    waits.window_s = take(without_way - compute_s - fill_s);
    waits.links_s = take(with_way - without_way);
    waits.needed_in_flight =
        std::ceil(stage.count() * (view.trip_s() + view.way_s()) / stage.service_s - kRounding);
  }
  waits.unknown_s = left;
  return waits;
}

Bottleneck FewMicrobatches(const View& view, const Waits& waits) {
  return Make(
      Cause::kFewMicrobatches, waits.pipeline_s / view.step_s(),
      absl::StrFormat("the steps are short for this pipeline: while the first of %.0f "
                      "microbatches go through %d stages, and the last come back, even %s, "
                      "which computes most, waits (%s of the step).",
                      view.picture().microbatches, view.stages().size(), Name(view.busiest().stage),
                      Percent(waits.pipeline_s / view.step_s())),
      "More microbatches per step would help: a larger train.global_batch, or a smaller "
      "train.microbatch.");
}

Bottleneck SmallWindow(const View& view, const Waits& waits) {
  return Make(
      Cause::kWindow, waits.window_s / view.step_s(),
      absl::StrFormat("too few microbatches are in flight: at most %.0f (swarm.window), "
                      "where %.0f would keep %s at work.",
                      view.picture().in_flight, waits.needed_in_flight, Name(view.busiest().stage)),
      absl::StrFormat("A swarm.window of %.0f or more would help.", waits.needed_in_flight));
}

Bottleneck SlowLinks(const View& view, const Waits& waits) {
  const TimePicture& picture = view.picture();
  const StageMeans& stage =
      *std::max_element(view.stages().begin(), view.stages().end(),
                        [](const auto& a, const auto& b) { return a.sending_s < b.sending_s; });
  std::string seen;
  if (stage.sending_s > 0 && picture.boundary_bytes >= kLongWay) {
    seen = absl::StrCat(" (", Bytes(picture.boundary_bytes), " each, so ",
                        Bytes(picture.boundary_bytes / stage.sending_s), "/s or the distance)");
  }
  const double computing = view.busiest().busy;
  std::vector<std::string> advice;
  if (picture.boundary_bytes >= kLongWay && picture.boundaries <= Encoding::kBF16) {
    advice.push_back(absl::StrCat("Boundaries in int8 (codec.forward, codec.backward) would be ",
                                  picture.boundaries == Encoding::kRaw ? "a quarter" : "half",
                                  " of the bytes."));
  }
  const double in_flight = std::min(picture.in_flight, picture.microbatches);
  if (waits.needed_in_flight > in_flight) {
    advice.push_back(absl::StrFormat(
        "With %.0f microbatches in flight, now %.0f (%s), the way would hide behind computing.",
        waits.needed_in_flight, in_flight,
        picture.in_flight < picture.microbatches ? "swarm.window" : "the step has no more"));
  }
  if (advice.empty()) advice.push_back("Larger steps would hide more of the way.");
  Bottleneck found =
      Make(Cause::kLinks, waits.links_s / view.step_s(),
           absl::StrFormat("the links between stages limit this run: no stage computes more than "
                           "%s of the step. It takes %s until an output of %s has arrived%s, where "
                           "computing a microbatch at one stage takes %s.",
                           Percent(computing), Seconds(stage.sending_s), Name(stage.stage), seen,
                           Seconds(view.busiest().service_s)),
           absl::StrJoin(advice, " "));
  found.stage = stage.stage;
  return found;
}

Bottleneck UnknownWaits(const View& view, const Waits& waits) {
  return Make(Cause::kWaiting, waits.unknown_s / view.step_s(),
              absl::StrFormat("replicas wait for input: even %s, which computes most, does so for "
                              "%s of the step longer than the number of microbatches and the links "
                              "explain.",
                              Name(view.busiest().stage), Percent(waits.unknown_s / view.step_s())),
              "See whether processors are shared with other programs, and whether the trainer is "
              "kept busy.");
}

Bottleneck FullSlots(const View& view) {
  const StageMeans& stage = view.MostOf(StepPart::kSlot);
  const StageId next = Next(stage.stage);
  Bottleneck found =
      Make(Cause::kSlots, View::Share(stage, StepPart::kSlot),
           absl::StrCat("outputs of ", Name(stage.stage), " find nobody to take them for ",
                        Percent(View::Share(stage, StepPart::kSlot)), " of the step."),
           absl::StrCat("One more replica of ", Name(next), ", or a larger swarm.slots."));
  found.stage = next;
  return found;
}

// --- what else takes time ----------------------------------------------------------------

Bottleneck Round(const View& view) {
  const double own = view.Share(StepPart::kReducing);
  const double waiting = view.Share(StepPart::kDeciding);
  const StageMeans& most = view.MostOf(StepPart::kReducing);
  bool shared = false;
  for (const StageMeans& stage : view.stages()) shared = shared || stage.count() > 1;
  const bool raw = shared && view.picture().round == Encoding::kRaw;
  Bottleneck found = Make(
      Cause::kRound, own + waiting,
      absl::StrFormat("the end of the step limits this run: summing gradients takes %s of it (most "
                      "at %s: %s), waiting for others' sums and for the decision %s.",
                      Percent(own), Name(most.stage),
                      Percent(View::Share(most, StepPart::kReducing)), Percent(waiting)),
      absl::StrCat("A larger train.global_batch makes it rarer",
                   raw ? "; codec.round = \"bf16\" halves its bytes." : "."));
  found.stage = most.stage;
  return found;
}

Bottleneck Update(const View& view) {
  const StageMeans& most = view.MostOf(StepPart::kApplying);
  Bottleneck found = Make(
      Cause::kUpdate, View::Share(most, StepPart::kApplying),
      absl::StrCat("the optimizer's update takes ", Percent(View::Share(most, StepPart::kApplying)),
                   " of the step at ", Name(most.stage), "."),
      "A larger train.global_batch makes it rarer; cuts that give the stage fewer parameters "
      "make it shorter.");
  found.stage = most.stage;
  return found;
}

Bottleneck Evaluation(const View& view) {
  const double share = View::Share(view.busiest(), StepPart::kEvaluating);
  return Make(Cause::kEvaluation, share,
              absl::StrCat("evaluation takes ", Percent(share), " of the time of ",
                           Name(view.busiest().stage), "."),
              "Evaluate more rarely (train.eval_every), or on fewer sequences "
              "(train.eval_sequences).");
}

Bottleneck Copies(const View& view) {
  const StageMeans& most = view.MostOf(StepPart::kCopying);
  Bottleneck found = Make(Cause::kCopies, View::Share(most, StepPart::kCopying),
                          absl::StrCat("copying and hashing the state takes ",
                                       Percent(View::Share(most, StepPart::kCopying)),
                                       " of the time of ", Name(most.stage), "."),
                          "Checkpoints more rarely (checkpoint.every), or hashes "
                          "(swarm.verify_every).");
  found.stage = most.stage;
  return found;
}

Bottleneck Codecs(const View& view) {
  const double share = View::Share(view.busiest(), StepPart::kEncoding) +
                       View::Share(view.busiest(), StepPart::kDecoding);
  return Make(Cause::kCodecs, share,
              absl::StrCat("encoding and decoding boundaries takes ", Percent(share),
                           " of the time of ", Name(view.busiest().stage), "."),
              "Where links are fast, codec.forward and codec.backward = \"bf16\" or \"raw\" take "
              "less.");
}

Bottleneck Threads(const View& view) {
  const double share = View::Share(view.busiest(), StepPart::kHandover);
  return Make(Cause::kThreads, share,
              absl::StrCat("handing work from thread to thread takes ", Percent(share),
                           " of the time of ", Name(view.busiest().stage), "."),
              "Larger microbatches (train.microbatch), or more processors for as many processes, "
              "would help.");
}

Bottleneck Data(const View& view) {
  const double share = view.picture().feeding_s / view.step_s();
  return Make(Cause::kData, share,
              absl::StrCat("the trainer reads data for ", Percent(share), " of the step."),
              "Data on a faster disk, or in memory, would help.");
}

Bottleneck Computing(const View& view) {
  double least = 1;
  for (const StageMeans& stage : view.stages()) least = std::min(least, stage.busy);
  const double most = view.busiest().busy;
  const std::string range =
      Percent(least) == Percent(most) || view.stages().size() == 1
          ? absl::StrCat(" ", Percent(most), " of the step")
          : absl::StrFormat(" %.0f to %s of the step", 100 * least, Percent(most));
  Bottleneck found =
      Make(Cause::kComputing, most,
           absl::StrCat("computing limits this run: ",
                        view.stages().size() == 1 ? "its only stage computes"
                                                  : "its stages are about even and compute",
                        range, "."),
           "Faster devices, more threads, or one more replica of every stage would help.");
  found.speedup = 1;  // who knows
  return found;
}

bool IsTooLittle(const Bottleneck& found) {
  return found.share < (found.cause == Cause::kWaiting ? kLeastUnexplained : kLeastBlame);
}

}  // namespace

double MeanTimes::total_s() const {
  double sum = 0;
  for (const double part : seconds) sum += part;
  return sum;
}

double MeanTimes::busy_s() const {
  double sum = 0;
  for (const StepPart part : {StepPart::kForward, StepPart::kBackward, StepPart::kEvaluating,
                              StepPart::kDecoding, StepPart::kEncoding, StepPart::kHandover}) {
    sum += (*this)[part];
  }
  return sum;
}

double MeanTimes::passes_s() const { return busy_s() - (*this)[StepPart::kEvaluating]; }

double MeanTimes::share(StepPart part) const {
  const double total = total_s();
  return total > 0 ? (*this)[part] / total : 0;
}

const char* ToString(Cause cause) {
  switch (cause) {
    case Cause::kUnknown:
      return "unknown";
    case Cause::kComputing:
      return "computing";
    case Cause::kStage:
      return "stage";
    case Cause::kReplica:
      return "replica";
    case Cause::kFewMicrobatches:
      return "few_microbatches";
    case Cause::kWindow:
      return "window";
    case Cause::kLinks:
      return "links";
    case Cause::kSlots:
      return "slots";
    case Cause::kWaiting:
      return "waiting";
    case Cause::kData:
      return "data";
    case Cause::kRound:
      return "round";
    case Cause::kUpdate:
      return "update";
    case Cause::kEvaluation:
      return "evaluation";
    case Cause::kCopies:
      return "copies";
    case Cause::kCodecs:
      return "codecs";
    case Cause::kThreads:
      return "threads";
  }
  return "?";
}

std::string ToWords(const Bottleneck& found) {
  std::string words = found.reason;
  if (!found.advice.empty()) absl::StrAppend(&words, " ", found.advice);
  if (!words.empty()) words[0] = static_cast<char>(std::toupper(words[0]));
  if (found.speedup > 1.05) {
    absl::StrAppend(&words, absl::StrFormat(" At most %.1f times the throughput.", found.speedup));
  }
  return words;
}

std::vector<Bottleneck> FindBottlenecks(const TimePicture& picture) {
  const View view(picture);
  if (view.empty()) {
    return {Make(Cause::kUnknown, 0, "no replica has taken a whole step yet.", "")};
  }
  const Waits waits = ExplainWaits(view);
  std::vector<Bottleneck> found = {UnevenStages(view),
                                   SlowReplica(view),
                                   FewMicrobatches(view, waits),
                                   SmallWindow(view, waits),
                                   SlowLinks(view, waits),
                                   UnknownWaits(view, waits),
                                   FullSlots(view),
                                   Round(view),
                                   Update(view),
                                   Evaluation(view),
                                   Copies(view),
                                   Codecs(view),
                                   Threads(view),
                                   Data(view)};
  found.erase(std::remove_if(found.begin(), found.end(), IsTooLittle), found.end());
  std::stable_sort(found.begin(), found.end(),
                   [](const Bottleneck& a, const Bottleneck& b) { return a.share > b.share; });
  if (found.empty()) found.push_back(Computing(view));
  return found;
}

}  // namespace starling
