# build_flags: what every target of ours is compiled with.
add_library(build_flags INTERFACE)
target_include_directories(build_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/generated)
# _GNU_SOURCE: pipe2, accept4, prctl and friends; the language itself stays C11.
target_compile_definitions(build_flags INTERFACE _GNU_SOURCE)
target_compile_options(build_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -Wformat=2 -Wundef
    # The same sums on every machine: a compiler may not fuse a multiply and an add on its own.
    -ffp-contract=off>)
if(SANITIZE)
  target_compile_options(build_flags INTERFACE
    -fsanitize=${SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(build_flags INTERFACE -fsanitize=${SANITIZE})
endif()
if(ROPEWALK_FUZZ)
  target_compile_options(build_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# check_headers(layer): one object per header of the current folder, which proves that the header
# compiles alone.
function(check_headers layer)
  file(GLOB_RECURSE headers RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
       ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  list(FILTER headers EXCLUDE REGEX "/cuda/")
  foreach(header IN LISTS headers)
    string(MAKE_C_IDENTIFIER ${header} id)
    set(probe ${CMAKE_BINARY_DIR}/header_check/${id}.c)
    file(CONFIGURE OUTPUT ${probe} CONTENT "#include \"${header}\"\nint header_check_${id}(void);\n")
    list(APPEND probes ${probe})
  endforeach()
  if(probes)
    add_library(${layer}_headers OBJECT ${probes})
    target_link_libraries(${layer}_headers PRIVATE ${layer})
  endif()
endfunction()

# add_layer(name sources...): one static library per top-level folder.
function(add_layer name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC build_flags)
  check_headers(${name})
endfunction()

# add_c_test(path/without/suffix LIBS .. [LABELS ..] [SECONDS n]): tests/<path>.c as a cmocka program.
function(add_c_test path)
  cmake_parse_arguments(PARSE_ARGV 1 T "" "SECONDS" "LIBS;LABELS")
  string(REPLACE "/" "." name ${path})
  add_executable(${name} ${CMAKE_SOURCE_DIR}/tests/${path}.c)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${T_LIBS} PkgConfig::CMOCKA build_flags)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT T_SECONDS)
    set(T_SECONDS 60)
  endif()
  if(SANITIZE STREQUAL "thread") # ten times slower
    math(EXPR T_SECONDS "4 * ${T_SECONDS}")
  endif()
  string(REGEX REPLACE "/.*" "" kind ${path})
  set_tests_properties(${name} PROPERTIES
    LABELS "${kind};${T_LABELS}" TIMEOUT ${T_SECONDS} SKIP_RETURN_CODE 77)
  if(SANITIZE STREQUAL "thread")
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT
      "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/tsan.supp")
  endif()
endfunction()
