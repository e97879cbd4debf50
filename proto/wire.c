#include "proto/wire.h"

#include <string.h>

/* One unpacking: the allocator that protobuf-c sees, and why it said no. */
typedef struct wire_heap {
    ProtobufCAllocator pb;
    base_alloc mem;
    size_t n_bytes_taken; /* in all; what was put back still counts */
    bool too_big;
    bool no_memory;
} wire_heap;

static void *heap_alloc(void *ctx, size_t n_bytes)
{
    wire_heap *heap = ctx;
    if (n_bytes > WIRE_MAX_UNPACKED_BYTES - heap->n_bytes_taken) {
        heap->too_big = true;
        return NULL;
    }
    heap->n_bytes_taken += n_bytes;
    void *p = heap->mem.get(heap->mem.ctx, n_bytes > 0 ? n_bytes : 1);
    heap->no_memory = heap->no_memory || p == NULL;
    return p;
}

static void heap_free(void *ctx, void *p)
{
    wire_heap *heap = ctx;
    heap->mem.put(heap->mem.ctx, p);
}

static base_status unpack(wire_heap *heap, const ProtobufCMessageDescriptor *type, base_view bytes,
                          ProtobufCMessage **message_out)
{
    ProtobufCMessage *message =
        protobuf_c_message_unpack(type, &heap->pb, bytes.n_bytes, (const uint8_t *)bytes.data);
    if (message != NULL) {
        *message_out = message;
        return BASE_OK;
    }
    if (heap->no_memory) {
        return BASE_FAIL(BASE_NO_MEMORY, "%s of %zu bytes", type->short_name, bytes.n_bytes);
    }
    if (heap->too_big) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s of %zu bytes would take more than %zu in memory",
                         type->short_name, bytes.n_bytes, WIRE_MAX_UNPACKED_BYTES);
    }
    return BASE_FAIL(BASE_BAD_INPUT, "%zu bytes are no %s", bytes.n_bytes, type->short_name);
}

base_status wire_decode(const wire_codec *codec, base_view bytes, const base_alloc *mem,
                        void **result_out)
{
    base_status st = BASE_OK;
    wire_heap heap = {.mem = *mem};
    heap.pb = (ProtobufCAllocator){heap_alloc, heap_free, &heap};
    ProtobufCMessage *message = NULL;
    wire_block block = {NULL, 0};

    BASE_TRY(st, out, unpack(&heap, codec->type, bytes, &message));
    BASE_TRY(st, out, codec->check(message));

    (void)wire_take(&block, codec->result_bytes);
    codec->build(&block, message, NULL);
    const size_t n_bytes = block.n_bytes;
    char *data = mem->get(mem->ctx, n_bytes);
    if (data == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%s of %zu bytes", codec->type->short_name, n_bytes);
        goto out;
    }
    block = (wire_block){data, 0};
    void *result = wire_take(&block, codec->result_bytes);
    codec->build(&block, message, result);
    *result_out = result;

out:
    protobuf_c_message_free_unpacked(message, &heap.pb); /* NULL is allowed */
    return st;
}

/* Where encoded bytes go, and the first error on the way. */
typedef struct wire_sink {
    ProtobufCBuffer pb; /* first: protobuf-c hands back this pointer */
    base_bytes *out;
    base_status st;
} wire_sink;

static void sink_append(ProtobufCBuffer *pb, size_t n_bytes, const uint8_t *data)
{
    wire_sink *sink = (wire_sink *)pb;
    if (sink->st == BASE_OK) {
        sink->st = base_bytes_add(sink->out, data, n_bytes);
    }
}

base_status wire_encode(const ProtobufCMessage *message, base_bytes *out)
{
    const size_t n_bytes_before = out->n_bytes;
    wire_sink sink = {{sink_append}, out, BASE_OK};

    (void)protobuf_c_message_pack_to_buffer(message, &sink.pb);
    if (sink.st != BASE_OK && out->data != NULL) {
        out->n_bytes = n_bytes_before;
        out->data[n_bytes_before] = '\0';
    }
    return sink.st;
}

void *wire_take(wire_block *block, size_t n_bytes)
{
    const size_t align = _Alignof(max_align_t);
    void *p = block->data == NULL || n_bytes == 0 ? NULL : block->data + block->n_bytes;
    block->n_bytes += (n_bytes + align - 1) / align * align; /* far from overflow: see unpack */
    return p;
}

void *wire_copy(wire_block *block, const void *from, size_t n_bytes)
{
    void *p = wire_take(block, n_bytes);
    if (p != NULL) {
        memcpy(p, from, n_bytes);
    }
    return p;
}

base_view wire_copy_view(wire_block *block, ProtobufCBinaryData from)
{
    const base_view v = {wire_copy(block, from.data, from.len), from.len};
    return v;
}
