#!/bin/sh
# Fails on source files above 700 lines: past that a file has more than one noun.
# usage: check_sizes.sh REPOSITORY
cd "$1" || exit 2
find base kernels kvshard proto worker coordinator launch tests \( -name '*.[ch]' -o -name '*.py' \) |
    xargs wc -l | awk '$2 != "total" && $1 > 700 { print $2 ": " $1 " lines"; bad = 1 } END { exit bad }'
