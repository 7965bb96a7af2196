#include "tests/cluster/fault_hook.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "nlohmann/json.hpp"
#include "runtime/base/check.h"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

// Who dies while it joins leaves no stage without a replica, and no work undone.
bool IsMembers(const FaultCoordinate& coordinate) {
  return coordinate.phase != "joining" && coordinate.phase != "loading";
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string FaultCoordinate::FileName() const {
  std::string name = text;
  std::replace(name.begin(), name.end(), ',', '-');
  return name + ".json";
}

std::vector<FaultCoordinate> ParseFaultCoordinates(const std::string& text) {
  std::vector<FaultCoordinate> coordinates;
  for (const std::string& one : Split(text, ';')) {
    const std::vector<std::string> parts = Split(one, ',');
    STARLING_CHECK_MSG(parts.size() == 4, one);
    STARLING_CHECK_MSG(parts[0] == "replica" || parts[0] == "trainer", one);
    FaultCoordinate coordinate;
    coordinate.role = parts[0];
    if (parts[1] != "-") coordinate.stage = static_cast<uint32_t>(std::stoul(parts[1]));
    coordinate.phase = parts[2];
    coordinate.step = std::stoull(parts[3]);
    coordinate.text = one;
    coordinates.push_back(std::move(coordinate));
  }
  return coordinates;
}

FaultHook::FaultHook(std::string role)
    : role_(std::move(role)),
      folder_(Environment("STARLING_FAULT_FOLDER")),
      coordinates_(ParseFaultCoordinates(Environment("STARLING_FAULT"))),
      reactor_(std::this_thread::get_id()) {
  armed_ = std::any_of(coordinates_.begin(), coordinates_.end(),
                       [this](const FaultCoordinate& c) { return c.role == role_; });
}

void FaultHook::OnWelcome(Incarnation self, StageId stage) {
  self_ = self;
  stage_ = Value(stage);
  accepted_.clear();
  replicas_.clear();
}

void FaultHook::OnDecided(Step step) {
  decided_ = std::max(decided_, Value(step));
  accepted_.erase(accepted_.begin(), accepted_.upper_bound(decided_));
}

void FaultHook::Reached(const std::string& phase, Step step) {
  if (!armed_) return;
  for (const FaultCoordinate& coordinate : coordinates_) {
    if (!IsHere(coordinate, phase, step) || !Take(coordinate, step)) continue;
    if (flush_ && std::this_thread::get_id() == reactor_) flush_();
    kill(getpid(), SIGKILL);
    while (true) pause();  // another thread may be the one that the signal ends first
  }
}

bool FaultHook::IsHere(const FaultCoordinate& coordinate, const std::string& phase,
                       Step step) const {
  if (coordinate.role != role_ || coordinate.phase != phase || Value(step) < coordinate.step) {
    return false;
  }
  if (coordinate.stage && coordinate.stage != stage_) return false;
  if (role_ == "replica" && IsMembers(coordinate) && !AllStagesAreWhole()) return false;
  return EarlierAreOver(coordinate, step);
}

bool FaultHook::EarlierAreOver(const FaultCoordinate& coordinate, Step step) const {
  for (const FaultCoordinate& earlier : coordinates_) {
    if (earlier.text == coordinate.text) return true;
    std::ifstream file(folder_ + "/" + earlier.FileName());
    const Json line = Json::parse(file, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) return false;
    const bool apart = IsMembers(earlier) && IsMembers(coordinate);
    if (apart && line.at("step").get<uint64_t>() + 2 > Value(step)) return false;
  }
  return true;
}

bool FaultHook::AllStagesAreWhole() const {
  return !replicas_.empty() && std::all_of(replicas_.begin(), replicas_.end(),
                                           [](const auto& stage) { return stage.second >= 2; });
}

bool FaultHook::Take(const FaultCoordinate& coordinate, Step step) const {
  const int file = open((folder_ + "/" + coordinate.FileName()).c_str(),
                        O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (file < 0) return false;
  Json line = {{"coordinate", coordinate.text}, {"pid", getpid()}, {"step", Value(step)}};
  if (role_ == "replica") {
    Json accepted = Json::object();
    for (const auto& [at, indices] : accepted_) accepted[std::to_string(at)] = indices;
    line["incarnation"] = ToString(self_);
    line["decided"] = decided_;
    line["accepted"] = accepted;
  }
  const std::string text = line.dump() + "\n";
  STARLING_CHECK(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  close(file);
  return true;
}

}  // namespace starling
