# One target per library, with every dependency named.
#
#   starling_library(NAME router SOURCES wiring.cc HEADERS wiring.h DEPENDS base env absl::status)
#
# makes the static library `starling_router`. DEPENDS may name Starling libraries without the prefix.
# A link check (a program that holds the whole library and nothing but its named dependencies)
# proves that it needs no others.
#
#   starling_test(NAME router_test SOURCES wiring_test.cc DEPENDS router
#                 [TIMEOUT 120] [LABELS tsan] [PROPERTIES RUN_SERIAL TRUE] [WHOLE])
#
# makes one GoogleTest program and a ctest per test in it; with WHOLE a single ctest for the program,
# for tests that share something costly (a cluster, LibTorch's start). Labels with a meaning:
#   tsan     also built and run under ThreadSanitizer: tests of threads, without LibTorch
#   cluster  starts processes: counts for two processors when ctest runs tests side by side
#   torch    links LibTorch, half a second to start (five under ASan): implies WHOLE
#   no_asan  left out of `make asan`; say why beside it
#
# starling_check_tests_are_listed() at the end of a folder fails the configuration if a *_test.cc
# there is in no program.

# Tests are listed when ctest runs, not by running each program after it is linked.
set(CMAKE_GTEST_DISCOVER_TESTS_DISCOVERY_MODE PRE_TEST)

# Everything that `make tsan` builds.
add_custom_target(tsan_tests)

file(WRITE ${CMAKE_BINARY_DIR}/generated/linkcheck_main.cc.in "int main() { return 0; }\n")
configure_file(${CMAKE_BINARY_DIR}/generated/linkcheck_main.cc.in
               ${CMAKE_BINARY_DIR}/generated/linkcheck_main.cc COPYONLY)
add_library(starling_linkcheck_main OBJECT ${CMAKE_BINARY_DIR}/generated/linkcheck_main.cc)

function(starling_resolve out)
  set(resolved)
  foreach(name IN LISTS ARGN)
    if(name MATCHES "^[a-z_0-9]+$")
      list(APPEND resolved starling_${name})
    else()
      list(APPEND resolved ${name})
    endif()
  endforeach()
  set(${out} ${resolved} PARENT_SCOPE)
endfunction()

function(starling_library)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;HEADERS;DEPENDS" ${ARGN})
  starling_resolve(depends ${ARG_DEPENDS})
  if(ARG_SOURCES)
    add_library(starling_${ARG_NAME} STATIC ${ARG_SOURCES} ${ARG_HEADERS})
    target_link_libraries(starling_${ARG_NAME} PUBLIC starling_options ${depends})

    add_executable(linkcheck_${ARG_NAME} $<TARGET_OBJECTS:starling_linkcheck_main>)
    set_target_properties(linkcheck_${ARG_NAME} PROPERTIES LINKER_LANGUAGE CXX
      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/linkcheck)
    target_link_libraries(linkcheck_${ARG_NAME} PRIVATE
      -Wl,--whole-archive $<TARGET_FILE:starling_${ARG_NAME}> -Wl,--no-whole-archive
      starling_options ${depends})
    add_dependencies(linkcheck_${ARG_NAME} starling_${ARG_NAME})
  else()
    add_library(starling_${ARG_NAME} INTERFACE)
    target_link_libraries(starling_${ARG_NAME} INTERFACE starling_options ${depends})
  endif()
endfunction()

function(starling_test)
  cmake_parse_arguments(ARG "WHOLE" "NAME;TIMEOUT" "SOURCES;DEPENDS;LABELS;PROPERTIES" ${ARGN})
  starling_resolve(depends ${ARG_DEPENDS})
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_link_libraries(${ARG_NAME} PRIVATE starling_options ${depends}
                        GTest::gmock GTest::gtest_main)
  # Tests are compiled more often than they are run.
  target_compile_options(${ARG_NAME} PRIVATE $<$<CONFIG:Release>:-O1>)
  if("torch" IN_LIST ARG_LABELS)
    set(ARG_WHOLE TRUE)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
    if(ARG_WHOLE)
      set(ARG_TIMEOUT 300)
    endif()
  endif()
  if(STARLING_SANITIZE)
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")
  endif()
  set(properties TIMEOUT ${ARG_TIMEOUT})
  if("cluster" IN_LIST ARG_LABELS)
    list(APPEND properties PROCESSORS 2)
  endif()
  list(APPEND properties ${ARG_PROPERTIES})
  if("tsan" IN_LIST ARG_LABELS)
    add_dependencies(tsan_tests ${ARG_NAME})
  endif()
  if(ARG_WHOLE)
    add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME})
    set_tests_properties(${ARG_NAME} PROPERTIES ${properties} LABELS "${ARG_LABELS}")
  else()
    gtest_discover_tests(${ARG_NAME} DISCOVERY_TIMEOUT 60 PROPERTIES ${properties})
    # gtest_discover_tests() cannot take a property that is a list: labels are set when ctest has
    # found the tests.
    set(labels_file ${CMAKE_CURRENT_BINARY_DIR}/${ARG_NAME}_labels.cmake)
    file(CONFIGURE OUTPUT ${labels_file} @ONLY
         CONTENT "if(@ARG_NAME@_TESTS)
  set_tests_properties(\${@ARG_NAME@_TESTS} PROPERTIES LABELS \"@ARG_LABELS@\")
endif()
")
    if(ARG_LABELS)
      set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${labels_file})
    endif()
  endif()
  set_property(DIRECTORY APPEND PROPERTY STARLING_LISTED_TESTS ${ARG_SOURCES})
endfunction()

function(starling_check_tests_are_listed)
  get_property(listed DIRECTORY PROPERTY STARLING_LISTED_TESTS)
  file(GLOB present RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} CONFIGURE_DEPENDS
       ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
  foreach(file IN LISTS present)
    if(NOT file IN_LIST listed)
      message(FATAL_ERROR "${CMAKE_CURRENT_SOURCE_DIR}/${file} is in no starling_test(): add it to "
                          "the CMakeLists.txt beside it.")
    endif()
  endforeach()
endfunction()
