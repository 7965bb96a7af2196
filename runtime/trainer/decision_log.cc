#include "runtime/trainer/decision_log.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "runtime/base/planted.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;

void Take(Decision record, DecisionLogState* state) {
  state->last_number = record.number;
  state->epoch = record.epoch;
  if (record.era != state->era) {  // everyone becomes a joiner again
    state->members.clear();
    state->newest.reset();
  }
  state->era = record.era;
  for (const Incarnation& leaver : record.leaves) state->members.erase(leaver);
  for (const Member& member : record.joins) state->members[member.incarnation] = member;
  if (record.step == Step{0}) return;
  state->step = record.step;
  if (record.skip) {
    state->skipped.insert(record.step);
  } else {
    state->skipped.erase(record.step);  // taken again in a later era
  }
  state->newest = std::move(record);
}

absl::StatusOr<bool> EndsWhole(Disk& disk, const std::string& path) {
  STARLING_ASSIGN_OR_RETURN(const uint64_t size, disk.FileSize(path));
  if (size == 0) return true;
  STARLING_ASSIGN_OR_RETURN(const Blob bytes, disk.Map(path));
  return bytes.size_bytes() == 0 || bytes.data()[bytes.size_bytes() - 1] == std::byte{'\n'};
}

absl::Status AppendLine(Disk& disk, const std::string& path, const std::string& line, bool* whole) {
  const bool known_whole = std::exchange(*whole, false);  // until this one is
  bool torn = false;
  if (!known_whole) {
    STARLING_ASSIGN_OR_RETURN(const bool ends_whole, EndsWhole(disk, path));
    torn = !ends_whole;
  }
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.OpenForAppend(path));
  const std::string text = (torn ? "\n" : "") + line + "\n";
  STARLING_RETURN_IF_ERROR(file->Append(text.data(), text.size()));
  if (!Planted(Bug::kActBeforeSync)) STARLING_RETURN_IF_ERROR(file->Sync());
  *whole = true;
  return absl::OkStatus();
}

}  // namespace

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
  const size_t end = lines.size() - (Planted(Bug::kForgetRecord) ? 2 : 0);
  for (size_t i = 1; i < end; ++i) {
    if (lines[i].empty()) continue;
    // A line that is no record is a torn one: the machine died while it was being written, so it
    // was never acted on.
    absl::StatusOr<Decision> record = ParseDecision(lines[i]);
    if (record.ok()) Take(*std::move(record), &state);
  }
  return state;
}

void DecisionLog::Append(const Decision& decision, std::function<void(absl::Status)> done) {
  files_->Run([path = path_, line = ToJsonLine(decision),
               whole = whole_](Disk& disk) { return AppendLine(disk, path, line, whole.get()); },
              std::move(done));
}

}  // namespace starling
