# resnet_options(TARGET): warnings, sanitizers and coverage, the same for every target.
function(resnet_options target)
  # Designated initialisers leave members to their defaults on purpose; -Wrestrict cries wolf in GCC 12 (PR105651).
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
                         -Wno-missing-field-initializers $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
  if(RESNET_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  # The weights cache (src/formats/weights_cache.h) tells builds apart by it; Debian's GCC asks for it, Debian's clang does not.
  target_link_options(${target} PRIVATE LINKER:--build-id=sha1)
  if(RESNET_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${RESNET_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(${target} PUBLIC -fsanitize=${RESNET_SANITIZE})
  endif()
  if(RESNET_COVERAGE)
    target_compile_options(${target} PRIVATE --coverage)
    target_link_options(${target} PUBLIC --coverage)
  endif()
endfunction()

# resnet_layer(FOLDER DEPENDS ...): the static library of one folder under src/.
# `backends/cpu` becomes resnet_backends_cpu. A folder without sources is header-only.
function(resnet_layer folder)
  cmake_parse_arguments(LAYER "" "" "DEPENDS" ${ARGN})
  string(REPLACE "/" "_" name ${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${folder}/*.cpp)
  if(sources)
    add_library(resnet_${name} STATIC ${sources})
    resnet_options(resnet_${name})
    target_include_directories(resnet_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(resnet_${name} ${LAYER_DEPENDS})
  else()
    add_library(resnet_${name} INTERFACE)
    target_include_directories(resnet_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    list(TRANSFORM LAYER_DEPENDS REPLACE "^(PUBLIC|PRIVATE)$" INTERFACE OUTPUT_VARIABLE depends)
    target_link_libraries(resnet_${name} ${depends})
  endif()
endfunction()
