// Which Starling this is, for `--version`, logs and benchmark reports.
#ifndef STARLING_RUNTIME_APP_VERSION_H_
#define STARLING_RUNTIME_APP_VERSION_H_

namespace starling {

// "0.1.0 (056d3a31a3)": the project's version, and the commit where the build knew it; "-dirty"
// follows a commit that the sources differed from. Lives forever.
const char* StarlingVersion();

}  // namespace starling

#endif  // STARLING_RUNTIME_APP_VERSION_H_
