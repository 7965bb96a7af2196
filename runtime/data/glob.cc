#include "runtime/data/glob.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status_macros.h"

namespace starling {
namespace {

namespace fs = std::filesystem;

bool HasWildcard(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

std::string Join(const std::string& folder, const std::string& name) {
  if (folder.empty() || folder.back() == '/') return folder + name;
  return folder + "/" + name;
}

// Walks one pattern, name by name.
class Walk {
 public:
  Walk(const std::string& pattern, const std::string& key, std::set<std::string>* found)
      : key_(key), found_(found) {
    size_t begin = 0;
    if (!pattern.empty() && pattern[0] == '/') root_ = "/";
    while (begin <= pattern.size()) {
      const size_t end = std::min(pattern.find('/', begin), pattern.size());
      if (end > begin) names_.push_back(pattern.substr(begin, end - begin));
      begin = end + 1;
    }
  }

  absl::Status Run() { return names_.empty() ? absl::OkStatus() : Visit(root_, 0); }

 private:
  // Everything in `folder` that matches the names from `index` on.
  absl::Status Visit(const std::string& folder, size_t index) {
    const std::string& name = names_[index];
    const bool last = index + 1 == names_.size();
    if (name == "**") {
      if (!last) STARLING_RETURN_IF_ERROR(Visit(folder, index + 1));
      return VisitMatches(folder, "*", [&](const std::string& path) -> absl::Status {
        std::error_code ignored;
        if (last) Add(path);
        if (fs::is_symlink(path, ignored) || !fs::is_directory(path, ignored)) {
          return absl::OkStatus();
        }
        return Visit(path, index);
      });
    }
    const auto step = [&](const std::string& path) -> absl::Status {
      std::error_code ignored;
      if (last) Add(path);
      if (last || !fs::is_directory(path, ignored)) return absl::OkStatus();
      return Visit(path, index + 1);
    };
    if (!HasWildcard(name)) return step(Join(folder, name));
    return VisitMatches(folder, name, step);
  }

  template <typename Each>
  absl::Status VisitMatches(const std::string& folder, const std::string& name, const Each& each) {
    std::error_code error;
    fs::directory_iterator entries(folder.empty() ? "." : folder, error);
    std::vector<std::string> matches;
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      const std::string entry = entries->path().filename().string();
      if (fnmatch(name.c_str(), entry.c_str(), FNM_PERIOD) == 0) matches.push_back(entry);
    }
    if (error == std::errc::no_such_file_or_directory) return absl::OkStatus();
    if (error) {
      return absl::PermissionDeniedError(
          absl::StrCat(key_, ": cannot list ", folder, ": ", error.message()));
    }
    for (const std::string& match : matches) {
      STARLING_RETURN_IF_ERROR(each(Join(folder, match)));
    }
    return absl::OkStatus();
  }

  void Add(const std::string& path) {
    std::error_code ignored;
    if (fs::is_regular_file(path, ignored)) found_->insert(path);
  }

  const std::string& key_;
  std::string root_;
  std::vector<std::string> names_;
  std::set<std::string>* found_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ExpandGlobs(const std::vector<std::string>& patterns,
                                                     const std::string& key) {
  if (patterns.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(key,
                     ": no files are given; name those to train on, for example "
                     "--data.text=[\"corpus/**/*.txt\"]"));
  }
  std::set<std::string> all;
  for (const std::string& pattern : patterns) {
    std::set<std::string> found;
    STARLING_RETURN_IF_ERROR(Walk(pattern, key, &found).Run());
    if (found.empty()) {
      return absl::NotFoundError(absl::StrCat(key, ": \"", pattern, "\" matches no file"));
    }
    all.insert(found.begin(), found.end());
  }
  return std::vector<std::string>(all.begin(), all.end());
}

}  // namespace starling
