# add_proto_c(target name...): proto/<name>.proto -> generated/proto/<name>.pb-c.[ch] in the build
# tree, plus generated/proto/descriptors.bin for reflection, which holds the files as published.
#
# protoc-c sees a rewritten copy with the same bytes on the wire:
#   optional T f = N;   becomes a oneof of one member (protoc-c 1.4 refuses proto3 `optional`);
#   string              becomes bytes (protobuf-c would cut a string at its first NUL; the codecs
#                       check UTF-8 themselves).
find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_C protoc-c REQUIRED)

function(add_proto_c target)
  set(out ${CMAKE_BINARY_DIR}/generated/proto)
  set(rewritten ${CMAKE_BINARY_DIR}/rewritten/proto)
  file(MAKE_DIRECTORY ${out} ${rewritten})
  foreach(name IN LISTS ARGN)
    set(source ${CMAKE_SOURCE_DIR}/proto/${name}.proto)
    add_custom_command(
      OUTPUT ${out}/${name}.pb-c.c ${out}/${name}.pb-c.h
      COMMAND sed -E
        -e "s/^( *)optional +([a-zA-Z0-9_.]+) +([a-z0-9_]+) *= *([0-9]+) *\;/\\1oneof opt_\\3 { \\2 \\3 = \\4\; }/"
        -e "s/(^|[ {])string +([a-z0-9_]+ *=)/\\1bytes \\2/g"
        ${source} > ${rewritten}/${name}.proto
      COMMAND ${PROTOC_C} -I${CMAKE_BINARY_DIR}/rewritten --c_out=${CMAKE_BINARY_DIR}/generated
        ${rewritten}/${name}.proto
      DEPENDS ${source} VERBATIM)
    list(APPEND generated ${out}/${name}.pb-c.c)
    list(APPEND sources ${source})
  endforeach()
  add_custom_command(
    OUTPUT ${out}/descriptors.bin
    COMMAND ${PROTOC} -I${CMAKE_SOURCE_DIR} --include_imports
      --descriptor_set_out=${out}/descriptors.bin ${sources}
    DEPENDS ${sources} VERBATIM)
  add_library(${target} STATIC ${generated})
  # Generated code: our warnings are not its author's.
  target_include_directories(${target} PUBLIC ${CMAKE_BINARY_DIR}/generated)
  target_link_libraries(${target} PUBLIC PkgConfig::PROTOBUF_C)
  if(SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${SANITIZE})
  endif()
  add_custom_target(${target}_descriptors DEPENDS ${out}/descriptors.bin)
  add_dependencies(${target} ${target}_descriptors)
endfunction()
