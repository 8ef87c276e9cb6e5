# resnet_onnx: the messages of ONNX files, generated from the schema that libonnx-dev installs. Lite: without descriptors,
# which would be registered at every start of the program. onnx's own library is not linked.
find_package(Protobuf REQUIRED)
find_path(ONNX_PROTO_DIR onnx/onnx.proto REQUIRED)
set(onnx_messages ${CMAKE_BINARY_DIR}/messages/onnx)
add_custom_command(
  OUTPUT ${onnx_messages}/onnx.pb.h ${onnx_messages}/onnx.pb.cc
  COMMAND ${CMAKE_COMMAND} -E make_directory ${onnx_messages}
  COMMAND protobuf::protoc --proto_path=${ONNX_PROTO_DIR} --cpp_out=lite:${CMAKE_BINARY_DIR}/messages onnx/onnx.proto
  DEPENDS ${ONNX_PROTO_DIR}/onnx/onnx.proto
  VERBATIM)
add_library(resnet_onnx STATIC ${onnx_messages}/onnx.pb.cc)  # generated: held to no warnings of ours
target_include_directories(resnet_onnx SYSTEM PUBLIC ${CMAKE_BINARY_DIR}/messages)
target_link_libraries(resnet_onnx PUBLIC protobuf::libprotobuf-lite)
