// ParseManifest: whatever the text, it answers; what it accepts is printed as it was. An input that
// begins with `#` gets its checksum from us, so that mutations reach what lies behind it.
#include "checkpoint/manifest.h"
#include "runtime/base/check.h"
#include "runtime/base/hash.h"
#include "tests/fuzz/fuzz_driver.h"

namespace starling {
namespace {

constexpr char kChecksum[] = ",\n \"checksum\": \"";

std::string Example(size_t parameters) {
  Manifest manifest;
  manifest.meta.run = RunId{0xfedcba9876543210};
  manifest.meta.era = Era{2};
  manifest.meta.version = Version{50};
  manifest.meta.text_sha256 = std::string(64, 'a');
  manifest.meta.config_toml = "[data]\ntext = [\"a \\\"b\\\"\"]\n";
  for (size_t i = 0; i < parameters; ++i) {
    manifest.parameters.push_back({std::string(1, static_cast<char>('a' + i)), {2, 3}});
    manifest.files.push_back({"f" + std::to_string(i), 123, Hash128{i, 7}});
  }
  return PrintManifest(manifest);
}

std::string TextOf(const std::string& input) {
  if (input.empty() || input[0] != '#') return input;
  const std::string text = input.substr(1);
  const size_t at = text.rfind(kChecksum);
  if (at == std::string::npos) return text;
  const std::string body = text.substr(0, at) + "\n}";
  return text.substr(0, at) + kChecksum + Sha256Hex(body.data(), body.size()) + "\"\n}\n";
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const size_t parameters : {0, 1, 5}) {
    seeds.push_back(Example(parameters));
    seeds.push_back("#" + Example(parameters));
    STARLING_CHECK(TextOf(seeds.back()) == Example(parameters));
  }
  return seeds;
}

void FuzzOne(const std::string& input) {
  const std::string text = TextOf(input);
  const absl::StatusOr<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) {
    STARLING_CHECK(absl::IsDataLoss(manifest.status()) ||
                   absl::IsFailedPrecondition(manifest.status()));
    return;
  }
  STARLING_CHECK(PrintManifest(*manifest) == text);
  for (const ManifestFile& file : manifest->files) {
    STARLING_CHECK(file.name.find('/') == std::string::npos && file.name[0] != '.');
  }
}

}  // namespace starling
