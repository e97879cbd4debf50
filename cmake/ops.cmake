# read_ops(file): sets OPS and OP_SOURCES (relative to kernels/), and stops with the name of the
# first file that an op lacks.
function(read_ops file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(STRINGS ${file} lines REGEX "^X\\(")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "^X\\(([a-z0-9_]+)\\).*" "\\1" op "${line}")
    foreach(need kernels/op_${op}.h kernels/op_${op}.c kernels/cpu/${op}.c
                 tests/parity/test_${op}.c)
      if(NOT EXISTS ${CMAKE_SOURCE_DIR}/${need})
        message(FATAL_ERROR "op '${op}' is listed in ${file} but ${need} does not exist")
      endif()
    endforeach()
    list(APPEND ops ${op})
    list(APPEND sources op_${op}.c cpu/${op}.c)
  endforeach()
  set(OPS ${ops} PARENT_SCOPE)
  set(OP_SOURCES ${sources} PARENT_SCOPE)
endfunction()
