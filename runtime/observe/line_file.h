// LineFile: a file of lines that only grows, such as metrics.jsonl.
//
// Each line is one write to the system, so a reader sees whole lines and a killed process leaves at
// most one torn line, which Open() ends. Lines are not synced: they are for looking at, not for
// recovery. Writing fails quietly but for one call of `on_error`: a full disk must not end a run.
//
// Blocking; one thread at a time.
#ifndef STARLING_RUNTIME_OBSERVE_LINE_FILE_H_
#define STARLING_RUNTIME_OBSERVE_LINE_FILE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/env/file_system.h"

namespace starling {

class LineFile {
 public:
  // Gets one line for the user. Called at the first failure after a success.
  using OnError = std::function<void(const std::string& what)>;

  // Appends behind what is there. Errors: those of Disk::OpenForAppend.
  static absl::StatusOr<std::unique_ptr<LineFile>> Open(Disk& disk, const std::string& path,
                                                        OnError on_error);

  // `line` without its newline.
  void Write(const std::string& line);

 private:
  LineFile(std::unique_ptr<WritableFile> file, std::string path, OnError on_error)
      : file_(std::move(file)), path_(std::move(path)), on_error_(std::move(on_error)) {}

  const std::unique_ptr<WritableFile> file_;
  const std::string path_;
  const OnError on_error_;
  bool failing_ = false;
  bool torn_ = false;  // the file may end within a line
};

}  // namespace starling

#endif  // STARLING_RUNTIME_OBSERVE_LINE_FILE_H_
