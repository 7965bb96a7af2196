// `starling`: without LibTorch, so that it starts at once.
#include "runtime/app/commands.h"

int main(int argc, char** argv) { return starling::RunCommandLine(argc, argv, nullptr); }
