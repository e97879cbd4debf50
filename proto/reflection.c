#include "proto/reflection.h"

#include "proto/reflection_files.h"
#include "proto/reflection_v1.pb-c.h"
#include "proto/rpc_services.h"

#include <stdio.h>
#include <string.h>

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

#define MAX_NAME_BYTES 256 /* of a name that an error repeats */
#define REQUEST(name)  GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define RESPONSE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

static const char *const paths[RPC_REFLECTION_METHODS] = {
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
};

struct rpc_reflection {
    base_alloc mem;
    reflection_files *files;
    rpc_services services;
    /* The services as a response lists them; the names are those of `services`. */
    Grpc__Reflection__V1__ServiceResponse *listed;
    Grpc__Reflection__V1__ServiceResponse **list;
};

static base_view view_of(ProtobufCBinaryData data)
{
    return (base_view){.data = (const char *)data.data, .n_bytes = data.len};
}

static ProtobufCBinaryData binary_of(base_view view)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)view.data, .len = view.n_bytes};
}

static void send_response(rpc_reflection *reflection, rpc_call *call,
                          const reflection_response *response)
{
    const size_t n_bytes =
        grpc__reflection__v1__server_reflection_response__get_packed_size(response);
    uint8_t *packed = reflection->mem.get(reflection->mem.ctx, n_bytes);

    if (packed == NULL) {
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "no memory for a response");
        return;
    }
    (void)grpc__reflection__v1__server_reflection_response__pack(response, packed);
    const base_view message = {.data = (const char *)packed, .n_bytes = n_bytes};
    if (rpc_call_send(call, message) != BASE_OK) {
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "responses are not read");
    }
    reflection->mem.put(reflection->mem.ctx, packed);
}

static void send_error(rpc_reflection *reflection, rpc_call *call, reflection_response *response,
                       const char *what, base_view name)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    char text[64 + MAX_NAME_BYTES];
    const int n_bytes = (int)(name.n_bytes < MAX_NAME_BYTES ? name.n_bytes : MAX_NAME_BYTES);

    (void)snprintf(text, sizeof text, "no %s '%.*s'", what, n_bytes,
                   name.data == NULL ? "" : name.data);
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80) {
            *c = '?'; /* the field is UTF-8 text, the name may be anything */
        }
    }
    error.error_code = RPC_NOT_FOUND;
    error.error_message = binary_of(base_view_of(text));
    response->message_response_case = RESPONSE(ERROR_RESPONSE);
    response->error_response = &error;
    send_response(reflection, call, response);
}

