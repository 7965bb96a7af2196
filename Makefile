# The commands a person types. Each is a line or two over CMakePresets.json and scripts/.
#
#   CMAKE_ARGS=-DCMAKE_PREFIX_PATH=/opt/libtorch   where else libraries are
#   PACKAGES=skip                                  install no Debian packages
#   JOBS=4                                         compilers, and tests, at once

export CMAKE_ARGS JOBS
PACKAGES ?= install
TEST_JOBS = $(or $(JOBS),$(shell nproc 2>/dev/null || echo 2))
CTEST = ctest --output-on-failure -j $(TEST_JOBS)

.PHONY: help packages build test demo bench asan tsan tidy format clean

help:  ## print this
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

packages:  ## install the Debian packages that are missing
	@if [ "$(PACKAGES)" != skip ]; then scripts/install-packages.sh; fi

build: packages  ## build everything; the command is build/starling
	@scripts/build.sh release

test: build  ## build everything and run every test
	@$(CTEST) --preset release

demo: packages  ## build the command and train a small model on a local swarm, about two minutes
	@scripts/build.sh release starling
	build/starling train examples/tiny.toml

bench: build  ## a short form of the benches, some minutes; docs/benchmarks.md has the long ones
	@build/starling bench codecs hot scale transfer hop commit --short
	@bench/train_bench.py build/starling --short

asan: packages  ## run the tests under AddressSanitizer and UBSan, in build-asan
	@scripts/build.sh asan
	@$(CTEST) --preset asan

tsan: packages  ## run the tests of threads (label tsan) under ThreadSanitizer, in build-tsan
	@scripts/build.sh tsan tsan_tests
	@$(CTEST) --preset tsan

tidy: packages  ## run clang-tidy over every source (minutes)
	@scripts/tidy.sh

format:  ## format the sources in place
	@scripts/sources.sh | xargs clang-format -i

clean:  ## remove what was built
	rm -rf build build-asan build-tsan build-dev
