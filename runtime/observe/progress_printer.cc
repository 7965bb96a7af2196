#include "runtime/observe/progress_printer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace starling {
namespace {

constexpr char kYellow[] = "\033[33m";
constexpr char kPlain[] = "\033[0m";
constexpr char kIndent[] = "         ";

// The fields of an event, as text.
class Fields {
 public:
  explicit Fields(const Event& event) : event_(event) {}

  std::string operator[](const std::string& key) const {
    for (const auto& [name, value] : event_.fields) {
      if (name != key) continue;
      return std::visit([](const auto& field) { return absl::StrCat(field); }, value);
    }
    return "?";
  }
  double Number(const std::string& key) const {
    for (const auto& [name, value] : event_.fields) {
      if (name != key) continue;
      if (const auto* real = std::get_if<double>(&value)) return *real;
      if (const auto* whole = std::get_if<int64_t>(&value)) return static_cast<double>(*whole);
    }
    return 0;
  }

 private:
  const Event& event_;
};

std::string Joined(const Fields& f) {
  return absl::StrCat("replica joined stage ", f["stage"], " (pid ", f["pid"], ") at version ",
                      f["version"]);
}
std::string Lost(const Fields& f) {
  const std::string pid = f["pid"] == "?" ? "" : absl::StrCat(" (pid ", f["pid"], ")");
  return absl::StrCat("lost replica of stage ", f["stage"], pid, ": ", f["reason"]);
}
std::string Replayed(const Fields& f) {
  return absl::StrCat("replayed ", f["pairs"], " lost gradient", f["pairs"] == "1" ? "" : "s", " (",
                      f["microbatches"], " microbatch", f["microbatches"] == "1" ? "" : "es",
                      ") of step ", f["step"]);
}
std::string Voided(const Fields& f) {
  return absl::StrCat("set aside a gradient sum of stage ", f["stage"], ": ", f["reason"]);
}
std::string Differs(const Fields& f) {
  return absl::StrCat("a replica of stage ", f["stage"],
                      " is not what it should be: ", f["reason"]);
}
std::string Began(const Fields& f) {
  return absl::StrCat("era ", f["era"], " begins at version ", f["version"], " from ",
                      f["checkpoint"]);
}
std::string Saved(const Fields& f) { return absl::StrCat("checkpoint saved: ", f["path"]); }
std::string SaveFailed(const Fields& f) {
  return absl::StrCat("checkpoint of step ", f["step"],
                      " not saved, training goes on: ", f["reason"]);
}
std::string Evaluated(const Fields& f) {
  const std::string per = f["per"];
  return absl::StrFormat("validation loss %.4f nats/%s at step %s", f.Number("validation_loss"),
                         per == "token" || per == "target" ? per : "byte", f["step"]);
}
std::string Skipped(const Fields& f) {
  return absl::StrCat("step ", f["step"], " skipped: ", f["reason"]);
}
std::string Waiting(const Fields& f) { return absl::StrCat("waiting: ", f["reason"]); }
std::string Reason(const Fields& f) { return f["reason"]; }
std::string Refused(const Fields& f) { return absl::StrCat("message refused: ", f["reason"]); }
std::string LoadFailed(const Fields& f) {
  return absl::StrCat("a joiner could not load its state: ", f["reason"]);
}
std::string JoinerLost(const Fields& f) {
  return absl::StrCat("lost a joiner of stage ", f["stage"], ": ", f["reason"]);
}
std::string Draining(const Fields& f) {
  return absl::StrCat("replica ", f["replica"], " of stage ", f["stage"],
                      " is to leave: ", f["reason"]);
}
std::string DrainWaits(const Fields& f) {
  return absl::StrCat("replica ", f["replica"], " of stage ", f["stage"],
                      " stays for now: ", f["reason"]);
}
std::string Departed(const Fields& f) {
  return absl::StrCat("replica ", f["replica"], " left stage ", f["stage"], " at version ",
                      f["version"]);
}
std::string Moved(const Fields& f) {
  return absl::StrCat("replica ", f["replica"], " moves from stage ", f["stage"], " to stage ",
                      f["to_stage"], ": ", f["reason"]);
}
std::string Behind(const Fields& f) {
  return absl::StrCat("a joiner of stage ", f["stage"], " falls behind: ", f["reason"]);
}
std::string Paused(const Fields& f) {
  return absl::StrCat("paused after step ", f["step"], ": `starling pause --off` goes on");
}
std::string Unpaused(const Fields&) { return "goes on"; }
std::string Killed(const Fields& f) {
  return absl::StrCat("chaos: killed a replica of stage ", f["stage"], " (pid ", f["pid"], ")");
}
std::string Exited(const Fields& f) {
  if (f["joined"] == "1") return "";  // peer_lost says it
  return absl::StrCat("local replica of stage ", f["stage"], " (pid ", f["pid"],
                      ") ended: ", f["how"]);
}
std::string GaveUp(const Fields& f) {
  return absl::StrCat("a local replica of stage ", f["stage"], " died ", f["times"],
                      " times before it joined and is not started again; last line of ", f["log"],
                      ": ", f["last_line"]);
}

using Sentence = std::string (*)(const Fields&);

const std::map<std::string, Sentence>& Sentences() {
  static const auto* const sentences = new std::map<std::string, Sentence>{
      {"peer_joined", Joined},
      {"peer_lost", Lost},
      {"replayed", Replayed},
      {"segment_voided", Voided},
      {"era_began", Began},
      {"checkpoint_saved", Saved},
      {"checkpoint_failed", SaveFailed},
      {"evaluated", Evaluated},
      {"step_skipped", Skipped},
      {"waiting", Waiting},
      {"state_lost", Reason},
      {"state_differs", Differs},
      {"message_refused", Refused},
      {"load_failed", LoadFailed},
      {"joiner_lost", JoinerLost},
      {"draining", Draining},
      {"drain_waits", DrainWaits},
      {"peer_left", Departed},
      {"moved", Moved},
      {"joiner_falls_behind", Behind},
      {"paused", Paused},
      {"unpaused", Unpaused},
      {"chaos_kill", Killed},
      {"local_exited", Exited},
      {"local_gave_up", GaveUp},
      {"notice", Reason},
  };
  return *sentences;
}

std::string Rate(double tokens_per_s) {
  return tokens_per_s >= 100 ? absl::StrFormat("%.0f", tokens_per_s)
                             : absl::StrFormat("%.3g", tokens_per_s);
}

}  // namespace

