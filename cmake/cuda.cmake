# Builds libft_cuda.so with nvcc, by custom commands: CMake's own CUDA language would want the same
# source files for two languages, since the host build compiles them as C++.

if(FT_CUDA_ARCHITECTURES STREQUAL "all")
    set(archs 80 86 89 90 100 120)
    set(ptx 80 120)
elseif(FT_CUDA_ARCHITECTURES)
    set(archs ${FT_CUDA_ARCHITECTURES})
else()
    set(archs "")
    find_program(FT_NVIDIA_SMI nvidia-smi)
    if(FT_NVIDIA_SMI)
        execute_process(COMMAND ${FT_NVIDIA_SMI} --query-gpu=compute_cap --format=csv,noheader
                        OUTPUT_VARIABLE archs ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
        string(REGEX MATCH "^[0-9]+\\.[0-9]+" archs "${archs}")
        string(REPLACE "." "" archs "${archs}")
    endif()
    if(NOT archs)
        set(archs 90)
    endif()
endif()
set(codes "")
foreach(arch ${archs})
    list(APPEND codes -gencode=arch=compute_${arch},code=sm_${arch})
endforeach()
foreach(arch ${ptx})
    list(APPEND codes -gencode=arch=compute_${arch},code=compute_${arch})
endforeach()

file(REAL_PATH ${FT_NVCC} nvcc)
cmake_path(GET nvcc PARENT_PATH bin)
cmake_path(GET bin PARENT_PATH toolkit)
find_library(FT_CUBLASLT cublasLt REQUIRED
             HINTS ${toolkit}/lib64 ${toolkit}/targets/x86_64-linux/lib
                   ${toolkit}/targets/sbsa-linux/lib)
cmake_path(GET FT_CUBLASLT PARENT_PATH lib)

file(GLOB headers CONFIGURE_DEPENDS kernels/*.h kernels/cuda/*.h kernels/cuda/*.cuh src/core/*.h)
set(objects "")
foreach(source ${FT_CUDA_KERNELS} kernels/cuda/product.cu kernels/cuda/runtime.cu)
    cmake_path(GET source STEM name)
    set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(
        OUTPUT ${object}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
        COMMAND ${FT_NVCC} -std=c++17 -O3 ${codes} --Werror all-warnings -lineinfo
                -Xcompiler=-fPIC,-Wall,-fvisibility=hidden
                "-DFT_VERSION=\"${PROJECT_VERSION}\"" -I${CMAKE_SOURCE_DIR}
                -I${CMAKE_SOURCE_DIR}/src -c ${CMAKE_SOURCE_DIR}/${source} -o ${object}
        DEPENDS ${CMAKE_SOURCE_DIR}/${source} ${headers}
        COMMENT "nvcc ${source} (${archs})"
        VERBATIM)
    list(APPEND objects ${object})
endforeach()
set(FT_CUDA_LIBRARY ${CMAKE_BINARY_DIR}/libft_cuda.so)
add_custom_command(
    OUTPUT ${FT_CUDA_LIBRARY}
    COMMAND ${FT_NVCC} ${codes} -shared -cudart static -o ${FT_CUDA_LIBRARY} ${objects}
            ${FT_CUBLASLT} -Xlinker=-rpath,$ORIGIN:${lib} -Xlinker=--no-undefined
    DEPENDS ${objects}
    COMMENT "libft_cuda.so"
    VERBATIM)
add_custom_target(ft_cuda ALL DEPENDS ${FT_CUDA_LIBRARY})
include(GNUInstallDirs)
install(PROGRAMS ${FT_CUDA_LIBRARY} DESTINATION lib/ft)
