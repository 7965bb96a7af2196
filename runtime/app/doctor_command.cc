#include <sys/statvfs.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/app/commands.h"
#include "runtime/app/terminal.h"
#include "runtime/app/threads.h"
#include "runtime/app/version.h"
#include "runtime/data/glob.h"
#include "runtime/reactor/event_loop.h"
#include "runtime/reactor/zmq_transport.h"
#include "stages/optimizer.h"
#include "stages/torch_info.h"

namespace starling {
namespace {

constexpr uint64_t kMinFreeBytes = uint64_t{1} << 30;
constexpr char kDemoText[] = "/usr/include/absl/**/*.h";

// Prints findings; remembers whether something is wrong.
class Findings {
 public:
  void Ok(const std::string& what) { PrintLine("ok    " + what); }
  void Warn(const std::string& what, const std::string& advice) {
    PrintLine(absl::StrCat("warn  ", what, ": ", advice));
  }
  void Bad(const std::string& what, const std::string& advice) {
    PrintLine(absl::StrCat("bad   ", what, ": ", advice));
    ++bad_;
  }
  int bad() const { return bad_; }

 private:
  int bad_ = 0;
};

const char* NameOf(BlasKind kind) {
  switch (kind) {
    case BlasKind::kOpenBlasOpenMp:
      return "OpenBLAS with OpenMP";
    case BlasKind::kOpenBlasPthread:
      return "OpenBLAS with threads of its own";
    case BlasKind::kOpenBlasOther:
      return "OpenBLAS";
    case BlasKind::kReference:
      return "the reference BLAS";
    case BlasKind::kBuiltIn:
      return "built into LibTorch";
    case BlasKind::kOther:
      break;
  }
  return "another one";
}

void CheckTorch(Findings* findings) {
  const TorchInfo info = ReadTorchInfo();
  findings->Ok(absl::StrCat("LibTorch ", info.version, ", ", info.capability));
  const std::string blas =
      absl::StrCat("BLAS: ", NameOf(info.blas),
                   info.blas_path.empty() ? "" : absl::StrCat(" (", info.blas_path, ")"));
  const std::string advice = BlasAdvice(info.blas);
  if (advice.empty()) {
    findings->Ok(blas);
  } else {
    findings->Warn(blas, advice);
  }
  findings->Ok(absl::StrCat(Cores(), " cores; LibTorch would use ", info.threads, " threads"));
}

void CheckUpdate(Findings* findings) {
  const std::string hash = ToHex(OptimizerGoldenHash());
  if (hash == kOptimizerGoldenHash) {
    findings->Ok("the optimizer's arithmetic is the same to the bit as elsewhere");
  } else {
    findings->Bad(absl::StrCat("the optimizer gives ", hash, ", not ", kOptimizerGoldenHash),
                  "this machine rounds in another way; it cannot be a replica. Build without "
                  "-ffast-math, with -ffp-contract=off");
  }
}

void CheckAddress(Findings* findings) {
  EventLoop loop;
  const auto transport = ZmqTransport::Create(&loop, ZmqTransport::Options());
  if (transport.ok()) {
    findings->Ok(absl::StrCat("can listen on ", (*transport)->address().control));
  } else {
    findings->Bad(std::string(transport.status().message()),
                  "no run can start here; is the loopback interface up?");
  }
}

void CheckDisk(Findings* findings) {
  struct statvfs info = {};
  if (statvfs(".", &info) != 0) return findings->Warn("disk space cannot be told", "look yourself");
  const uint64_t free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  const std::string what =
      absl::StrCat(FormatBytes(static_cast<int64_t>(free_bytes)), " free in this folder");
  if (free_bytes >= kMinFreeBytes) return findings->Ok(what);
  findings->Warn(what, "runs/ with its checkpoints may not fit; give --run-dir elsewhere");
}

void CheckText(Findings* findings) {
  const auto files = ExpandGlobs({kDemoText});
  if (files.ok()) {
    return findings->Ok(absl::StrCat("text of examples/tiny.toml: ", files->size(), " files"));
  }
  findings->Warn(std::string(files.status().message()),
                 "install libabsl-dev, or name a text of your own as data.text");
}

}  // namespace

absl::Status Doctor() {
  Findings findings;
  findings.Ok(absl::StrCat("starling ", StarlingVersion()));
  CheckTorch(&findings);
  CheckUpdate(&findings);
  CheckAddress(&findings);
  CheckDisk(&findings);
  CheckText(&findings);
  if (findings.bad() == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(findings.bad(), " thing", findings.bad() == 1 ? "" : "s",
                   " must be put right before Starling can run here"));
}

}  // namespace starling
