# For 64-bit ARM on a Debian machine of another kind; scripts/setup-aarch64 unpacks the libraries into `root`.
set(root ${CMAKE_CURRENT_LIST_DIR}/../build/aarch64/root)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${root}/usr/lib/aarch64-linux-gnu")
set(ENV{PKG_CONFIG_LIBDIR} ${root}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${root})
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(CMAKE_DISABLE_FIND_PACKAGE_MPI ON) # it would find this machine's
set(FT_CUDA OFF CACHE STRING "")
