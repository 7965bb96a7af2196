#include <cstdio>

#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/base/status_macros.h"
#include "runtime/config/run_file.h"
#include "runtime/reactor/posix_disk.h"

namespace starling {
namespace {

absl::StatusOr<RunConfig> ReadConfig(const ConfigArgs& args) {
  PosixDisk disk;
  STARLING_ASSIGN_OR_RETURN(const std::string text, disk.Read(args.run_file));
  return ParseRunFile(text, args.run_file, args.overrides);
}

}  // namespace

absl::Status PrintConfig(const ConfigArgs& args) {
  STARLING_ASSIGN_OR_RETURN(const RunConfig config, ReadConfig(args));
  const std::string text =
      ToToml(config, args.documented ? TomlStyle::kDocumented : TomlStyle::kPlain);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status ValidateConfig(const ConfigArgs& args) {
  STARLING_RETURN_IF_ERROR(ReadConfig(args).status());
  PrintLine(args.run_file + ": ok");
  return absl::OkStatus();
}

}  // namespace starling
