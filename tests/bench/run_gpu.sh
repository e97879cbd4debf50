#!/usr/bin/env bash
# Builds, checks and times everything on a machine with a GPU (Hopper): every table of docs/benchmarks.md has a part.
# usage: tests/bench/run_gpu.sh [PART..]    parts: below, in the order in which all of them run; those of groups
#                                            (group_parts.sh) only by name or where there are several GPUs
#   BUILD: build directory (build/cuda).  One that was made elsewhere will do, without the part build, if it has bin/ and
#          of tests/ the programs and every CTestTestfile.cmake.      CMAKE_ARGS: more arguments for cmake
# Figures go to standard output, each below the command that gave it (docs/benchmarks.md).
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath -m "${BUILD:-build/cuda}")
ropewalk=$build/bin/ropewalk
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failed=()
parts="build tests sanitize needles bench step sample soak prompt ops ncu peers"
. tests/bench/group_parts.sh
[ "$gpus" -gt 1 ] && parts="$parts $group_parts"
families="tq:k=4,v=4;tq:k=3,v=3;tq:k=2,v=2;block-gtq:k=4,v=4;block-gtq:k=3,v=3;block-gtq:k=2,v=2;kivi:k=4,v=4;kivi:k=2,v=2"

run() { # seconds, command..
    local limit=$1
    shift
    echo "\$ $*"
    timeout -k 5 "$limit" "$@" || failed+=("$*")
}

# The same in one line.  The log of what fails stays, for `report`, so it may run in the background.
check() { # name, seconds, command..
    local name=$1 limit=$2 from=$SECONDS how=failed
    shift 2
    if timeout -k 5 "$limit" "$@" > "$work/$name.log" 2>&1; then
        rm "$work/$name.log"
        how=passed
    fi
    echo "$name: $how after $((SECONDS - from)) s"
}

report() {
    local log
    for log in "$work"/*.log; do
        [ -e "$log" ] || continue
        echo "== $log"
        tail -40 "$log"
        failed+=("$(basename "$log" .log)")
        rm "$log"
    done
}

build() {
    check configuration 240 cmake --preset cuda -B "$build" ${CMAKE_ARGS:-}
    check compilation 1200 ninja -C "$build" ropewalk ropewalk-worker ropewalk-coordinator gpu_tests time_cuda bench_cuda_attention bench_cuda_sample
    report
    [ ${#failed[@]} -eq 0 ] || { echo "FAILED: ${failed[*]}"; exit 1; }
}

tests() {
    local there source
    there=$(sed -n 's/^# Build directory: \(.*\)\/tests$/\1/p' "$build/tests/CTestTestfile.cmake")
    source=$(sed -n 's/^# Source directory: \(.*\)\/tests$/\1/p' "$build/tests/CTestTestfile.cmake")
    if [ "$there" != "$build" ]; then # made elsewhere: its files name folders of there
        find "$build/tests" -name CTestTestfile.cmake -exec sed -i -e "s#$there#@BUILD@#g" -e "s#$source#$PWD#g" \
            -e "s#@BUILD@#$build#g" -e "s#\"[^\"]*/mpi\(exec\|run\)\"#\"$(command -v mpirun)\"#" {} +
    fi
    run 500 ctest --test-dir "$build/tests" -L gpu --output-on-failure
}

sanitize() {
    local tool test name
    local -A options=(
        [memcheck]="--report-api-errors=no" # a test asks for too much memory
        [racecheck]="--kernel-name-exclude=kns=nvjet")
    export ROPEWALK_TEST_SHRINK=64 # tests/support/parity.h
    for tool in racecheck memcheck; do
        # racecheck fails inside cuBLAS's kernels.  Ours beside them are in parity.test_cuda_rows.
        [ $tool = racecheck ] && export ROPEWALK_TEST_SKIP='*cublas*' || unset ROPEWALK_TEST_SKIP
        for test in "$build"/tests/parity.test_cuda*; do
            name=$(basename "$test")
            case "$tool $name" in
            # Its ranks wait for each other, and a sanitizer runs kernels one after another: those of processes it can run.
            *" parity.test_cuda_exchange" | "racecheck parity.test_cuda_gemm") continue ;;
            esac
            while [ "$(jobs -rp | wc -l)" -ge 4 ]; do wait -n; done
            check "$tool $name" 240 compute-sanitizer --tool $tool "${options[$tool]}" --error-exitcode 9 "$test" &
        done
    done
    wait
    check "memcheck multirank.test_cuda_exchange" 90 mpirun --oversubscribe -n 2 \
        compute-sanitizer --tool memcheck --error-exitcode 9 "$build/tests/multirank.test_cuda_exchange" exact
    unset ROPEWALK_TEST_SHRINK
    report
}

needles() {
    local twin=$work/uneven model
    python3 models/demo/uneven.py "$twin"
    mkdir "$twin/ropewalk"
    check calibration 120 "$ropewalk" calibrate --model "$twin" --text models/demo/haystack.txt -o "$twin/ropewalk/block-gtq.cal"
    report
    for model in models/demo "$twin"; do
        run 120 "$ropewalk" eval --device cuda --model "$model" --needle 8K,32K,64K,128K --depths 5 --keys 8 \
            --kv "bf16;$families;kivi:k=2,v=2,w=0;kivi:k=2,v=2,g=128"
    done
}

