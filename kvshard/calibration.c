#include "kvshard/calibration.h"

#include "base/file.h"
#include "base/half.h"
#include "kvshard/policy/policy_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAGIC        "ROPECAL\n"
#define MAX_PATH     4096
#define KIND_BYTES   16
#define SUM_BYTES    BASE_HASH_BYTES
#define ENERGY_BYTES 4

enum { /* offsets in the file */
       AT_VERSION = 8,
       AT_LAYERS = 12,
       AT_KV_HEADS = 16,
       AT_HEAD_DIM = 20,
       AT_TOKENS = 24,
       AT_MODEL = 32,
       AT_KIND = 48,
       AT_ENERGIES = 64,
};

base_status kv_calibration_create(const kv_shape *shape, base_hash model, int64_t n_tokens,
                                  const base_alloc *mem, kv_calibration **calibration_out)
{
    const base_status st = kv_shape_check(shape);
    if (st != BASE_OK) {
        return st;
    }
    if (n_tokens < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "calibration over %lld tokens, at least 1",
                         (long long)n_tokens);
    }
    kv_calibration *c = mem->get(mem->ctx, sizeof *c);
    if (c == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "calibration");
    }
    *c = (kv_calibration){.model = model, .shape = *shape, .n_tokens = n_tokens, .mem = *mem};
    c->energies = mem->get(mem->ctx, (size_t)kv_calibration_count(shape) * sizeof *c->energies);
    if (c->energies == NULL) {
        kv_calibration_destroy(c);
        return BASE_FAIL(BASE_NO_MEMORY, "calibration of %d layers and %d KV heads",
                         shape->n_layers, shape->n_kv_heads);
    }
    *calibration_out = c;
    return BASE_OK;
}

void kv_calibration_destroy(kv_calibration *calibration)
{
    if (calibration == NULL) {
        return;
    }
    const base_alloc mem = calibration->mem;
    mem.put(mem.ctx, calibration->energies);
    mem.put(mem.ctx, calibration);
}

static void put_u64(uint8_t *to, uint64_t value, int32_t n_bytes)
{
    for (int32_t i = 0; i < n_bytes; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_u64(const uint8_t *from, int32_t n_bytes)
{
    uint64_t value = 0;
    for (int32_t i = 0; i < n_bytes; i++) {
        value |= (uint64_t)from[i] << (8 * i);
    }
    return value;
}

static base_status sum_of(const void *bytes, size_t n_bytes, base_hash *sum_out)
{
    base_hasher *hasher = NULL;
    const base_status st = base_hasher_create(&hasher);
    if (st == BASE_OK) {
        base_hasher_add(hasher, bytes, n_bytes);
        *sum_out = base_hasher_end(hasher);
    }
    return st;
}

base_status kv_calibration_write(const kv_calibration *calibration, base_bytes *bytes_out)
{
    const base_alloc *mem = &calibration->mem;
    const kv_shape *shape = &calibration->shape;
    const int64_t n = kv_calibration_count(shape);
    const size_t n_summed = AT_ENERGIES + (size_t)n * ENERGY_BYTES;
    base_status st;
    base_hash sum;
    uint8_t *file = mem->get(mem->ctx, n_summed + SUM_BYTES);

    if (file == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "calibration file");
    }
    memcpy(file, MAGIC, AT_VERSION);
    put_u64(file + AT_VERSION, KV_CALIBRATION_VERSION, 4);
    put_u64(file + AT_LAYERS, (uint64_t)shape->n_layers, 4);
    put_u64(file + AT_KV_HEADS, (uint64_t)shape->n_kv_heads, 4);
    put_u64(file + AT_HEAD_DIM, (uint64_t)shape->head_dim, 4);
    put_u64(file + AT_TOKENS, (uint64_t)calibration->n_tokens, 8);
    memcpy(file + AT_MODEL, calibration->model.bytes, BASE_HASH_BYTES);
    memcpy(file + AT_KIND, KV_CALIBRATION_KIND, sizeof KV_CALIBRATION_KIND);
    for (int64_t i = 0; i < n; i++) {
        put_u64(file + AT_ENERGIES + i * ENERGY_BYTES, base_f32_bits(calibration->energies[i]),
                ENERGY_BYTES);
    }
    BASE_TRY(st, out, sum_of(file, n_summed, &sum));
    memcpy(file + n_summed, sum.bytes, SUM_BYTES);
    st = base_bytes_add(bytes_out, file, n_summed + SUM_BYTES);
out:
    mem->put(mem->ctx, file);
    return st;
}

/* Everything but the energies. */
static base_status read_header(base_view bytes, const char *name, kv_calibration *header_out)
{
    const uint8_t *file = (const uint8_t *)bytes.data;
    static const char kind[KIND_BYTES] = KV_CALIBRATION_KIND;
    base_hash sum;

    if (bytes.n_bytes < AT_ENERGIES + SUM_BYTES) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %zu: the file ends in its header of %d bytes",
                         name, bytes.n_bytes, AT_ENERGIES);
    }
    if (memcmp(file, MAGIC, AT_VERSION) != 0) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset 0: not a calibration file of Ropewalk", name);
    }
    const uint64_t version = get_u64(file + AT_VERSION, 4);
    if (version != KV_CALIBRATION_VERSION) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %d: version %llu, this program reads %d", name,
                         AT_VERSION, (unsigned long long)version, KV_CALIBRATION_VERSION);
    }
    const size_t n_summed = bytes.n_bytes - SUM_BYTES;
    const base_status st = sum_of(file, n_summed, &sum);
    if (st != BASE_OK) {
        return st;
    }
    if (memcmp(file + n_summed, sum.bytes, SUM_BYTES) != 0) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %zu: the checksum does not match: damaged",
                         name, n_summed);
    }
    if (memcmp(file + AT_KIND, kind, KIND_BYTES) != 0) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %d: made for another policy than %s", name,
                         AT_KIND, KV_CALIBRATION_KIND);
    }
    *header_out = (kv_calibration){.n_tokens = (int64_t)get_u64(file + AT_TOKENS, 8)};
    header_out->shape =
        (kv_shape){(int32_t)get_u64(file + AT_LAYERS, 4), (int32_t)get_u64(file + AT_KV_HEADS, 4),
                   (int32_t)get_u64(file + AT_HEAD_DIM, 4)};
    memcpy(header_out->model.bytes, file + AT_MODEL, BASE_HASH_BYTES);
    if (kv_shape_check(&header_out->shape) != BASE_OK) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %d: %d layers, %d KV heads of %d dims", name,
                         AT_LAYERS, header_out->shape.n_layers, header_out->shape.n_kv_heads,
                         header_out->shape.head_dim);
    }
    if (header_out->n_tokens < 1) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %d: made from no tokens", name, AT_TOKENS);
    }
    const size_t want =
        AT_ENERGIES + (size_t)kv_calibration_count(&header_out->shape) * ENERGY_BYTES + SUM_BYTES;
    if (bytes.n_bytes != want) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %zu: the file ends there, its shape says %zu",
                         name, bytes.n_bytes, want);
    }
    return BASE_OK;
}

