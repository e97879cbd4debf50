#include "tests/support/rpc_world.h"

#include "tests/support/failing_alloc.h"

#include "base/bytes.h"
#include "proto/reflection.h"
#include "proto/reflection_v1.pb-c.h"

#define V1_PATH      "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
#define V1ALPHA_PATH "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

typedef Grpc__Reflection__V1__ServerReflectionRequest request_message;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_message;
#define REQUEST(name)  GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define RESPONSE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

static ProtobufCBinaryData binary_of(const char *text)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
}

static bool is_text(ProtobufCBinaryData data, const char *text)
{
    return data.len == strlen(text) && memcmp(data.data, text, data.len) == 0;
}

static request_message empty_request(void)
{
    request_message request;
    grpc__reflection__v1__server_reflection_request__init(&request);
    return request;
}

/* Asks one thing; the caller frees the response. */
static response_message *ask(const char *path, const request_message *request)
{
    uint8_t packed[512];
    base_bytes reply;
    rpc_code code = RPC_UNKNOWN;
    char text[RPC_MAX_STATUS_BYTES + 1];
    assert_true(grpc__reflection__v1__server_reflection_request__get_packed_size(request) <=
                sizeof packed);
    const size_t n_bytes = grpc__reflection__v1__server_reflection_request__pack(request, packed);
    base_bytes_init(&reply, 1 << 20, &base_heap);
    CHECK_STATUS(rpc_client_unary(channel, path, (base_view){(const char *)packed, n_bytes}, 5000,
                                  &reply, &code, text),
                 BASE_OK);
    assert_int_equal(code, RPC_OK);
    response_message *response = grpc__reflection__v1__server_reflection_response__unpack(
        NULL, reply.n_bytes, (const uint8_t *)reply.data);
    assert_non_null(response);
    assert_int_equal(response->original_request->message_request_case,
                     request->message_request_case);
    base_bytes_reset(&reply);
    return response;
}

static response_message *ask_symbol(const char *symbol)
{
    request_message request = empty_request();
    request.message_request_case = REQUEST(FILE_CONTAINING_SYMBOL);
    request.file_containing_symbol = binary_of(symbol);
    return ask(V1_PATH, &request);
}

static void free_response(response_message *response)
{
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
}

static void both_versions_list_what_is_served(void **state)
{
    (void)state;
    static const char *const paths[] = {V1_PATH, V1ALPHA_PATH};
    static const char *const want[] = {
        "test.Echo",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    };
    for (size_t p = 0; p < 2; p++) {
        request_message request = empty_request();
        request.host = binary_of("here");
        request.message_request_case = REQUEST(LIST_SERVICES);
        response_message *response = ask(paths[p], &request);
        assert_true(is_text(response->valid_host, "here"));
        assert_int_equal(response->message_response_case, RESPONSE(LIST_SERVICES_RESPONSE));
        assert_int_equal(response->list_services_response->n_service, 4);
        for (size_t i = 0; i < 4; i++) {
            assert_true(is_text(response->list_services_response->service[i]->name, want[i]));
        }
        free_response(response);
    }
}