bench() {
    local shape at
    for shape in llama-8b qwen-3b; do
        for at in 32768x1 131072x1 524288x1 1048576x1 131072x8; do
            run 60 "$ropewalk" bench attention --device cuda --shape $shape --context "${at%x*}" --batch "${at#*x}" \
                --kv "bf16;$families"
        done
    done
    run 60 "$build/bin/bench_cuda_attention" --pages K3V3 --model 8B --shape "ragged x8"
    run 60 "$ropewalk" bench pack --device cuda --kv "bf16;$families;tq:k=5,v=5;tq:k=6,v=6;tq:k=8,v=8"
    for at in 32768 8192 2048; do
        run 60 "$ropewalk" bench prefill --device cuda --queries $at --kv "bf16;tq:k=3,v=3;block-gtq:k=3,v=3"
    done
}

step() {
    local shape context batch kv
    while read -r shape context batch kv; do
        run 120 "$ropewalk" bench step --device cuda --fill synthetic --model "random:$shape" --context "$context" \
            --batch "$batch" --kv "$kv" < /dev/null
    done << 'END'
qwen2.5-3b 131072 1 tq:k=3,v=3
qwen2.5-3b 524288 1 tq:k=3,v=3
qwen2.5-3b 131072 1 bf16
llama-3.1-8b 131072 6 tq:k=3,v=3
llama-3.1-8b 131072 6 bf16
llama-3.1-8b 131072 30 tq:k=3,v=3
END
}

sample() { run 60 "$build/bin/bench_cuda_sample"; }

soak() { run 400 "$build/tests/soak.test_engine" 100000; }

prompt() {
    local half
    half=$(seq -s , 65000)
    echo "[$half,$half]" > "$work/ids"
    run 120 launch/demo --device cuda --tokens 140000 --kv tq:k=3,v=3 --seed 5 --programs "$build/bin"
    run 120 "$ropewalk" generate --model random:llama-3.1-8b --device cuda --kv tq:k=3,v=3 --prompt-ids "@$work/ids" \
        --max-new-tokens 200 --max-context 131072 --prefill-chunk 8192 --ignore-eos --temperature 0 --stats
}

ops() { run 120 "$build/bin/time_cuda"; }

# One launch under the profiler: busy shares of DRAM, issue slots and the ALU pipe; instructions of a lane an element of K and V.
launch() { # name, elements, kernel, command..
    local name=$1 elements=$2 kernel=$3 metrics
    shift 3
    metrics=dram__throughput.avg.pct_of_peak_sustained_elapsed,smsp__issue_active.avg.pct_of_peak_sustained_active
    metrics+=,sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active,smsp__inst_executed.sum
    timeout -k 5 60 ncu -k "regex:$kernel" -s 1 -c 1 --csv --metrics $metrics "$@" > "$work/ncu" 2>&1
    python3 - "$name" "$elements" "$work/ncu" << 'END' || { tail -5 "$work/ncu"; failed+=("ncu of $name"); }
import csv, sys
name, elements, path = sys.argv[1:]
rows = csv.DictReader(line for line in open(path) if line.startswith('"'))
value = {row["Metric Name"].split(".")[0]: float(row["Metric Value"].replace(",", "")) for row in rows}
print("| %-22s | %3.0f %% | %3.0f %% | %3.0f %% | %5.2f |" % (
    name, value["dram__throughput"], value["smsp__issue_active"], value["sm__inst_executed_pipe_alu"],
    value["smsp__inst_executed"] * 32 / int(elements)))
END
}

ncu() {
    local model pages kv
    while read -r model pages; do
        launch "$model $pages" $((8 * 131072 * 2 * 128 * (${model%B} == 8 ? 8 : 2))) attn_kernel \
            "$build/bin/bench_cuda_attention" --pages "$pages" --model "$model" --shape 128Kx8 < /dev/null
    done << 'END'
8B K3V3
3B K3V3
8B K2V2
8B K4V4
8B kivi2
8B kivi4
8B bf16
END
    for kv in tq:k=3,v=3 tq:k=4,v=4 tq:k=8,v=8 kivi:k=4,v=4; do
        launch "pack $kv" $((65536 * 2 * 8 * 128)) pack "$ropewalk" bench pack --device cuda --kv "$kv"
    done
}

peers() { run 200 python3 tests/bench/peers.py; }

# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $parts
for part in "$@"; do
    case " $parts $group_parts " in
    *" $part "*) ;;
    *) echo "no part '$part'"; exit 2 ;;
    esac
done
for part in "$@"; do
    from=$SECONDS
    "$part"
    echo "== $part: $((SECONDS - from)) s"
done
[ ${#failed[@]} -eq 0 ] && echo "all passed" || { printf 'FAILED: %s\n' "${failed[@]}"; exit 1; }
