#!/usr/bin/env python3
"""Checks the rules of the tree that no compiler sees. Prints `file:line: rule: what` and exits 1.

    tests/style/style_check.py [ROOT]

A line that ends in a comment with `style: allow` is passed over, and so is the rule in a whole
folder where a table below says so. Say why in the comment. Only Python's standard library.
"""

import fnmatch
import os
import re
import sys

SKIPPED_FOLDERS = (".git", "build", "build-*", "runs", "__pycache__", ".cache", ".venv", "venv")
SOURCES = (".h", ".cc")
TEXTS = SOURCES + (".md", ".cmake", ".txt", ".json", ".toml", ".py", ".sh", ".capnp", ".in", ".supp")
CODE = ("runtime/", "router/", "stages/", "sync/", "codec/", "checkpoint/", "interop/", "examples/",
        "tests/", "bench/")
MAX_LINES = 800
MAX_README_LINES = 40
ALLOW = "style: allow"
# Split, so that this file does not break its own rules.
UNFINISHED = "TO" + "DO|FIX" + "ME|XX" + "X"
MACHINE_PATHS = ["/wo" + "rk/", "../sha" + "red", "/tmp" + "/w/", ".lib" + "rary/"]

# Where LibTorch may be included.
TORCH_FILES = ("stages/torch_*", "checkpoint/torch_*", "codec/torch_*", "runtime/app/*torch*",
               "tests/*torch*", "examples/*", "bench/*")
# Tests that read addresses and open none.
TESTS_OF_TEXT = ("tests/runtime/config/*", "tests/runtime/reactor/listen_address_test.cc")
# Where threads and clocks are at home. Tests of real things have both; the virtual world has none.
REAL_WORLD = ("runtime/reactor/*", "runtime/app/*", "examples/*", "bench/*")
VIRTUAL_WORLD = ("tests/sim/*",)


def matches(path, patterns):
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def is_source(path):
    return path.endswith(SOURCES) and path.startswith(CODE)


def is_test(path):
    return is_source(path) and path.startswith("tests/")


def is_steady(path):
    """Protocol, policy and the virtual world: no clock, thread or chance of its own."""
    if not is_source(path) or matches(path, REAL_WORLD) or is_device_side(path):
        return False
    return matches(path, VIRTUAL_WORLD) or not path.startswith("tests/")


def is_device_side(path):
    """LibTorch's files: they measure the device and configure its library, and steer nothing."""
    return is_source(path) and matches(path, TORCH_FILES) and not matches(path, REAL_WORLD)


def is_protocol(path):
    return is_steady(path) and not path.startswith("tests/")


def opens_sockets(path):
    """Tests of what only reads addresses may name any."""
    return is_test(path) and not matches(path, TESTS_OF_TEXT)


# (rule, which files, pattern, in code or in code with its strings, what to do)
LINE_RULES = [
    ("no-sleep-in-tests", is_test,
     r"\b(sleep_for|sleep_until|SleepFor|usleep|nanosleep|sleep)\s*\(", "code",
     "wait for a condition instead"),
    ("no-fixed-port-in-tests", opens_sockets,
     r"(tcp://(127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0|\*):[1-9]|\bhtons\s*\(\s*[1-9])", "strings",
     "let the system choose the port"),
    ("no-clock", is_steady,
     r"\b(steady_clock|system_clock|high_resolution_clock|clock_gettime|gettimeofday|absl::Now"
     r"|GetCurrentTimeNanos|std::time|time\s*\(\s*((nullptr|NULL|0)\s*\)|&)|rdtsc)",
     "code", "take the time from Env, or as a parameter"),
    ("no-thread", is_steady,
     r"(\bstd::(thread|jthread|async|mutex|shared_mutex|recursive_mutex|condition_variable\w*"
     r"|this_thread|lock_guard|unique_lock|scoped_lock|promise|future)\b|\bpthread_\w+"
     r"|\babsl::(Mutex|CondVar|Notification|BlockingCounter)\b"
     r"|#\s*include\s*<(thread|mutex|shared_mutex|future|condition_variable|pthread\.h)>)",
     "code", "threads belong to runtime/reactor and runtime/app"),
    ("no-thread-of-its-own", lambda p: is_device_side(p) and not p.startswith("tests/"),
     r"\b(std::thread(?!::id)|std::jthread|std::async|pthread_create|sleep_for)\b", "code",
     "the compute thread is runtime/reactor's"),
    ("no-chance", is_steady,
     r"(\brandom_device\b|\bstd::(mt19937\w*|default_random_engine|\w+_distribution)\b"
     r"|\babsl::(\w*BitGen\w*|Uniform|Bernoulli|Gaussian)\b|\b(s?rand|rand_r|drand48)\s*\(|\bgetrandom\s*\()",
     "code", "draw from Env or runtime/base/rng.h"),
    ("no-unordered-container", is_protocol,
     r"(\babsl::(flat|node)_hash_(map|set)\b|\bstd::unordered_(multi)?(map|set)\b"
     r"|#\s*include\s*(<unordered_(map|set)>|\"absl/container/(flat|node)_hash_))",
     "code", "iterate in a fixed order: std::map, a sorted vector"),
    ("no-torch", lambda p: is_source(p) and not matches(p, TORCH_FILES),
     r"#\s*include\s*[<\"](torch|ATen|c10|caffe2)/", "strings",
     "LibTorch belongs to stages/torch_*, checkpoint/torch_*; use a Blob"),
    ("no-capnp", lambda p: is_source(p) and not matches(p, ("runtime/wire/*", "tests/runtime/wire/*")),
     r"(#\s*include\s*[<\"](capnp|kj)/|\.capnp\.h\"|\b(capnp|kj)::)", "strings",
     "Cap'n Proto belongs to runtime/wire; use runtime/wire/messages.h"),
    ("no-zmq",
     lambda p: is_source(p) and not matches(p, ("runtime/reactor/*", "tests/runtime/reactor/*")),
     r"(#\s*include\s*[<\"]zmq|\bzmq::|\bzmq_\w+\s*\()", "strings",
     "ZeroMQ belongs to runtime/reactor; use runtime/env/transport.h"),
    ("no-unfinished-work", lambda p: True, r"\b(" + UNFINISHED + r")\b", "text",
     "finish it, or open an issue"),
    ("no-machine-path", lambda p: True, "|".join(re.escape(path) for path in MACHINE_PATHS), "text",
     "a path of one machine means nothing elsewhere"),
]


