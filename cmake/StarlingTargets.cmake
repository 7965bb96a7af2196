# One target per library, with every dependency named.
#
#   starling_library(NAME router SOURCES wiring.cc HEADERS wiring.h DEPENDS base env absl::status)
#
# makes the static library `starling_router`. DEPENDS may name Starling libraries without the prefix.
# A link check (an executable that holds the whole library and nothing but its named dependencies)
# proves that it needs no others.
#
#   starling_test(NAME router_test SOURCES wiring_test.cc DEPENDS router [TIMEOUT 120] [LABELS cluster])
#
# makes one GoogleTest program and a ctest per test in it. starling_check_tests_are_listed() at the
# end of a folder fails the configuration if a *_test.cc there is in no program.

function(starling_resolve out)
  set(resolved)
  foreach(name IN LISTS ARGN)
    if(name MATCHES "::" OR name MATCHES "^-" OR name MATCHES "^/" OR NOT name MATCHES "^[a-z_0-9]+$")
      list(APPEND resolved ${name})
    else()
      list(APPEND resolved starling_${name})
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
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/linkcheck_${ARG_NAME}.cc.in "int main() { return 0; }\n")
    configure_file(${CMAKE_CURRENT_BINARY_DIR}/linkcheck_${ARG_NAME}.cc.in
                   ${CMAKE_CURRENT_BINARY_DIR}/linkcheck_${ARG_NAME}.cc COPYONLY)
    add_executable(linkcheck_${ARG_NAME} ${CMAKE_CURRENT_BINARY_DIR}/linkcheck_${ARG_NAME}.cc)
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
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SOURCES;DEPENDS;LABELS;PROPERTIES" ${ARGN})
  starling_resolve(depends ${ARG_DEPENDS})
  add_executable(${ARG_NAME} ${ARG_SOURCES})
  target_link_libraries(${ARG_NAME} PRIVATE ${depends} GTest::gmock GTest::gtest_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  gtest_discover_tests(${ARG_NAME} DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}" ${ARG_PROPERTIES})
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
