// A folder of a test's own, gone with the test.
#ifndef STARLING_TESTS_RUNTIME_REACTOR_TEMPORARY_FOLDER_H_
#define STARLING_TESTS_RUNTIME_REACTOR_TEMPORARY_FOLDER_H_

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "runtime/base/check.h"

namespace starling {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "starling-XXXXXX").string();
    STARLING_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace starling

#endif  // STARLING_TESTS_RUNTIME_REACTOR_TEMPORARY_FOLDER_H_
