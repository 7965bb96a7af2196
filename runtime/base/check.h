// Checks for programmer errors: they print the values and abort, in release builds too.
// Expected failures are `absl::Status`, never a check.
#ifndef STARLING_RUNTIME_BASE_CHECK_H_
#define STARLING_RUNTIME_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

namespace starling::internal {

[[noreturn]] inline void CheckFailed(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what.c_str());
  std::fflush(stderr);
  std::abort();
}

template <typename A, typename B>
[[noreturn]] void CheckOpFailed(const char* file, int line, const char* what, const A& a,
                                const B& b) {
  std::ostringstream text;
  text << what << " (" << a << " vs " << b << ")";
  CheckFailed(file, line, text.str());
}

}  // namespace starling::internal

#define STARLING_CHECK(condition)                                        \
  do {                                                                   \
    if (!(condition)) {                                                  \
      ::starling::internal::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                                    \
  } while (false)

#define STARLING_CHECK_MSG(condition, message)                                       \
  do {                                                                               \
    if (!(condition)) {                                                              \
      ::starling::internal::CheckFailed(__FILE__, __LINE__,                          \
                                        std::string(#condition) + ": " + (message)); \
    }                                                                                \
  } while (false)

#define STARLING_CHECK_OP_(a, b, op)                                                               \
  do {                                                                                             \
    const auto& starling_check_a = (a);                                                            \
    const auto& starling_check_b = (b);                                                            \
    if (!(starling_check_a op starling_check_b)) {                                                 \
      ::starling::internal::CheckOpFailed(__FILE__, __LINE__, #a " " #op " " #b, starling_check_a, \
                                          starling_check_b);                                       \
    }                                                                                              \
  } while (false)

#define STARLING_CHECK_EQ(a, b) STARLING_CHECK_OP_(a, b, ==)
#define STARLING_CHECK_NE(a, b) STARLING_CHECK_OP_(a, b, !=)
#define STARLING_CHECK_LE(a, b) STARLING_CHECK_OP_(a, b, <=)
#define STARLING_CHECK_LT(a, b) STARLING_CHECK_OP_(a, b, <)
#define STARLING_CHECK_GE(a, b) STARLING_CHECK_OP_(a, b, >=)
#define STARLING_CHECK_GT(a, b) STARLING_CHECK_OP_(a, b, >)

#endif  // STARLING_RUNTIME_BASE_CHECK_H_