def split_line(line, in_block_comment):
    """Returns (code without strings, code with strings, in_block_comment) without comments."""
    bare, full, i = [], [], 0
    while i < len(line):
        if in_block_comment:
            end = line.find("*/", i)
            if end < 0:
                return "".join(bare), "".join(full), True
            in_block_comment, i = False, end + 2
            continue
        two = line[i:i + 2]
        if two == "//":
            break
        if two == "/*":
            in_block_comment, i = True, i + 2
            continue
        if line[i] == '"' or (line[i] == "'" and not (i > 0 and line[i - 1].isalnum())):
            end = i + 1
            while end < len(line) and line[end] != line[i]:
                end += 2 if line[end] == "\\" else 1
            bare.append(line[i] + line[i])
            full.append(line[i:end + 1])
            i = end + 1
            continue
        bare.append(line[i])
        full.append(line[i])
        i += 1
    return "".join(bare), "".join(full), in_block_comment


def check_lines(path, lines, report):
    rules = [rule for rule in LINE_RULES if rule[1](path)]
    in_block_comment = False
    is_cpp = path.endswith(SOURCES)
    for number, line in enumerate(lines, 1):
        bare, full = line, line
        if is_cpp:
            bare, full, in_block_comment = split_line(line, in_block_comment)
            if re.match(r"\s*#\s*include\b", full):
                bare = full  # a file's name is not a string of the program
        if ALLOW in line:
            continue
        views = {"code": bare, "strings": full, "text": line}
        for rule, _, pattern, view, advice in rules:
            found = re.search(pattern, views[view])
            if found:
                report(path, number, rule, "%r: %s" % (found.group(0).strip(), advice))


def check_include_guard(path, lines, report):
    wanted = "STARLING_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
    for number, line in enumerate(lines, 1):
        found = re.match(r"#\s*(ifndef\s+(\S+)|pragma\s+once)", line)
        if not found:
            continue
        following = lines[number] if number < len(lines) else ""
        if found.group(2) != wanted or following.split() != ["#define", wanted]:
            report(path, number, "include-guard", "should be " + wanted)
        return
    report(path, 1, "include-guard", "has none; should be " + wanted)


def needs_readme(folder):
    """Folders of tests mirror the tree and are explained there; those that do not, explain themselves."""
    if folder.startswith("tests/"):
        return folder in ("tests/sim", "tests/cluster", "tests/testing", "tests/style")
    return True


def check_readmes(files, report):
    folders = {os.path.dirname(path) for path in files if is_source(path)}
    for folder in sorted(folders):
        if needs_readme(folder) and folder + "/README.md" not in files:
            report(folder, 1, "folder-readme", "has sources and no README.md")
    for path in files:
        if path.endswith("/README.md") and path.startswith(CODE):
            count = len(files[path])
            if count > MAX_README_LINES:
                report(path, count, "folder-readme", "%d lines, at most %d" % (count, MAX_README_LINES))


def read_tree(root):
    """The text files under `root`, by their path from it, as lists of lines."""
    files = {}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(
            name for name in subfolders if not matches(name, SKIPPED_FOLDERS))
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
            if path.endswith(TEXTS) or name in ("Makefile", "run"):
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                    files[path] = file.read().splitlines()
    return files


def check_tree(root):
    """Returns the findings as (path, line, rule, text), and the number of files looked at."""
    findings = []

    def report(*finding):
        findings.append(finding)

    files = read_tree(root)
    for path, lines in files.items():
        check_lines(path, lines, report)
        if is_source(path) and len(lines) > MAX_LINES:
            report(path, len(lines), "file-length", "%d lines, at most %d" % (len(lines), MAX_LINES))
        if is_source(path) and path.endswith(".h"):
            check_include_guard(path, lines, report)
    check_readmes(files, report)
    return findings, len(files)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "..")
    findings, count = check_tree(root)
    for path, line, rule, text in findings:
        print("%s:%d: %s: %s" % (path, line, rule, text))
    if count == 0:
        print("no files found under %s" % root)
    print("style: %d files, %d findings" % (count, len(findings)))
    return 1 if findings or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
