# The library `starling_version` (runtime/app/version.h). The commit is asked for at every build, but
# nothing is compiled again unless it changed.

set(starling_version_source ${CMAKE_BINARY_DIR}/generated/version.cc)
set(starling_write_version ${CMAKE_COMMAND}
  -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DVERSION=${PROJECT_VERSION}
  -DTEMPLATE=${PROJECT_SOURCE_DIR}/runtime/app/version.cc.in -DOUTPUT=${starling_version_source}
  -P ${PROJECT_SOURCE_DIR}/cmake/WriteVersion.cmake)
execute_process(COMMAND ${starling_write_version} COMMAND_ERROR_IS_FATAL ANY)
add_custom_target(starling_write_version COMMAND ${starling_write_version}
  BYPRODUCTS ${starling_version_source} VERBATIM)

starling_library(NAME version SOURCES ${starling_version_source}
  HEADERS ${PROJECT_SOURCE_DIR}/runtime/app/version.h)
add_dependencies(starling_version starling_write_version)
