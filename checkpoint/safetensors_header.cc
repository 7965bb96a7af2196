#include "checkpoint/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace starling {
namespace {

constexpr uint64_t kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
constexpr char kNotDescribed[] = "is not described by dtype, shape and data_offsets";

struct TypeInfo {
  TensorType type;
  const char* name;
  size_t size;
  std::optional<DType> dtype;
};

constexpr TypeInfo kTypes[] = {
    {TensorType::kBool, "BOOL", 1, std::nullopt},
    {TensorType::kU8, "U8", 1, DType::kU8},
    {TensorType::kI8, "I8", 1, std::nullopt},
    {TensorType::kF8E4M3, "F8_E4M3", 1, std::nullopt},
    {TensorType::kF8E5M2, "F8_E5M2", 1, std::nullopt},
    {TensorType::kU16, "U16", 2, std::nullopt},
    {TensorType::kI16, "I16", 2, std::nullopt},
    {TensorType::kF16, "F16", 2, DType::kF16},
    {TensorType::kBF16, "BF16", 2, DType::kBF16},
    {TensorType::kU32, "U32", 4, std::nullopt},
    {TensorType::kI32, "I32", 4, DType::kI32},
    {TensorType::kF32, "F32", 4, DType::kF32},
    {TensorType::kU64, "U64", 8, std::nullopt},
    {TensorType::kI64, "I64", 8, DType::kI64},
    {TensorType::kF64, "F64", 8, std::nullopt},
};

const TypeInfo& InfoOf(TensorType type) {
  const TypeInfo& info = kTypes[static_cast<size_t>(type)];
  STARLING_CHECK(info.type == type);
  return info;
}

// Reads the header event by event and stops at the first that does not belong there: nesting is
// never deeper than tensor, field, list.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  absl::StatusOr<SafetensorsHeader> Take(bool parsed) {
    if (!status_.ok()) return status_;
    if (!parsed) return absl::DataLossError("its header is not JSON with unique names");
    return std::move(header_);
  }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) return Enter(Place::kTop);
    if (place_ != Place::kTop) return Misplaced();
    if (name_ == "__metadata__") return Enter(Place::kMetadata);
    entry_ = TensorEntry();
    entry_.name = name_;
    offsets_.clear();
    fields_.clear();
    return Enter(Place::kTensor);
  }

  bool key(std::string& text) override {
    auto& taken = place_ == Place::kTop ? names_ : fields_;
    if (place_ == Place::kMetadata) {
      metadata_key_ = text;
      return header_.metadata.count(text) == 0 || Fail("its header names a key twice", true);
    }
    if (!taken.insert(text).second) {
      return Fail(absl::StrCat("its header is not JSON with unique names: ", text, " comes twice"),
                  true);
    }
    (place_ == Place::kTop ? name_ : field_) = text;
    if (place_ == Place::kTensor && text != "dtype" && text != "shape" && text != "data_offsets") {
      return Fail(kNotDescribed);
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTop) return Enter(Place::kEnd);
    if (place_ == Place::kTensor && !FinishTensor()) return false;
    return Enter(Place::kTop);
  }

  bool start_array(size_t) override {
    if (place_ == Place::kTensor && field_ != "dtype") return Enter(Place::kList);
    return Misplaced();
  }
  bool end_array() override { return Enter(Place::kTensor); }

  bool number_unsigned(uint64_t number) override {
    if (place_ != Place::kList || number > kMost) return Misplaced();
    const bool is_shape = field_ == "shape";
    std::vector<int64_t>& list = is_shape ? entry_.shape : offsets_;
    if (list.size() == (is_shape ? kMaxTensorRank : 2)) return Misplaced();
    list.push_back(static_cast<int64_t>(number));
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[metadata_key_] = text;
      return true;
    }
    if (place_ != Place::kTensor || field_ != "dtype") return Misplaced();
    for (const TypeInfo& info : kTypes) {
      if (text == info.name) {
        entry_.type = info.type;
        return true;
      }
    }
    status_ = absl::InvalidArgumentError(
        absl::StrCat("tensor ", name_, ": element type ", text, " is not supported"));
    return false;
  }

  bool null() override { return Misplaced(); }
  bool boolean(bool) override { return Misplaced(); }
  bool number_integer(int64_t) override { return Misplaced(); }
  bool number_float(double, const std::string&) override { return Misplaced(); }
  bool binary(binary_t&) override { return Misplaced(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  enum class Place { kStart, kTop, kTensor, kList, kMetadata, kEnd };

  bool Enter(Place place) {
    place_ = place;
    return true;
  }

  // Always false: reading ends.
  bool Fail(const std::string& why, bool whole_header = false) {
    status_ = absl::DataLossError(whole_header ? why : absl::StrCat("tensor ", name_, ": ", why));
    return false;
  }

  // A value of a kind that has no business here.
  bool Misplaced() {
    if (place_ == Place::kStart) return Fail("its header is not JSON with unique names", true);
    if (place_ == Place::kMetadata || (place_ == Place::kTop && name_ == "__metadata__")) {
      return Fail("__metadata__ is not a map of text", true);
    }
    if (place_ == Place::kTop || field_ == "dtype") return Fail(kNotDescribed);
    return Fail(field_ == "shape" ? "has a bad shape" : "has bad data_offsets");
  }

  bool FinishTensor() {
    if (fields_.size() != 3) return Fail(kNotDescribed);
    if (offsets_.size() != 2) return Fail("has bad data_offsets");
    entry_.begin = static_cast<uint64_t>(offsets_[0]);
    entry_.end = static_cast<uint64_t>(offsets_[1]);
    const std::optional<uint64_t> bytes = BytesOf(entry_);
    if (entry_.begin > entry_.end || !bytes || *bytes != entry_.end - entry_.begin) {
      return Fail("has a size that is not that of its shape");
    }
    header_.tensors.push_back(std::move(entry_));
    return true;
  }

  SafetensorsHeader header_;
  absl::Status status_;
  Place place_ = Place::kStart;
  std::set<std::string> names_;   // keys of the header
  std::set<std::string> fields_;  // keys of the tensor being read
  std::string name_;
  std::string field_;
  std::string metadata_key_;
  TensorEntry entry_;
  std::vector<int64_t> offsets_;
};

}  // namespace

size_t SizeOf(TensorType type) { return InfoOf(type).size; }

const char* ToString(TensorType type) { return InfoOf(type).name; }

std::optional<DType> DTypeOf(TensorType type) { return InfoOf(type).dtype; }

TensorType TensorTypeOf(DType dtype) {
  for (const TypeInfo& info : kTypes) {
    if (info.dtype == dtype) return info.type;
  }
  STARLING_CHECK_MSG(false, "no such element type");
  return TensorType::kU8;
}

std::optional<uint64_t> BytesOf(const TensorEntry& entry) {
  uint64_t bytes = SizeOf(entry.type);
  for (const int64_t extent : entry.shape) {
    const auto size = static_cast<uint64_t>(extent);
    if (size != 0 && bytes > kMost / size) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(const char* begin, const char* end) {
  HeaderReader reader;
  const bool parsed = nlohmann::json::sax_parse(begin, end, &reader);
  return reader.Take(parsed);
}

}  // namespace starling
