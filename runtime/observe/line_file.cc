#include "runtime/observe/line_file.h"

#include <cstddef>
#include <utility>

#include "runtime/base/status_macros.h"

namespace starling {

absl::StatusOr<std::unique_ptr<LineFile>> LineFile::Open(Disk& disk, const std::string& path,
                                                         OnError on_error) {
  STARLING_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, disk.OpenForAppend(path));
  STARLING_ASSIGN_OR_RETURN(const Blob bytes, disk.Map(path));
  std::unique_ptr<LineFile> lines(new LineFile(std::move(file), path, std::move(on_error)));
  lines->torn_ = !bytes.empty() && bytes.data()[bytes.size_bytes() - 1] != std::byte{'\n'};
  return lines;
}

void LineFile::Write(const std::string& line) {
  const std::string text = (torn_ ? "\n" : "") + line + "\n";
  const absl::Status status = file_->Append(text.data(), text.size());
  torn_ = !status.ok();
  if (!status.ok() && !failing_ && on_error_) {
    on_error_(std::string(status.message()) + "; the run goes on without these lines");
  }
  failing_ = !status.ok();
}

}  // namespace starling
