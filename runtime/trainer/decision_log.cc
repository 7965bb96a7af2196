#include "runtime/trainer/decision_log.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;

Json ToJson(const GroupOutcome& group) {
  Json members = Json::array();
  for (const RoundMemberPlan& member : group.members) {
    Json segments = Json::array();
    for (const SegmentRef& ref : member.segments) {
      segments.push_back({{"segment", Value(ref.id)}, {"list", ToHex(ref.list_hash)}});
    }
    members.push_back({{"replica", ToString(member.incarnation)}, {"segments", segments}});
  }
  return {{"group", group.round.group},
          {"round", group.round.number},
          {"result", ToHex(group.result_hash)},
          {"square_norm", group.square_norm},
          {"lane", group.lane},
          {"members", members}};
}

Json ToJson(const UpdateScalars& s) {
  return {{"grad_scale", s.grad_scale},
          {"beta1", s.beta1},
          {"one_minus_beta1", s.one_minus_beta1},
          {"beta2", s.beta2},
          {"one_minus_beta2", s.one_minus_beta2},
          {"step_size", s.step_size},
          {"inv_sqrt_bias2", s.inv_sqrt_bias2},
          {"epsilon", s.epsilon},
          {"decay", s.decay}};
}

absl::Status Parse(const std::string& line, DecisionLogState* state) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("number") || !json["number"].is_number_unsigned() ||
      !json.contains("epoch") || !json["epoch"].is_number_unsigned() || !json.contains("era") ||
      !json["era"].is_number_unsigned() || !json.contains("step") ||
      !json["step"].is_number_unsigned()) {
    return absl::DataLossError("not a decision record");
  }
  state->last_number = json["number"].get<uint64_t>();
  state->epoch = Epoch{json["epoch"].get<uint32_t>()};
  state->era = Era{json["era"].get<uint32_t>()};
  const uint64_t step = json["step"].get<uint64_t>();
  if (step != 0) state->step = Step{step};
  return absl::OkStatus();
}

absl::Status AppendLine(Disk& disk, const std::string& path, const std::string& line) {
  bool torn = false;
  STARLING_ASSIGN_OR_RETURN(const uint64_t size, disk.FileSize(path));
  if (size > 0) {
    STARLING_ASSIGN_OR_RETURN(const Blob bytes, disk.Map(path));
    torn = bytes.size_bytes() > 0 && bytes.data()[bytes.size_bytes() - 1] != std::byte{'\n'};
  }
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.OpenForAppend(path));
  const std::string text = (torn ? "\n" : "") + line + "\n";
  STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
  return file->Sync();
}

}  // namespace

std::string ToJsonLine(const Decision& decision) {
  Json groups = Json::array();
  for (const GroupOutcome& group : decision.groups) groups.push_back(ToJson(group));
  Json joins = Json::array();
  for (const Member& member : decision.joins) {
    joins.push_back({{"replica", ToString(member.incarnation)},
                     {"peer", ToString(member.peer)},
                     {"stage", Value(member.stage)},
                     {"control", member.address.control},
                     {"bulk", member.address.bulk}});
  }
  Json leaves = Json::array();
  for (const Incarnation& incarnation : decision.leaves) leaves.push_back(ToString(incarnation));
  Json departures = Json::array();
  for (const Departure& departure : decision.departures) {
    Json line = {{"replica", ToString(departure.incarnation)}};
    if (departure.moves_to) line["moves_to"] = Value(*departure.moves_to);
    departures.push_back(std::move(line));
  }
  const Json json = {{"number", decision.number},
                     {"epoch", Value(decision.epoch)},
                     {"era", Value(decision.era)},
                     {"step", Value(decision.step)},
                     {"skip", decision.skip},
                     {"loss", decision.loss},
                     {"grad_norm", decision.gradient_norm},
                     {"lr", decision.learning_rate},
                     {"tokens", decision.tokens},
                     {"scalars", ToJson(decision.scalars)},
                     {"groups", groups},
                     {"joins", joins},
                     {"leaves", leaves},
                     {"departures", departures}};
  return json.dump();
}

absl::Status CreateDecisionLog(Disk& disk, const std::string& path, RunId run) {
  if (disk.Exists(path)) return absl::AlreadyExistsError(absl::StrCat(path, " exists already"));
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.Create(path));
  const std::string line = Json{{"format", kFormat}, {"run", Value(run)}}.dump() + "\n";
  STARLING_RETURN_IF_ERROR(file->Append(line.data(), line.size()));
  STARLING_RETURN_IF_ERROR(file->Sync());
  return disk.SyncDirectory(path.substr(0, path.find_last_of('/')));
}

absl::StatusOr<DecisionLogState> ReadDecisionLog(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const std::string text, disk.Read(path));
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  DecisionLogState state;
  const Json head = Json::parse(lines[0], nullptr, /*allow_exceptions=*/false);
  if (!head.is_object() || !head.contains("format") || head["format"] != kFormat ||
      !head.contains("run") || !head["run"].is_number_unsigned()) {
    return absl::DataLossError(absl::StrCat(path, ":1: not the head of a decision log"));
  }
  state.run = RunId{head["run"].get<uint64_t>()};
  for (size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    // A line that is no record is a torn one: the machine died while it was being written, so it
    // was never acted on.
    Parse(lines[i], &state).IgnoreError();
  }
  return state;
}

void DecisionLog::Append(const Decision& decision, std::function<void(absl::Status)> done) {
  files_->Run([path = path_,
               line = ToJsonLine(decision)](Disk& disk) { return AppendLine(disk, path, line); },
              std::move(done));
}

}  // namespace starling
