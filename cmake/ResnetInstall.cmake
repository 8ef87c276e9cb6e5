# The library as a package: find_package(resnet) and pkg-config find it in the prefix it was installed to.
include(CMakePackageConfigHelpers)

install(TARGETS resnet_library EXPORT resnetTargets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/resnet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/resnet)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/resnetConfig.cmake.in ${PROJECT_BINARY_DIR}/resnetConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/resnetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/resnetConfig.cmake ${PROJECT_BINARY_DIR}/resnetConfigVersion.cmake DESTINATION ${package})
install(EXPORT resnetTargets NAMESPACE resnet:: DESTINATION ${package})

file(RELATIVE_PATH RESNET_PC_INCLUDEDIR ${CMAKE_INSTALL_FULL_LIBDIR} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(${PROJECT_SOURCE_DIR}/cmake/resnet.pc.in ${PROJECT_BINARY_DIR}/resnet.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/resnet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
