# Libraries of Debian's that become part of a program, which then runs where none of their packages is: the target
# speedrun_libraries. OpenSSL's libcrypto and libxxhash are linked statically; fmt (src/util/fmt_library.cpp) and spdlog
# (src/util/diagnostics.cpp) are compiled from their headers, since their packages hold shared libraries only.
find_path(OPENSSL_INCLUDE openssl/evp.h REQUIRED)
find_library(CRYPTO_LIBRARY libcrypto.a REQUIRED)
find_path(XXHASH_INCLUDE xxhash.h REQUIRED)
find_library(XXHASH_LIBRARY libxxhash.a REQUIRED)
find_path(FMT_INCLUDE fmt/format-inl.h REQUIRED)
find_path(SPDLOG_INCLUDE spdlog/spdlog.h REQUIRED)

# LibTorch's folder of headers has another version of fmt: this folder, which holds nothing else, comes before it.
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/fmt)
file(CREATE_LINK ${FMT_INCLUDE}/fmt ${PROJECT_BINARY_DIR}/fmt/fmt SYMBOLIC)

add_library(speedrun_libraries INTERFACE)
target_include_directories(speedrun_libraries SYSTEM INTERFACE
  ${PROJECT_BINARY_DIR}/fmt ${SPDLOG_INCLUDE} ${OPENSSL_INCLUDE} ${XXHASH_INCLUDE})
target_compile_definitions(speedrun_libraries INTERFACE SPDLOG_FMT_EXTERNAL)
target_link_libraries(speedrun_libraries INTERFACE ${CRYPTO_LIBRARY} ${XXHASH_LIBRARY})
