#include "runtime/app/terminal.h"

#include "gtest/gtest.h"

namespace starling {
namespace {

TEST(FormatBytesTest, UnitsAreTheLargestThatFit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 20), "5.0 MiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 50), "5120.0 TiB");
}

TEST(FormatCountTest, ThousandsAreSetOff) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1271424), "1,271,424");
  EXPECT_EQ(FormatCount(-100000), "-100,000");
}

}  // namespace
}  // namespace starling