base_status kv_calibration_parse(base_view bytes, const char *name, const base_alloc *mem,
                                 kv_calibration **calibration_out)
{
    base_status st;
    kv_calibration header;
    kv_calibration *c = NULL;

    BASE_TRY(st, out, read_header(bytes, name, &header));
    BASE_TRY(st, out, kv_calibration_create(&header.shape, header.model, header.n_tokens, mem, &c));
    const int64_t n = kv_calibration_count(&c->shape);
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = AT_ENERGIES + i * ENERGY_BYTES;
        const uint64_t bits = get_u64((const uint8_t *)bytes.data + at, ENERGY_BYTES);
        c->energies[i] = base_bits_f32((uint32_t)bits);
        if (!isfinite(c->energies[i]) || c->energies[i] < 0.0f) {
            st = BASE_FAIL(BASE_BAD_FILE, "%s: offset %lld: an energy is %g", name, (long long)at,
                           (double)c->energies[i]);
            goto out;
        }
    }
    *calibration_out = c;
    c = NULL;
out:
    kv_calibration_destroy(c);
    return st;
}

/* The file of a policy's text, or of the folder. */
static base_status find(const char *policy_text, const char *kind, const char *folder,
                        char path_out[MAX_PATH])
{
    const base_view given = kv_policy_calib(policy_text);
    const int n = given.data != NULL
                      ? snprintf(path_out, MAX_PATH, "%.*s", (int)given.n_bytes, given.data)
                      : snprintf(path_out, MAX_PATH, "%s/ropewalk/%s.cal", folder, kind);
    return n < MAX_PATH ? BASE_OK
                        : BASE_FAIL(BASE_BAD_INPUT,
                                    "calibration file: its path has %d bytes, "
                                    "at most %d",
                                    n, MAX_PATH - 1);
}

static base_status check_model(const kv_calibration *c, const char *path, base_hash model,
                               const kv_shape *shape)
{
    char made_from[BASE_HASH_TEXT_BYTES];
    char wanted[BASE_HASH_TEXT_BYTES];
    base_hash_text(c->model, made_from);
    base_hash_text(model, wanted);
    if (!base_hash_equal(c->model, model)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: offset %d: made from model %s, this one is %s", path,
                         AT_MODEL, made_from, wanted);
    }
    if (c->shape.n_layers != shape->n_layers || c->shape.n_kv_heads != shape->n_kv_heads ||
        c->shape.head_dim != shape->head_dim) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: offset %d: %d layers, %d KV heads of %d; the model has %d, %d of %d",
                         path, AT_LAYERS, c->shape.n_layers, c->shape.n_kv_heads, c->shape.head_dim,
                         shape->n_layers, shape->n_kv_heads, shape->head_dim);
    }
    return BASE_OK;
}

base_status kv_calibration_open(const char *policy_text, const char *model_folder, base_hash model,
                                const kv_shape *shape, const base_alloc *mem,
                                kv_calibration **calibration_out)
{
    base_status st;
    kv_policy policy;
    char path[MAX_PATH];
    char *data = NULL;
    size_t n_bytes = 0;
    kv_calibration *c = NULL;

    BASE_TRY(st, out, kv_policy_parse(policy_text, &policy));
    const char *kind = kv_policy_impl_of(policy.kind)->calibration;
    if (kind == NULL) {
        *calibration_out = NULL;
        goto out;
    }
    BASE_TRY(st, out, find(policy_text, kind, model_folder, path));
    st = base_file_read(path, KV_CALIBRATION_MAX_BYTES, mem, &data, &n_bytes);
    if (st == BASE_NOT_FOUND) {
        st = BASE_FAIL(BASE_NOT_FOUND,
                       "policy %s needs %s, which is not there; make it with: "
                       "ropewalk calibrate --model %s --text FILE -o %s",
                       kind, path, model_folder, path);
    }
    if (st != BASE_OK) {
        goto out;
    }
    BASE_TRY(st, out, kv_calibration_parse((base_view){data, n_bytes}, path, mem, &c));
    BASE_TRY(st, out, check_model(c, path, model, shape));
    *calibration_out = c;
    c = NULL;
out:
    kv_calibration_destroy(c);
    mem->put(mem->ctx, data);
    return st;
}
