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
    [text]="core"
    [config]="core"
    [model]="graph kernels io core"
    [adapter]="graph kernels io core"
    [data]="io core"
    [track]="core"
    [dist]="core"
    [train]="adapter model data track dist graph kernels io text config core"
    [cli]="train adapter model data track graph kernels io config core"
)

bad=0 seen=0
for file in $(find cli src kernels -name '*.[ch]' | sort); do
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
[ "$seen" -gt 100 ] || { echo "only $seen includes found"; bad=1; }
echo "$seen includes looked at"
exit $bad
