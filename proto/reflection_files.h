/* proto/reflection_files.h - the .proto files of this build, found by file name or by symbol.
 *
 * The bytes are linked in (descriptors.bin) and are what protoc made of the published files. */
#ifndef PROTO_REFLECTION_FILES_H
#define PROTO_REFLECTION_FILES_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>

typedef struct reflection_files reflection_files;

/* mem is copied and used until the destroy.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status reflection_files_create(const base_alloc *mem,
                                                    reflection_files **files_out);
void reflection_files_destroy(reflection_files *files); /* NULL is allowed */

/* The packed FileDescriptorProto named "proto/inference.proto"; it lives as long as files. */
bool reflection_files_by_name(const reflection_files *files, base_view name, base_view *file_out);
/* The file that declares "ropewalk.v1.Inference", ".Generate" of it, a message, a field, an enum
 * or an enum's value. */
bool reflection_files_by_symbol(const reflection_files *files, base_view symbol,
                                base_view *file_out);

#endif /* PROTO_REFLECTION_FILES_H */
