#include "runtime/trainer/decision_json.h"

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace starling {
namespace {

using Json = nlohmann::ordered_json;

// --- writing ---------------------------------------------------------------------------

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

// --- reading ---------------------------------------------------------------------------

// Reads fields of objects and remembers the first one that is wrong.
class Reader {
 public:
  const std::string& problem() const { return problem_; }

  template <typename T>
  T Number(const Json& object, const char* key) {
    const Json* field = Find(object, key);
    if (field == nullptr) return T();
    if constexpr (std::is_floating_point_v<T>) {
      if (field->is_null()) return std::numeric_limits<T>::quiet_NaN();
      if (field->is_number()) return field->get<T>();
    } else {
      if (field->is_number_unsigned()) return static_cast<T>(field->get<uint64_t>());
    }
    return Fail<T>(key);
  }
  bool Bool(const Json& object, const char* key) {
    const Json* field = Find(object, key);
    if (field == nullptr) return false;
    return field->is_boolean() ? field->get<bool>() : Fail<bool>(key);
  }
  std::string Text(const Json& object, const char* key) {
    const Json* field = Find(object, key);
    if (field == nullptr) return "";
    return field->is_string() ? field->get<std::string>() : Fail<std::string>(key);
  }
  Hash128 Hash(const Json& object, const char* key) {
    Hash128 hash;
    const std::string text = Text(object, key);
    return FromHex(text, &hash) ? hash : Fail<Hash128>(key);
  }
  const Json& List(const Json& object, const char* key) {
    static const Json* const kNone = new Json(Json::array());
    const Json* field = Find(object, key);
    if (field != nullptr && field->is_array()) return *field;
    Fail<int>(key);
    return *kNone;
  }
  Incarnation Replica(const Json& json) {  // "2.13"
    Incarnation incarnation;
    uint32_t epoch = 0;
    const std::vector<std::string> parts =
        absl::StrSplit(json.is_string() ? json.get<std::string>() : std::string(), '.');
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &epoch) ||
        !absl::SimpleAtoi(parts[1], &incarnation.counter)) {
      return Fail<Incarnation>("replica");
    }
    incarnation.epoch = Epoch{epoch};
    return incarnation;
  }
  Incarnation Replica(const Json& object, const char* key) {
    const Json* field = Find(object, key);
    return field == nullptr ? Incarnation() : Replica(*field);
  }
  PeerId Peer(const Json& object, const char* key) {
    uint64_t value = 0;
    if (!absl::SimpleHexAtoi(Text(object, key), &value)) return Fail<PeerId>(key);
    return PeerId{value};
  }

 private:
  const Json* Find(const Json& object, const char* key) {
    const auto found = object.is_object() ? object.find(key) : object.end();
    if (object.is_object() && found != object.end()) return &*found;
    Fail<int>(key);
    return nullptr;
  }
  template <typename T>
  T Fail(const char* key) {
    if (problem_.empty()) problem_ = absl::StrCat("\"", key, "\" is missing or malformed");
    return T();
  }

  std::string problem_;
};

GroupOutcome ReadGroup(const Json& json, const Decision& decision, Reader* reader) {
  GroupOutcome group;
  group.round.epoch = decision.epoch;
  group.round.step = decision.step;
  group.round.group = reader->Number<uint32_t>(json, "group");
  group.round.number = reader->Number<uint32_t>(json, "round");
  group.result_hash = reader->Hash(json, "result");
  group.square_norm = reader->Number<double>(json, "square_norm");
  group.lane = reader->Number<uint64_t>(json, "lane");
  for (const Json& item : reader->List(json, "members")) {
    RoundMemberPlan member;
    member.incarnation = reader->Replica(item, "replica");
    for (const Json& segment : reader->List(item, "segments")) {
      member.segments.push_back(
          {SegmentId{reader->Number<uint32_t>(segment, "segment")}, reader->Hash(segment, "list")});
    }
    group.members.push_back(std::move(member));
  }
  return group;
}

UpdateScalars ReadScalars(const Json& record, Reader* reader) {
  const auto found = record.find("scalars");
  const Json json = found == record.end() ? Json() : *found;
  UpdateScalars scalars;
  scalars.grad_scale = reader->Number<float>(json, "grad_scale");
  scalars.beta1 = reader->Number<float>(json, "beta1");
  scalars.one_minus_beta1 = reader->Number<float>(json, "one_minus_beta1");
  scalars.beta2 = reader->Number<float>(json, "beta2");
  scalars.one_minus_beta2 = reader->Number<float>(json, "one_minus_beta2");
  scalars.step_size = reader->Number<float>(json, "step_size");
  scalars.inv_sqrt_bias2 = reader->Number<float>(json, "inv_sqrt_bias2");
  scalars.epsilon = reader->Number<float>(json, "epsilon");
  scalars.decay = reader->Number<float>(json, "decay");
  return scalars;
}

Member ReadMember(const Json& json, Reader* reader) {
  Member member;
  member.incarnation = reader->Replica(json, "replica");
  member.peer = reader->Peer(json, "peer");
  member.stage = StageId{reader->Number<uint32_t>(json, "stage")};
  member.address.control = reader->Text(json, "control");
  member.address.bulk = reader->Text(json, "bulk");
  return member;
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
                     {"computed_on", Value(decision.computed_on)},
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

absl::StatusOr<Decision> ParseDecision(const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::DataLossError("not a decision record");
  Reader reader;
  Decision decision;
  decision.number = reader.Number<uint64_t>(json, "number");
  decision.epoch = Epoch{reader.Number<uint32_t>(json, "epoch")};
  decision.era = Era{reader.Number<uint32_t>(json, "era")};
  decision.step = Step{reader.Number<uint64_t>(json, "step")};
  // Logs from before there was another than the version before the step do not name it.
  if (json.contains("computed_on")) {
    decision.computed_on = Version{reader.Number<uint64_t>(json, "computed_on")};
  } else if (decision.step > Step{0}) {
    decision.computed_on = VersionBefore(decision.step);
  }
  decision.skip = reader.Bool(json, "skip");
  decision.loss = reader.Number<double>(json, "loss");
  decision.gradient_norm = reader.Number<double>(json, "grad_norm");
  decision.learning_rate = reader.Number<double>(json, "lr");
  decision.tokens = reader.Number<int64_t>(json, "tokens");
  decision.scalars = ReadScalars(json, &reader);
  for (const Json& group : reader.List(json, "groups")) {
    decision.groups.push_back(ReadGroup(group, decision, &reader));
  }
  for (const Json& member : reader.List(json, "joins")) {
    decision.joins.push_back(ReadMember(member, &reader));
  }
  for (const Json& leaver : reader.List(json, "leaves")) {
    decision.leaves.push_back(reader.Replica(leaver));
  }
  for (const Json& item : reader.List(json, "departures")) {
    Departure departure;
    departure.incarnation = reader.Replica(item, "replica");
    if (item.contains("moves_to")) {
      departure.moves_to = StageId{reader.Number<uint32_t>(item, "moves_to")};
    }
    decision.departures.push_back(departure);
  }
  if (!reader.problem().empty()) {
    return absl::DataLossError(absl::StrCat("not a decision record: ", reader.problem()));
  }
  return decision;
}

}  // namespace starling