static void send_file(rpc_reflection *reflection, rpc_call *call, reflection_response *response,
                      base_view file)
{
    Grpc__Reflection__V1__FileDescriptorResponse found =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData bytes = binary_of(file);

    found.n_file_descriptor_proto = 1;
    found.file_descriptor_proto = &bytes;
    response->message_response_case = RESPONSE(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = &found;
    send_response(reflection, call, response);
}

static void send_services(rpc_reflection *reflection, rpc_call *call, reflection_response *response)
{
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;

    list.n_service = reflection->services.n_names;
    list.service = reflection->list;
    response->message_response_case = RESPONSE(LIST_SERVICES_RESPONSE);
    response->list_services_response = &list;
    send_response(reflection, call, response);
}

/* Our files are proto3: no message has extensions. */
static void send_extension_numbers(rpc_reflection *reflection, rpc_call *call,
                                   reflection_response *response, base_view name)
{
    Grpc__Reflection__V1__ExtensionNumberResponse none =
        GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;

    none.base_type_name = binary_of(name);
    response->message_response_case = RESPONSE(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = &none;
    send_response(reflection, call, response);
}

static void answer(rpc_reflection *reflection, rpc_call *call, reflection_request *request)
{
    reflection_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    base_view name;
    base_view file;

    response.valid_host = request->host;
    response.original_request = request;
    switch (request->message_request_case) {
    case REQUEST(FILE_BY_FILENAME):
        name = view_of(request->file_by_filename);
        if (reflection_files_by_name(reflection->files, name, &file)) {
            send_file(reflection, call, &response, file);
        } else {
            send_error(reflection, call, &response, "file", name);
        }
        break;
    case REQUEST(FILE_CONTAINING_SYMBOL):
        name = view_of(request->file_containing_symbol);
        if (reflection_files_by_symbol(reflection->files, name, &file)) {
            send_file(reflection, call, &response, file);
        } else {
            send_error(reflection, call, &response, "symbol", name);
        }
        break;
    case REQUEST(FILE_CONTAINING_EXTENSION):
        name = view_of(request->file_containing_extension->containing_type);
        send_error(reflection, call, &response, "extension of", name);
        break;
    case REQUEST(ALL_EXTENSION_NUMBERS_OF_TYPE):
        name = view_of(request->all_extension_numbers_of_type);
        if (reflection_files_by_symbol(reflection->files, name, &file)) {
            send_extension_numbers(reflection, call, &response, name);
        } else {
            send_error(reflection, call, &response, "type", name);
        }
        break;
    case REQUEST(LIST_SERVICES): send_services(reflection, call, &response); break;
    default: rpc_call_finish(call, RPC_INVALID_ARGUMENT, "the request asks for nothing"); break;
    }
}

static void on_message(void *ctx, rpc_call *call, base_view message)
{
    reflection_request *request = grpc__reflection__v1__server_reflection_request__unpack(
        NULL, message.n_bytes, (const uint8_t *)message.data);
    if (request == NULL) {
        rpc_call_finish(call, RPC_INVALID_ARGUMENT, "not a ServerReflectionRequest");
        return;
    }
    answer(ctx, call, request);
    grpc__reflection__v1__server_reflection_request__free_unpacked(request, NULL);
}

static void on_half_close(void *ctx, rpc_call *call)
{
    (void)ctx;
    rpc_call_finish(call, RPC_OK, NULL);
}

void rpc_reflection_methods(rpc_reflection *reflection,
                            rpc_method methods_out[RPC_REFLECTION_METHODS])
{
    for (size_t i = 0; i < RPC_REFLECTION_METHODS; i++) {
        methods_out[i] = (rpc_method){
            .path = paths[i],
            .client_streams = true,
            .ctx = reflection,
            .on_message = on_message,
            .on_half_close = on_half_close,
        };
    }
}

/* Lists the services of methods, and reflection itself. */
static base_status add_services(rpc_reflection *reflection, const rpc_method *methods,
                                size_t n_methods)
{
    base_status st = BASE_OK;
    const base_alloc *mem = &reflection->mem;
    const size_t n_all = n_methods + RPC_REFLECTION_METHODS;
    rpc_method *all = mem->get(mem->ctx, n_all * sizeof all[0]);

    reflection->listed = mem->get(mem->ctx, n_all * sizeof reflection->listed[0]);
    reflection->list = mem->get(mem->ctx, n_all * sizeof(reflection->list[0]));
    if (all == NULL || reflection->listed == NULL || reflection->list == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "list of %zu methods", n_all);
        goto out;
    }
    if (n_methods > 0) {
        memcpy(all, methods, n_methods * sizeof all[0]);
    }
    rpc_reflection_methods(reflection, all + n_methods);
    BASE_TRY(st, out, rpc_services_init(all, n_all, mem, &reflection->services));
    for (size_t i = 0; i < reflection->services.n_names; i++) {
        grpc__reflection__v1__service_response__init(&reflection->listed[i]);
        reflection->listed[i].name = binary_of(reflection->services.names[i]);
        reflection->list[i] = &reflection->listed[i];
    }

out:
    mem->put(mem->ctx, all);
    return st;
}

base_status rpc_reflection_create(const rpc_method *methods, size_t n_methods,
                                  const base_alloc *mem, rpc_reflection **reflection_out)
{
    base_status st = BASE_OK;
    rpc_reflection *reflection = mem->get(mem->ctx, sizeof *reflection);

    if (reflection == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "rpc reflection");
    }
    reflection->mem = *mem;
    BASE_TRY(st, out, add_services(reflection, methods, n_methods));
    BASE_TRY(st, out, reflection_files_create(mem, &reflection->files));
    *reflection_out = reflection;
    reflection = NULL;

out:
    rpc_reflection_destroy(reflection);
    return st;
}

void rpc_reflection_destroy(rpc_reflection *reflection)
{
    if (reflection == NULL) {
        return;
    }
    const base_alloc mem = reflection->mem;
    reflection_files_destroy(reflection->files);
    rpc_services_reset(&reflection->services);
    mem.put(mem.ctx, reflection->listed);
    mem.put(mem.ctx, reflection->list);
    mem.put(mem.ctx, reflection);
}
