#include "runtime/app/line_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "runtime/base/check.h"

namespace starling {
namespace {

using Kind = LineReader::Kind;

class LineReaderTest : public ::testing::Test {
 protected:
  LineReaderTest() {
    STARLING_CHECK(pipe(input_) == 0);
    STARLING_CHECK(pipe(wake_) == 0);
    reader_.emplace(input_[0], wake_[0]);
  }
  ~LineReaderTest() override {
    CloseInput();
    for (int fd : {input_[0], wake_[0], wake_[1]}) close(fd);
  }

  void Type(const std::string& text) { Write(input_[1], text); }
  void Wake() { Write(wake_[1], "!"); }
  void CloseInput() {
    if (input_[1] >= 0) close(input_[1]);
    input_[1] = -1;
  }
  void ExpectLine(const std::string& line) {
    const auto read = reader_->Next();
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->kind, Kind::kLine);
    EXPECT_EQ(read->line, line);
  }
  void ExpectKind(Kind kind) {
    const auto read = reader_->Next();
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->kind, kind);
  }

  std::optional<LineReader> reader_;
  int input_[2] = {-1, -1};
  int wake_[2] = {-1, -1};

 private:
  static void Write(int fd, const std::string& text) {
    STARLING_CHECK(write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
};

TEST_F(LineReaderTest, LinesOfOneWriteComeOneByOneAndTheLastNeedsNoNewline) {
  Type("one\n\ntwo\nthr");
  Type("ee");
  CloseInput();
  ExpectLine("one");
  ExpectLine("");
  ExpectLine("two");
  ExpectLine("three");
  ExpectKind(Kind::kEnd);
  ExpectKind(Kind::kEnd);
}

TEST_F(LineReaderTest, InputThatIsClosedAtOnceIsTheEnd) {
  CloseInput();
  ExpectKind(Kind::kEnd);
}

TEST_F(LineReaderTest, WakingCountsBeforeLinesThatAreThere) {
  Type("one\nhalf");
  ExpectLine("one");
  Wake();
  ExpectKind(Kind::kWoken);
  char byte = 0;
  ASSERT_EQ(read(wake_[0], &byte, 1), 1);
  Type(" a line\n");
  ExpectLine("half a line");
}

TEST_F(LineReaderTest, DescriptorThatCannotBeReadIsAnError) {
  const int folder = open("/", O_RDONLY);
  ASSERT_GE(folder, 0);
  LineReader reader(folder, wake_[0]);
  EXPECT_EQ(reader.Next().status().code(), absl::StatusCode::kInternal);
  close(folder);
}

TEST_F(LineReaderTest, LineWithoutEndIsRefused) {
  const int zeros = open("/dev/zero", O_RDONLY);
  ASSERT_GE(zeros, 0);
  LineReader reader(zeros, wake_[0]);
  EXPECT_EQ(reader.Next().status().code(), absl::StatusCode::kResourceExhausted);
  close(zeros);
}

}  // namespace
}  // namespace starling
