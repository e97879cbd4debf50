#!/bin/sh
# Fails if clang-format 14 would change a file; skips where another version is installed, since
# versions disagree with each other.
# usage: check_format.sh REPOSITORY
cd "$1" || exit 2
version=$(clang-format --version 2>/dev/null | sed -nE 's/.*version ([0-9]+).*/\1/p')
if [ "$version" != 14 ]; then
    echo "SKIP: clang-format 14 is not here (found '${version:-none}')"
    exit 77
fi
find base kernels kvshard proto worker coordinator launch tests \( -name '*.[ch]' -o -name '*.cu' \) -print0 |
    xargs -0 clang-format --dry-run -Werror
