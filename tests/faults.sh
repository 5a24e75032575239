#!/usr/bin/env bash
# Every row of docs/faults.md names a case of a test that is there. usage: tests/faults.sh [ROOT]
cd "${1:-$(dirname "$0")/..}" || exit 1
bad=0 rows=0
while IFS= read -r line; do
    rows=$((rows + 1))
    test=$(sed -n 's/.*`\([a-z_]*\/[a-z_]*\) \([a-z0-9_]*\)` |$/\1_test.c \2/p' <<<"$line")
    file=tests/${test% *} case=${test#* }
    if [ -z "$test" ] || ! grep -q "^CASE($case)" "$file"; then
        echo "docs/faults.md: no such test: $line"
        bad=1
    fi
done < <(grep '^| [0-9]' docs/faults.md)
[ "$rows" -ge 45 ] || { echo "only $rows rows"; bad=1; }
echo "$rows faults have a test"
exit $bad
