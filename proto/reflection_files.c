#include "proto/reflection_files.h"

#include "proto/descriptor_index.pb-c.h"

#include <stdint.h>
#include <string.h>

/* descriptors.c, made from descriptors.bin by cmake/embed.cmake */
extern const uint8_t rpc_descriptors[];
extern const size_t rpc_descriptors_n_bytes;

typedef Ropewalk__Descriptor__File descriptor_file;
typedef Ropewalk__Descriptor__Scope descriptor_scope;
typedef Ropewalk__Descriptor__Enum descriptor_enum;
typedef Ropewalk__Descriptor__Service descriptor_service;
typedef Ropewalk__Descriptor__Named descriptor_named;

struct reflection_files {
    base_alloc mem;
    ProtobufCAllocator allocator; /* mem, for protobuf-c */
    Ropewalk__Descriptor__FileSet *set;
    descriptor_file **files; /* [set->n_file] */
};

static void *allocate(void *ctx, size_t n_bytes)
{
    const base_alloc *mem = ctx;
    return mem->get(mem->ctx, n_bytes > 0 ? n_bytes : 1);
}

static void release(void *ctx, void *p)
{
    const base_alloc *mem = ctx;
    mem->put(mem->ctx, p);
}

base_status reflection_files_create(const base_alloc *mem, reflection_files **files_out)
{
    base_status st = BASE_OK;
    reflection_files *files = mem->get(mem->ctx, sizeof *files);

    if (files == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "reflection files");
    }
    files->mem = *mem;
    files->allocator = (ProtobufCAllocator){allocate, release, &files->mem};
    files->set = ropewalk__descriptor__file_set__unpack(&files->allocator, rpc_descriptors_n_bytes,
                                                        rpc_descriptors);
    if (files->set == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "reflection files of %zu bytes", rpc_descriptors_n_bytes);
        goto out;
    }
    files->files = mem->get(mem->ctx, (files->set->n_file + 1) * sizeof(files->files[0]));
    if (files->files == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "table of %zu files", files->set->n_file);
        goto out;
    }
    for (size_t i = 0; i < files->set->n_file; i++) {
        const ProtobufCBinaryData packed = files->set->file[i];
        files->files[i] =
            ropewalk__descriptor__file__unpack(&files->allocator, packed.len, packed.data);
        if (files->files[i] == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "reflection file of %zu bytes", packed.len);
            goto out;
        }
    }
    *files_out = files;
    files = NULL;

out:
    reflection_files_destroy(files);
    return st;
}

void reflection_files_destroy(reflection_files *files)
{
    if (files == NULL) {
        return;
    }
    const base_alloc mem = files->mem;
    for (size_t i = 0; files->files != NULL && i < files->set->n_file; i++) {
        ropewalk__descriptor__file__free_unpacked(files->files[i], &files->allocator);
    }
    mem.put(mem.ctx, files->files);
    ropewalk__descriptor__file_set__free_unpacked(files->set, &files->allocator);
    mem.put(mem.ctx, files);
}

bool reflection_files_by_name(const reflection_files *files, base_view name, base_view *file_out)
{
    for (size_t i = 0; i < files->set->n_file; i++) {
        const ProtobufCBinaryData own = files->files[i]->name;
        if (base_view_equal(name, (base_view){(const char *)own.data, own.len})) {
            *file_out =
                (base_view){(const char *)files->set->file[i].data, files->set->file[i].len};
            return true;
        }
    }
    return false;
}

/* ---- symbols ---- */

/* If symbol is name, or goes on with ".rest", cuts that off and returns true. */
static bool enter(base_view *symbol, ProtobufCBinaryData name)
{
    if (name.len == 0 || symbol->n_bytes < name.len ||
        memcmp(symbol->data, name.data, name.len) != 0) {
        return false;
    }
    if (symbol->n_bytes == name.len) {
        *symbol = (base_view){NULL, 0};
        return true;
    }
    if (symbol->data[name.len] != '.' || symbol->n_bytes == name.len + 1) {
        return false;
    }
    symbol->data += name.len + 1;
    symbol->n_bytes -= name.len + 1;
    return true;
}

static bool has_named(descriptor_named *const *list, size_t n_list, base_view symbol)
{
    for (size_t i = 0; i < n_list; i++) {
        base_view rest = symbol;
        if (enter(&rest, list[i]->name) && rest.n_bytes == 0) {
            return true;
        }
    }
    return false;
}

/* The values of an enum are names of the scope around it. */
static bool has_enum(descriptor_enum *const *list, size_t n_list, base_view symbol)
{
    for (size_t i = 0; i < n_list; i++) {
        base_view rest = symbol;
        if ((enter(&rest, list[i]->name) && rest.n_bytes == 0) ||
            has_named(list[i]->value, list[i]->n_value, symbol)) {
            return true;
        }
    }
    return false;
}

/* Goes as deep as our own files nest. */
static bool has_message(descriptor_scope *const *list, size_t n_list, base_view symbol)
{
    for (size_t i = 0; i < n_list; i++) {
        const descriptor_scope *scope = list[i];
        base_view rest = symbol;
        if (enter(&rest, scope->name) &&
            (rest.n_bytes == 0 || has_named(scope->field, scope->n_field, rest) ||
             has_enum(scope->enum_type, scope->n_enum_type, rest) ||
             has_message(scope->nested_type, scope->n_nested_type, rest))) {
            return true;
        }
    }
    return false;
}

static bool has_service(descriptor_service *const *list, size_t n_list, base_view symbol)
{
    for (size_t i = 0; i < n_list; i++) {
        base_view rest = symbol;
        if (enter(&rest, list[i]->name) &&
            (rest.n_bytes == 0 || has_named(list[i]->method, list[i]->n_method, rest))) {
            return true;
        }
    }
    return false;
}

bool reflection_files_by_symbol(const reflection_files *files, base_view symbol,
                                base_view *file_out)
{
    for (size_t i = 0; i < files->set->n_file; i++) {
        const descriptor_file *file = files->files[i];
        base_view rest = symbol;
        if (enter(&rest, file->package) && rest.n_bytes > 0 &&
            (has_service(file->service, file->n_service, rest) ||
             has_message(file->message_type, file->n_message_type, rest) ||
             has_enum(file->enum_type, file->n_enum_type, rest))) {
            *file_out =
                (base_view){(const char *)files->set->file[i].data, files->set->file[i].len};
            return true;
        }
    }
    return false;
}
