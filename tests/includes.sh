#!/usr/bin/env bash
# Fails on an include that points the wrong way, and on one that reaches into another folder's
# internal header. usage: tests/includes.sh [ROOT]
cd "${1:-$(dirname "$0")/..}" || exit 1

# folder: the folders it may include, besides itself
declare -A may=(
    [core]=""
    [kernels]="core"
    [graph]="kernels core"
    [io]="core"
    [jinja]="core"
    [text]="jinja core"
    [config]="core"
    [model]="graph kernels io core"
    [adapter]="graph kernels io core"
    [data]="io text jinja core"
    [track]="core"
    [dist]="core"
    [train]="adapter model data track dist graph kernels io text jinja config core"
    [cli]="train adapter model data track dist graph kernels io text jinja config core"
)

bad=0 seen=0
for file in $(find cli src kernels -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' | sort); do
    folder=${file#src/}
    folder=${folder%%/*}
    for include in $(sed -n 's/^#include "\([^"]*\)"$/\1/p' "$file"); do
        seen=$((seen + 1))
        target=${include%%/*}
        if [ "$target" = "$folder" ]; then
            continue
        fi
        case " ${may[$folder]} " in
        *" $target "*) ;;
        *) echo "$file includes $include: $folder may only use: ${may[$folder]}"; bad=1 ;;
        esac
        case $include in
        */internal.h | kernels/cpu/*) echo "$file includes $include, which is $target's own"; bad=1 ;;
        esac
    done
done
# what only a GPU understands stays in device.cuh, so that the host build can stand in for it
for file in kernels/cuda/*.cu kernels/cuda/*.cuh; do
    [ "$file" = kernels/cuda/device.cuh ] && continue
    if grep -nE '\basm\b|<<<|cooperative_groups|__shared__|__syncthreads|__shfl|threadIdx|blockIdx' "$file"; then
        echo "$file: these belong in device.cuh"
        bad=1
    fi
done
[ "$seen" -gt 100 ] || { echo "only $seen includes found"; bad=1; }
echo "$seen includes looked at"
exit $bad
