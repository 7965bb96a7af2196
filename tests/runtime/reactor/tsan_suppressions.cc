// libzmq is not built with ThreadSanitizer, which therefore does not see how its threads hand bytes
// to each other. What it calls is left out; our own code on its threads is not.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "called_from_lib:libzmq.so\n"; }
