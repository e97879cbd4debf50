#!/usr/bin/env bash
# Builds, checks and times the CUDA kernels on a machine with a GPU.
# usage: tests/parity/run_cuda.sh [BUILD_DIRECTORY]     CMAKE_ARGS: more arguments for cmake
set -uo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/cuda}
failed=()

timeout 240 cmake --preset cuda -B "$build" ${CMAKE_ARGS:-} > "$build.log" 2>&1 &&
    timeout 400 ninja -C "$build" gpu_tests time_cuda >> "$build.log" 2>&1 || { tail -40 "$build.log"; exit 1; }
timeout 200 ctest --test-dir "$build" -L gpu --output-on-failure || failed+=(tests)
for test in "$build"/tests/parity.test_cuda*; do
    for tool in memcheck racecheck; do
        # racecheck does not know the barriers of a cluster that cuBLAS's own kernels use
        [ "$tool $(basename "$test")" = "racecheck parity.test_cuda_gemm" ] && continue
        echo "== $tool $(basename "$test")"
        timeout 90 compute-sanitizer --tool $tool --error-exitcode 9 "$test" > "$build.log" 2>&1 ||
            { tail -30 "$build.log"; failed+=("$tool $(basename "$test")"); }
    done
done
timeout 120 "$build/bin/time_cuda" || failed+=(time)
[ ${#failed[@]} -eq 0 ] && echo "all passed" || { echo "FAILED: ${failed[*]}"; exit 1; }