std::string FormatSeconds(double seconds) {
  const int64_t whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string ToSentence(const Event& event) {
  const auto found = Sentences().find(event.name);
  return found == Sentences().end() ? "" : found->second(Fields(event));
}

void ProgressPrinter::OnStep(const StepReport& report) {
  // The first step pays for warming up; after it, a mean over about ten.
  const double weight = steps_seen_ < 2 ? 1.0 : 0.1;
  smooth_step_s_ += weight * (report.step_s - smooth_step_s_);
  ++steps_seen_;
  const int64_t step = static_cast<int64_t>(Value(report.step));
  const std::string total = absl::StrCat(options_.total_steps);
  std::string line = absl::StrFormat(
      "step %*d/%s  loss %.4f  norm %.3f  lr %.2e  %5s tok/s  replicas %s",
      static_cast<int>(total.size()), step, total, report.loss, report.gradient_norm,
      report.learning_rate, Rate(report.tokens_per_s), absl::StrJoin(report.replicas, "/"));
  if (report.retries > 0) absl::StrAppend(&line, "  retries ", report.retries);
  if (!report.lane_ok) absl::StrAppend(&line, "  LANE WRONG");
  if (report.skipped) absl::StrAppend(&line, "  skipped");
  const int64_t left = options_.total_steps - step;
  if (left > 0) absl::StrAppend(&line, "  eta ", FormatSeconds(left * smooth_step_s_));
  print_(line);
}

void ProgressPrinter::OnEvent(const Event& event) {
  const std::string sentence = ToSentence(event);
  if (!sentence.empty()) Say(sentence);
}

void ProgressPrinter::Say(const std::string& sentence) {
  if (options_.terminal) {
    print_(absl::StrCat(kIndent, kYellow, sentence, kPlain));
  } else {
    print_(absl::StrCat(kIndent, sentence));
  }
}

}  // namespace starling
