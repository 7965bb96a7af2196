# Run as a script by StarlingVersion.cmake: writes OUTPUT from TEMPLATE if it would change.
# Needs SOURCE_DIR, VERSION, TEMPLATE, OUTPUT.

set(STARLING_VERSION ${VERSION})
# Only this project's own repository: an unpacked archive may lie inside another one.
if(EXISTS ${SOURCE_DIR}/.git)
  execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --dirty --abbrev=10 --match=v*
    OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0 AND commit)
    string(APPEND STARLING_VERSION " (${commit})")
  endif()
endif()
configure_file(${TEMPLATE} ${OUTPUT} @ONLY)
