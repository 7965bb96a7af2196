#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "runtime/app/ask_trainer.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/base/step_times.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

std::string DescribeReplica(const Json& replica) {
  return absl::StrFormat("    %-6s %-8s version %-6d %6.0f tok/s  pid %d on %s (%s, %d thread%s)",
                         replica.value("replica", "?"), replica.value("state", "?"),
                         replica.value("version", int64_t{0}), replica.value("tokens_per_s", 0.0),
                         replica.value("pid", int64_t{0}), replica.value("host", "?"),
                         replica.value("device", "?"), replica.value("threads", 0),
                         replica.value("threads", 0) == 1 ? "" : "s");
}

// The columns of the table, in the order of StepPart.
constexpr const char* kColumns[kStepParts] = {"forwd", "backw", "eval", "decod", "encod",
                                              "hand",  "input", "slot", "idle",  "reduc",
                                              "decid", "apply", "copy"};

double TotalOf(const Json& time) {
  double total = 0;
  for (size_t i = 0; i < kStepParts; ++i) {
    total += time.value(ToString(static_cast<StepPart>(i)), 0.0);
  }
  return total;
}

std::string TimesOf(const Json& replica, int64_t stage) {
  const Json& time = replica["time"];
  const double total = TotalOf(time);
  std::string line =
      absl::StrFormat("  %5d  %-7s %7.3f", stage, replica.value("replica", "?"), total);
  for (size_t i = 0; i < kStepParts; ++i) {
    const double share = 100 * time.value(ToString(static_cast<StepPart>(i)), 0.0) / total;
    absl::StrAppend(&line, share >= 0.05 ? absl::StrFormat(" %5.1f", share) : "     -");
  }
  return line;
}

// Where the steps' time went, and what limits the run.
void PrintTimes(const Json& status) {
  std::vector<std::string> lines;
  for (const Json& stage : status["stages"]) {
    for (const Json& replica : stage["replicas"]) {
      if (!replica.contains("time") || TotalOf(replica["time"]) <= 0) continue;
      lines.push_back(TimesOf(replica, stage["stage"].get<int64_t>()));
    }
  }
  if (!lines.empty()) {
    std::string header = "  stage  replica  step s";
    for (const char* column : kColumns) absl::StrAppend(&header, absl::StrFormat(" %5s", column));
    PrintLine("");
    PrintLine("percent of a step (the last ones):");
    PrintLine(header);
    for (const std::string& line : lines) PrintLine(line);
    PrintLine("");
  }
  if (!status.contains("bottlenecks")) return;
  for (const Json& found : status["bottlenecks"]) PrintLine(found.value("words", "?"));
}

void PrintWords(const Json& status) {
  PrintLine(absl::StrCat(status.value("state", "?"), ": step ", status.value("step", int64_t{0}),
                         " of ", status.value("steps", int64_t{0}), ", version ",
                         status.value("version", int64_t{0}), ", era ", status.value("era", 0)));
  for (const Json& stage : status["stages"]) {
    const Json& replicas = stage["replicas"];
    PrintLine(absl::StrCat("  stage ", stage["stage"].get<int64_t>(), ", layers ",
                           stage["layers"][0].get<int64_t>(), "-",
                           stage["layers"][1].get<int64_t>() - 1, ":",
                           replicas.empty() ? " nobody serves it" : ""));
    for (const Json& replica : replicas) PrintLine(DescribeReplica(replica));
  }
  const std::string missing = status.value("waiting_for", "");
  PrintLine(missing.empty() ? "nothing is missing" : "missing: " + missing);
  PrintLine(absl::StrCat("more replicas: starling stage --join ", status.value("address", "?")));
  PrintTimes(status);
}

}  // namespace

absl::Status ShowStatus(const StatusArgs& args) {
  STARLING_ASSIGN_OR_RETURN(
      const Message reply,
      AskTrainer(args.target, [](const Endpoint& reply_address) -> MessageBody {
        return StatusRequest{reply_address};
      }));
  const auto* answer = std::get_if<StatusReply>(&reply.body);
  if (answer == nullptr) {
    return absl::InternalError(absl::StrCat("the trainer of ", args.target, " gave no status"));
  }
  if (args.json) {
    PrintLine(answer->json);
    return absl::OkStatus();
  }
  const Json status = Json::parse(answer->json, nullptr, /*allow_exceptions=*/false);
  if (!status.is_object() || !status.contains("stages")) {
    return absl::InternalError(absl::StrCat("the trainer of ", args.target, " gave no status"));
  }
  try {
    PrintWords(status);
  } catch (const Json::exception& error) {
    return absl::InternalError(absl::StrCat(
        "the trainer of ", args.target, " gave a status that is not understood: ", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace starling
