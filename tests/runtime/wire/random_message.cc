#include "tests/runtime/wire/random_message.h"

#include <array>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/runtime/wire/message_fields.h"

namespace starling {
namespace {

// How many values an enumeration of the messages has; other enumerations are ids, any number.
template <typename Enum>
constexpr uint64_t EnumValues() {
  if (std::is_same_v<Enum, WorkKind>) return 2;
  if (std::is_same_v<Enum, Progress>) return 3;
  if (std::is_same_v<Enum, HeldState>) return 4;
  if (std::is_same_v<Enum, Content>) return 2;
  if (std::is_same_v<Enum, OrderKind>) return 3;
  if (std::is_same_v<Enum, ShardOrder>) return 3;
  if (std::is_same_v<Enum, Encoding>) return 5;
  if (std::is_same_v<Enum, absl::StatusCode>) return 17;
  return 0;
}

class Filler {
 public:
  explicit Filler(Rng* rng) : rng_(rng) {}

  template <typename T>
  void operator()(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      value = rng_->Chance(0.5);
    } else if constexpr (std::is_enum_v<T>) {
      constexpr uint64_t values = EnumValues<T>();
      value = static_cast<T>(values == 0 ? Number() : rng_->Below(values));
    } else if constexpr (std::is_floating_point_v<T>) {
      FillFloat(&value);
    } else if constexpr (std::is_signed_v<T>) {
      value = static_cast<T>(Number() >> 1);
    } else if constexpr (std::is_unsigned_v<T>) {
      value = static_cast<T>(Number());
    } else {
      Fields<T>::Visit(value, *this);
    }
  }

  template <typename T>
  void operator()(std::vector<T>& list) {
    list.resize(rng_->Below(4));
    for (T& item : list) (*this)(item);
  }

  template <typename T, size_t kSize>
  void operator()(std::array<T, kSize>& items) {
    for (T& item : items) (*this)(item);
  }

  template <typename T>
  void operator()(std::optional<T>& value) {
    value.reset();
    if (rng_->Chance(0.5)) (*this)(value.emplace());
  }

  void operator()(std::string& text) {
    text.resize(rng_->Below(40));
    for (char& c : text) c = static_cast<char>(rng_->Next());  // NUL and non-UTF-8 too
  }

  void operator()(Blob& blob) {
    const DType dtype = static_cast<DType>(rng_->Below(6));
    std::vector<int64_t> shape(rng_->Below(4));
    for (int64_t& extent : shape) extent = static_cast<int64_t>(rng_->Below(6));
    MutableBlob bytes = MutableBlob::Uninitialized(dtype, std::move(shape));
    for (size_t i = 0; i < bytes.size_bytes(); ++i) bytes.data()[i] = std::byte(rng_->Next());
    blob = std::move(bytes).Freeze();
  }

  void operator()(MessageBody& body) {
    std::visit([this](auto& kind) { (*this)(kind); }, body);
  }

 private:
  // Small numbers, all sizes of large ones, and the largest.
  uint64_t Number() {
    if (rng_->Chance(0.1)) return ~uint64_t{0};
    return rng_->Next() >> rng_->Below(64);
  }

  // Any bits: infinities, subnormal numbers and NaNs too.
  template <typename Float>
  void FillFloat(Float* value) {
    const uint64_t bits = rng_->Next();
    std::memcpy(value, &bits, sizeof(Float));
  }

  Rng* rng_;
};

class Describer {
 public:
  template <typename T>
  void operator()(const T& value) {
    if constexpr (std::is_enum_v<T>) {
      Add(std::to_string(static_cast<std::underlying_type_t<T>>(value)));
    } else if constexpr (std::is_floating_point_v<T>) {
      uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof(value));
      Add(std::to_string(bits));
    } else if constexpr (std::is_integral_v<T>) {
      Add(std::to_string(value));
    } else {
      Fields<T>::Visit(value, *this);
    }
  }

  template <typename T>
  void operator()(const std::vector<T>& list) {
    Add("[" + std::to_string(list.size()));
    for (const T& item : list) (*this)(item);
    Add("]");
  }

  template <typename T, size_t kSize>
  void operator()(const std::array<T, kSize>& items) {
    for (const T& item : items) (*this)(item);
  }

  template <typename T>
  void operator()(const std::optional<T>& value) {
    Add(value ? "some" : "none");
    if (value) (*this)(*value);
  }

  void operator()(const std::string& text) { Add(std::to_string(text.size()) + ":" + text); }

  void operator()(const Blob& blob) {
    Add(ToString(blob.dtype()));
    (*this)(blob.shape());
    (*this)(blob.ToStringBytes());
  }

  void operator()(const MessageBody& body) {
    Add("kind " + std::to_string(body.index()));
    std::visit([this](const auto& kind) { (*this)(kind); }, body);
  }

  std::string Take() { return std::move(text_); }

 private:
  void Add(const std::string& piece) { text_ += piece + " "; }

  std::string text_;
};

template <size_t... Index>
MessageBody BodyOfKind(size_t kind, std::index_sequence<Index...>) {
  MessageBody body;
  ((Index == kind ? static_cast<void>(body.emplace<Index>()) : static_cast<void>(0)), ...);
  return body;
}

}  // namespace

Message RandomMessage(size_t kind, Rng* rng) {
  Message message;
  message.body = BodyOfKind(kind, std::make_index_sequence<kMessageKinds>());
  Filler fill(rng);
  fill(message);
  return message;
}

std::string Describe(const Message& message) {
  Describer describe;
  describe(message);
  return describe.Take();
}

}  // namespace starling
