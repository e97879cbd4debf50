#!/bin/sh
# Fails if a folder includes a header of a folder above it, or a third-party header outside the few
# files that may see it (design: one place for each library).
# usage: check_layers.sh REPOSITORY
cd "$1" || exit 2
bad=0

check() { # folder, then what its files may include beside their own: prefixes
    folder=$1; shift
    allowed=$(printf '%s|' "$folder/" "$@")
    grep -rnE --include='*.[ch]' --include='*.cu' --include='*.cuh' '^#include "' "$folder" |
        grep -vE "#include \"(${allowed%|})" && bad=1
}
check base
check kernels     base/
check kvshard     base/ kernels/
check proto       base/
check worker      base/ kernels/ kvshard/ proto/
check coordinator base/ proto/ kvshard/owner.h
check launch      base/ kernels/ kvshard/ proto/ worker/model/ worker/eval/ worker/bench/seqs.h worker/bench/chunks.h worker/bench/parts.h coordinator/text/

only() { # include pattern, then the extended regexp of paths that may hold it
    grep -rnE --include='*.[ch]' --include='*.cu' "^#include <$1" base kernels kvshard proto worker coordinator launch |
        grep -vE "^($2):" && bad=1
}
only 'grpc'        'proto/rpc_grpc[a-z_]*\.[ch]'
only 'protobuf-c'  'proto/[a-z_0-9]+\.[ch]'
only 'mpi\.h'      'kernels/comm/comm_mpi\.c|worker/boot/[a-z_]+\.[ch]'
only 'nccl'        'kernels/comm/comm_nccl[a-z_]*\.[ch]'
only 'cblas'       'kernels/cpu/[a-z_]+\.[ch]'
only 'pcre2'       'coordinator/text/[a-z_]+\.[ch]'
only 'utf8proc'    'coordinator/text/[a-z_]+\.[ch]'
only 'cuda'        'kernels/cuda/[a-z_]+\.(c|h|cu|cuh)'
only 'openssl'     'base/hash\.c'
only 'popt'        'base/options\.c'
exit $bad
