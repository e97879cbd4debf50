#include "tests/support/model_alloc.h"
#include "tests/support/test.h"
#include "tests/unit/worker/model/tiny_model.h"
#include "worker/model/model.h"

static const tiny_options plain = {.dtype = BASE_BF16, .seed = 1};

static base_hash hash_of(const tiny_folder *folder)
{
    model *m = NULL;
    CHECK_STATUS(model_open(folder->path, &base_heap, &m), BASE_OK);
    const base_hash hash = m->hash;
    model_close(m);
    return hash;
}

static void check_refused(const tiny_folder *folder, base_status want, const char *name)
{
    model *m = NULL;
    CHECK_STATUS(model_open(folder->path, &base_heap, &m), want);
    assert_null(m);
    CHECK_ERROR_NAMES(name);
}

static void a_folder_opens_with_every_weight_in_its_place(void **state)
{
    (void)state;
    const tiny_folder folder = tiny_create(&plain);
    model *m = NULL;
    CHECK_STATUS(model_open(folder.path, &base_heap, &m), BASE_OK);
    assert_string_equal(m->name, folder.path + strlen("/tmp/"));
    assert_int_equal(m->config.n_layers, TINY_LAYERS);
    assert_int_equal(m->tokenizer_json.n_bytes, 2);
    assert_int_equal(m->generation_config_json.n_bytes, 0);
    assert_ptr_not_equal(m->head.data, m->embedding.data);
    assert_int_equal(m->embedding.dtype, BASE_BF16);
    /* The stream of a tensor is its number in the file: o_proj of layer 1 is 12th (3 + 2 * 4 + 1). */
    const uint16_t *o = m->layers[1].o.data;
    const float want = (float)(0.18 * base_random_normal(plain.seed, 12, 255));
    assert_int_equal(o[255], base_bf16_from_f32(want));
    model_close(m);
    tiny_remove(&folder);
}

static void tied_embeddings_need_no_head_and_ignore_one(void **state)
{
    (void)state;
    static const char tied[] = ",\"tie_word_embeddings\":true}";
    char config[sizeof TINY_CONFIG + sizeof tied];
    snprintf(config, sizeof config, "%.*s%s", (int)sizeof TINY_CONFIG - 2, TINY_CONFIG, tied);
    for (int32_t with_head = 0; with_head < 2; with_head++) {
        tiny_options o = plain;
        o.leave_out = with_head ? NULL : "lm_head.weight";
        const tiny_folder folder = tiny_create(&o);
        tiny_write(&folder, "config.json", config, strlen(config));
        model *m = NULL;
        CHECK_STATUS(model_open(folder.path, &base_heap, &m), BASE_OK);
        assert_ptr_equal(m->head.data, m->embedding.data);
        model_close(m);
        tiny_remove(&folder);
    }
}

static void a_missing_or_misshapen_tensor_is_named(void **state)
{
    (void)state;
    tiny_options o = plain;
    o.leave_out = "model.layers.1.mlp.up_proj.weight";
    tiny_folder folder = tiny_create(&o);
    check_refused(&folder, BASE_BAD_FILE, "'model.layers.1.mlp.up_proj.weight' is missing");
    tiny_remove(&folder);

    o = plain;
    o.leave_out = "lm_head.weight";
    folder = tiny_create(&o);
    check_refused(&folder, BASE_BAD_FILE, "'lm_head.weight' is missing");
    tiny_remove(&folder);

    o = plain;
    o.transpose = "model.layers.0.self_attn.q_proj.weight";
    folder = tiny_create(&o);
    check_refused(&folder, BASE_BAD_FILE,
                  "'model.layers.0.self_attn.q_proj.weight' has shape [32, 256], config.json wants "
                  "[256, 32]");
    tiny_remove(&folder);
}

static void tensors_that_nobody_needs_do_no_harm(void **state)
{
    (void)state;
    static const char *const names[] = {"model.layers.0.self_attn.rotary_emb.inv_freq", "vision.x"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        tiny_options o = plain;
        o.add = names[i];
        const tiny_folder folder = tiny_create(&o);
        (void)hash_of(&folder);
        tiny_remove(&folder);
    }
}

static void missing_files_are_named(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const tiny_folder folder = tiny_create(&plain);
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder.path, names[i]);
        assert_int_equal(unlink(path), 0);
        check_refused(&folder, BASE_NOT_FOUND, path);
        tiny_remove(&folder);
    }
}

static void the_hash_is_of_the_content(void **state)
{
    (void)state;
    const tiny_folder a = tiny_create(&plain);
    const tiny_folder b = tiny_create(&plain);
    const base_hash first = hash_of(&a);
    base_hash other = hash_of(&b);
    assert_true(base_hash_equal(first, other));

    tiny_write(&b, "tokenizer.json", "[]", 2);
    other = hash_of(&b);
    assert_false(base_hash_equal(first, other));
    tiny_write(&b, "tokenizer.json", "{}", 2);

    tiny_write(&b, "generation_config.json", "{\"eos_token_id\":2}", 18);
    other = hash_of(&b);
    assert_false(base_hash_equal(first, other));
    tiny_write(&b, "generation_config.json", "{\"eos_token_id\":1}", 18);
    other = hash_of(&b);
    assert_true(base_hash_equal(first, other));

    tiny_options seeded = plain;
    seeded.seed = 2;
    tiny_write_weights(&b, &seeded);
    other = hash_of(&b);
    assert_false(base_hash_equal(first, other));
    tiny_remove(&a);
    tiny_remove(&b);
}

static void the_name_is_the_last_part_of_the_path(void **state)
{
    (void)state;
    const tiny_folder folder = tiny_create(&plain);
    const char *base = folder.path + strlen("/tmp/");
    static const char *const suffixes[] = {"", "/", "//", "/."};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", folder.path, suffixes[i]);
        model *m = NULL;
        CHECK_STATUS(model_open(path, &base_heap, &m), BASE_OK);
        assert_string_equal(m->name, base);
        model_close(m);
    }
    tiny_remove(&folder);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    const tiny_folder folder = tiny_create(&plain);
    tiny_write(&folder, "generation_config.json", "{}", 2);
    check_model_allocations(folder.path, 5);
    tiny_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_opens_with_every_weight_in_its_place),
        cmocka_unit_test(tied_embeddings_need_no_head_and_ignore_one),
        cmocka_unit_test(a_missing_or_misshapen_tensor_is_named),
        cmocka_unit_test(tensors_that_nobody_needs_do_no_harm),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(the_hash_is_of_the_content),
        cmocka_unit_test(the_name_is_the_last_part_of_the_path),
        cmocka_unit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
