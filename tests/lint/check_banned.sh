#!/bin/sh
# Fails on calls that this code base does without, outside the files made for them.
# usage: check_banned.sh REPOSITORY
cd "$1" || exit 2
bad=0
folders='base kernels kvshard proto worker coordinator launch'

ban() { # extended regexp of the call, regexp of paths that may hold it
    # shellcheck disable=SC2086
    grep -rnE --include='*.[ch]' "(^|[^a-zA-Z0-9_>.])($1)" $folders | grep -vE "^[^:]*:[0-9]+: *(/?\*|//)" |
        grep -vE "^($2):" && bad=1
}
ban '(malloc|calloc|realloc|free|strdup)\(' 'base/alloc\.c'
ban '(exit|abort)\(' '[a-z]+/main\.c'
ban '(sprintf|strcpy|strcat|strncpy|strtok|atoi|atol|atof|gets|alloca)\(' 'none'
ban 'getenv\(' '[a-z]+/main\.c'
ban 'printf\(' 'launch/[a-z_]+\.c|[a-z]+/main\.c|base/log\.c'
grep -rnE '\b(TODO|FIXME|XXX|HACK)\b' $folders tests docs cmake --include='*' | grep -v check_banned.sh && bad=1
exit $bad
