# proto_codec: the messages as plain, checked structs.
add_library(proto_codec STATIC
  wire.c wire_check.c sampling_check.c
  inference_request_codec.c inference_event_codec.c inference_info_codec.c
  group_up_codec.c group_down_codec.c)
target_link_libraries(proto_codec PUBLIC base build_flags PRIVATE proto_messages)
