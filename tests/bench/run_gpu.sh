#!/usr/bin/env bash
# Builds, checks and times everything on a machine with a GPU (Hopper), in one go.
# usage: tests/bench/run_gpu.sh [PART..]      parts: build tests sanitize needles bench step ops peers; none: all of them
#   BUILD: build directory (build/cuda)       CMAKE_ARGS: more arguments for cmake
# Figures go to standard output, each below the command that gave it (docs/benchmarks.md).
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build/cuda}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

run() { # seconds, command..
    local limit=$1
    shift
    echo "\$ $*"
    timeout "$limit" "$@" || failed+=("$*")
}

quietly() { # the same; output only of what fails
    local limit=$1
    shift
    timeout "$limit" "$@" > "$log" 2>&1 || { tail -40 "$log"; failed+=("$*"); }
}

build() {
    quietly 240 cmake --preset cuda -B "$build" ${CMAKE_ARGS:-}
    quietly 1200 ninja -C "$build" ropewalk gpu_tests time_cuda
    [ ${#failed[@]} -eq 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
}

tests() {
    run 400 ctest --test-dir "$build" -L gpu --output-on-failure
}

sanitize() {
    local test tool
    # A test asks for too much memory.
    local -A options=([memcheck]=--report-api-errors=no [racecheck]=--kernel-name-exclude=kns=nvjet)
    export ROPEWALK_TEST_SHRINK=64 # tests/support/parity.h
    for test in "$build"/tests/parity.test_cuda*; do
        # Its ranks wait for each other, and a sanitizer runs kernels one after another: those of processes it can run.
        [ "$(basename "$test")" = parity.test_cuda_exchange ] && continue
        for tool in memcheck racecheck; do
            # racecheck fails inside cuBLAS's kernels.  Ours beside them are in parity.test_cuda_rows.
            [ "$tool $(basename "$test")" = "racecheck parity.test_cuda_gemm" ] && continue
            echo "== $tool $(basename "$test")"
            [ $tool = racecheck ] && export ROPEWALK_TEST_SKIP='*cublas*'
            quietly 240 compute-sanitizer --tool $tool "${options[$tool]}" --error-exitcode 9 "$test"
            unset ROPEWALK_TEST_SKIP
        done
    done
    echo "== memcheck multirank.test_cuda_exchange"
    quietly 90 env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe -n 2 \
        compute-sanitizer --tool memcheck --error-exitcode 9 "$build/tests/multirank.test_cuda_exchange" exact
    unset ROPEWALK_TEST_SHRINK
}

families="tq:k=4,v=4;tq:k=3,v=3;tq:k=2,v=2;block-gtq:k=4,v=4;block-gtq:k=3,v=3;block-gtq:k=2,v=2;kivi:k=4,v=4;kivi:k=2,v=2"

needles() {
    run 300 "$build/bin/ropewalk" eval --device cuda --model models/demo --kv "bf16;$families" \
        --needle 8K,32K,64K,128K --depths 5 --keys 8
}

bench() {
    local shape at
    for shape in llama-8b qwen-3b; do
        for at in 32768x1 131072x1 524288x1 1048576x1 131072x8; do
            run 60 "$build/bin/ropewalk" bench attention --device cuda --shape $shape --context "${at%x*}" \
                --batch "${at#*x}" --kv "bf16;$families"
        done
    done
    run 60 "$build/bin/ropewalk" bench pack --device cuda --kv "bf16;$families"
    for at in 32768 8192 2048; do
        run 60 "$build/bin/ropewalk" bench prefill --device cuda --queries $at --kv "bf16;$families"
    done
}

step() {
    run 120 "$build/bin/ropewalk" bench step --device cuda --model random:qwen2.5-3b --context 131072 --prefill-chunk 4096
}

ops() {
    run 120 "$build/bin/time_cuda"
}

peers() {
    run 120 python3 tests/bench/peers.py
}

[ $# -gt 0 ] || set -- build tests sanitize needles bench step ops peers
for part in "$@"; do
    case $part in
    build | tests | sanitize | needles | bench | step | ops | peers) "$part" ;;
    *) echo "no part '$part'"; exit 2 ;;
    esac
done
[ ${#failed[@]} -eq 0 ] && echo "all passed" || { printf 'FAILED: %s\n' "${failed[@]}"; exit 1; }
