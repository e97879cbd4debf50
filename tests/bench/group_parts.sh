# Parts of run_gpu.sh for a machine with several GPUs: what a group of ranks does there, beside one rank in the same run.
# With fewer GPUs than ranks these share one (tiny shapes, NCCL over sockets): that shows that every part runs, and says nothing of speed.
#
#   GROUP_RANKS: numbers of ranks (1 2 4, as far as there are GPUs; with one GPU 1 2)    REPORTS: where JSON goes (build/reports)
# shellcheck shell=bash disable=SC2154
reports=$(realpath -m "${REPORTS:-build/reports}")
gpus=$(nvidia-smi -L 2>/dev/null | wc -l)
export group_parts="merges steps prompts serving faults group_soak sockets goals"
counts=${GROUP_RANKS:-$([ "$gpus" -ge 4 ] && echo 1 2 4 || echo 1 2)}
most=${counts##* }
share='' small='' large=1
if [ "$gpus" -lt "$most" ]; then
    share=--share-gpu small=random:tiny large=''
fi

json() { # file, seconds, command..: its report to a file, its table to standard output
    local file=$reports/$1 limit=$2
    shift 2
    mkdir -p "$reports"
    echo "\$ $*"
    timeout -k 5 "$limit" "$@" --json > "$file" || { failed+=("$*"); rm -f "$file"; }
}

merges() {
    local n
    for n in $counts; do # of ranks that share a GPU a link takes milliseconds: one alone
        if [ -n "$share" ] && [ "$n" -gt 1 ]; then continue; fi
        if [ -z "$share" ] && [ "$n" -eq 1 ]; then continue; fi
        json "merge-$n.json" 120 "$ropewalk" bench merge --device cuda --ranks "$n" --seconds "$([ -n "$large" ] && echo 0.1 || echo 0.005)"
    done
}

scale() { # name, ranks, model, contexts, options
    local name=$1 n=$2 model=$3 contexts=$4
    shift 4
    # shellcheck disable=SC2086
    json "$name-$n.json" 100 "$ropewalk" bench scale --device cuda --ranks "$n" --model "${small:-random:$model}" --kv "tq:k=3,v=3" \
        --contexts "$([ -n "$large" ] && echo "$contexts" || echo 8K)" $share "$@"
}

# Goals first; a context that does not fit is said to, and takes no time.
steps() {
    local n
    for n in $counts; do
        scale steps-3b "$n" qwen2.5-3b 128K,512K,1M,2M,4M,8M
        scale steps-8b "$n" llama-3.1-8b 128K,256K,512K,1M,2M,4M,8M
        [ "$n" -eq 1 ] && continue
        scale steps-3b-split "$n" qwen2.5-3b 128K,512K,1M,2M,4M --weights split
        scale steps-8b-split "$n" llama-3.1-8b 128K,512K,1M,2M,4M,8M --weights split
        scale steps-70b-split "$n" llama-3.1-70b 128K,1M,4M --weights split
    done
    run 60 python3 tests/bench/plot_scale.py -o "$reports/scale.svg" "$reports"/steps-*.json
}

prompts() {
    local n
    for n in $counts; do
        scale prompts-3b "$n" qwen2.5-3b 32K,128K,512K --prefill --prefill-chunk $([ -n "$large" ] && echo 8192 || echo 1024)
    done
    run 60 python3 tests/bench/plot_scale.py -o "$reports/prompts.svg" "$reports"/prompts-*.json
}

serving() {
    export ROPEWALK_BIN=$build/bin # stubs: serve_long.py says which
    if [ -n "$large" ]; then
        run 150 python3 tests/bench/serve_long.py prompt --ranks "$most" --tokens 512K --new 64 --seconds 100 -- --device cuda \
            --prefill-chunk 8192 --rope-scaling '{"rope_type":"linear","factor":16}'
    fi
    # shellcheck disable=SC2086
    run 150 python3 tests/bench/serve_long.py needle --ranks "$most" --tokens $([ -n "$large" ] && echo 128K || echo 16K) --depths 3 \
        --seconds 60 -- --device cuda --prefill-chunk 8192 $share
}

faults() {
    local way
    for way in lsa nccl-ag; do
        run 90 bash tests/multirank/gpu_group.sh "$build/bin" $way
    done
}

ranks_run() { # seconds, ranks, command..
    local limit=$1 n=$2
    shift 2
    run "$limit" mpirun --oversubscribe --bind-to none --mca orte_allowed_exit_without_sync 1 -n "$n" "$@"
}

group_soak() {
    ranks_run 200 "$most" "$build/tests/soak.test_engine" $([ -n "$large" ] && echo 10000 || echo 50) lsa
    ranks_run 100 "$most" "$build/tests/soak.test_engine" $([ -n "$large" ] && echo 2000 || echo 50) lsa-split
}

# As between hosts: without NVLink and shared memory.
sockets() {
    local n=2
    export NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo
    json merge-sockets-$n.json 90 "$ropewalk" bench merge --device cuda --ranks $n --seconds 0.02
    ranks_run 90 $n "$build/tests/multirank.test_engine" cuda
    unset NCCL_P2P_DISABLE NCCL_SHM_DISABLE NCCL_NET NCCL_SOCKET_IFNAME
}

goals() { run 20 python3 tests/bench/goals.py "$reports"; }