static void symbols_of_every_kind_lead_to_their_file(void **state)
{
    (void)state;
    static const struct {
        const char *symbol;
        const char *file;
    } rows[] = {
        {"ropewalk.v1.Inference", "proto/inference.proto"},
        {"ropewalk.v1.Inference.Generate", "proto/inference.proto"},
        {"ropewalk.v1.GenerateRequest", "proto/inference.proto"},
        {"ropewalk.v1.GenerateRequest.model", "proto/inference.proto"},
        {"ropewalk.v1.Group", "proto/group.proto"},
        {"ropewalk.v1.EndReason", "proto/group.proto"},
        {"ropewalk.v1.END_REASON_EOS", "proto/group.proto"},
        {"grpc.health.v1.HealthCheckResponse.ServingStatus", "proto/health.proto"},
        {"grpc.health.v1.HealthCheckResponse.SERVING", "proto/health.proto"},
        {"grpc.reflection.v1.ServerReflection", "proto/reflection_v1.proto"},
        {"grpc.reflection.v1alpha.ServerReflection", "proto/reflection_v1alpha.proto"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        response_message *response = ask_symbol(rows[i].symbol);
        if (response->message_response_case != RESPONSE(FILE_DESCRIPTOR_RESPONSE)) {
            fail_msg("no file for %s", rows[i].symbol);
        }
        assert_int_equal(response->file_descriptor_response->n_file_descriptor_proto, 1);
        /* A descriptor begins with field 1, the file's name. */
        const ProtobufCBinaryData file =
            response->file_descriptor_response->file_descriptor_proto[0];
        const size_t n_bytes = strlen(rows[i].file);
        assert_true(file.len > 2 + n_bytes);
        assert_int_equal(file.data[0], 0x0a);
        assert_int_equal(file.data[1], n_bytes);
        assert_memory_equal(file.data + 2, rows[i].file, n_bytes);
        free_response(response);
    }
}

static void files_are_served_as_published(void **state)
{
    (void)state;
    request_message request = empty_request();
    request.message_request_case = REQUEST(FILE_BY_FILENAME);
    request.file_by_filename = binary_of("proto/health.proto");
    response_message *response = ask(V1_PATH, &request);
    assert_int_equal(response->message_response_case, RESPONSE(FILE_DESCRIPTOR_RESPONSE));
    const ProtobufCBinaryData file = response->file_descriptor_response->file_descriptor_proto[0];
    /* HealthCheckRequest's field: name "service", number 1, label optional, type 9: string. */
    static const char field[] = "\x0a\x07service\x18\x01 \x01(\x09";
    assert_non_null(memmem(file.data, file.len, field, sizeof field - 1));
    free_response(response);
}

static void what_is_not_there_is_not_found(void **state)
{
    (void)state;
    static const char *const symbols[] = {
        "",
        "ropewalk.v1",
        "ropewalk.v1.",
        "ropewalk.v1.Inferenc",
        "ropewalk.v1.Inference.",
        "ropewalk.v1.Inference.Nothing",
        "ropewalk.v1.InferenceX",
        "Inference",
        "grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING", /* not a scope of values */
        "\xff\xfe",
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        response_message *response = ask_symbol(symbols[i]);
        if (response->message_response_case != RESPONSE(ERROR_RESPONSE)) {
            fail_msg("a file for '%s'", symbols[i]);
        }
        assert_int_equal(response->error_response->error_code, RPC_NOT_FOUND);
        free_response(response);
    }
    request_message request = empty_request();
    Grpc__Reflection__V1__ExtensionRequest extension =
        GRPC__REFLECTION__V1__EXTENSION_REQUEST__INIT;
    extension.containing_type = binary_of("ropewalk.v1.Usage");
    request.message_request_case = REQUEST(FILE_CONTAINING_EXTENSION);
    request.file_containing_extension = &extension;
    response_message *response = ask(V1_PATH, &request);
    assert_int_equal(response->message_response_case, RESPONSE(ERROR_RESPONSE));
    free_response(response);
}

static void types_have_no_extensions(void **state)
{
    (void)state;
    request_message request = empty_request();
    request.message_request_case = REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE);
    request.all_extension_numbers_of_type = binary_of("ropewalk.v1.GenerateRequest");
    response_message *response = ask(V1_PATH, &request);
    assert_int_equal(response->message_response_case, RESPONSE(ALL_EXTENSION_NUMBERS_RESPONSE));
    assert_int_equal(response->all_extension_numbers_response->n_extension_number, 0);
    free_response(response);
}

static void bad_requests_end_the_call(void **state)
{
    (void)state;
    rpc_peer malformed = {.n_messages = 0};
    rpc_peer empty = {.n_messages = 0};
    rpc_peer nothing = {.n_messages = 0};
    peer_ask(&malformed, channel, V1_PATH, 5000, "\x0a\x7f");
    peer_end(&malformed, RPC_INVALID_ARGUMENT);
    peer_ask(&empty, channel, V1_PATH, 5000, "");
    peer_end(&empty, RPC_INVALID_ARGUMENT);
    peer_start(&nothing, channel, V1_PATH, 5000);
    rpc_client_half_close(nothing.call);
    peer_end(&nothing, RPC_OK);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    const rpc_method methods[] = {{.path = "/a.B/C"}};
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        rpc_reflection *reflection = NULL;
        const base_status st = rpc_reflection_create(methods, 1, &mem, &reflection);
        if (st == BASE_OK) {
            assert_true(k > 20);
            rpc_reflection_destroy(reflection);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(reflection);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_list_what_is_served),
        cmocka_unit_test(symbols_of_every_kind_lead_to_their_file),
        cmocka_unit_test(files_are_served_as_published),
        cmocka_unit_test(what_is_not_there_is_not_found),
        cmocka_unit_test(types_have_no_extensions),
        cmocka_unit_test(bad_requests_end_the_call),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, start_all, end_all);
}
