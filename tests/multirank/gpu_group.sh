#!/bin/bash
# A group of three ranks on GPUs, which they share where there are fewer: the tokens of one rank, and how it ends when a
# rank is killed or stopped, in decode and in a long prefill.
# usage: gpu_group.sh BIN TRANSPORT    from the root of the checkout; 77 where there is no GPU
bin=$1
merge="--merge $2"
model=models/demo
ranks=3
work=$(mktemp -d)
share=
trap 'kill "$serve" 2>/dev/null; rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $*"
    cat "$work/serve.log" 2>/dev/null
    exit 1
}

gpu_bytes() { # MiB taken of all GPUs; nothing where nobody can say
    nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null | awk '{ n += $1 } END { if (NR > 0) print n }'
}

idle=$(gpu_bytes)
gpus=$("$bin/ropewalk" doctor | sed -nE 's/^exchange .* ([0-9]+) GPUs?:.*/\1/p')
[ "${gpus:-0}" -gt 0 ] || { echo "SKIP: no CUDA device"; exit 77; }
[ "$gpus" -ge $ranks ] || share=--share-gpu

# ---- refused by name ----
if [ -n "$share" ]; then
    "$bin/ropewalk" generate --model $model --ranks $ranks --device cuda --prompt a >"$work/refused" 2>&1 &&
        fail "$ranks ranks on $gpus GPUs were not refused"
    grep -q "a GPU serves one rank" "$work/refused" || fail "refused with: $(cat "$work/refused")"
fi

# ---- tokens ----
tokens() { # ranks, options
    "$bin/ropewalk" generate --model $model --ranks "$@" --device cuda $merge --kv tq:k=4,v=4 --max-context 2048 \
        --prompt "Once upon a time" --temperature 0 --max-new-tokens 48 --json --log "$work/generate.log" |
        sed -nE 's/.*"tokens": (\[[^]]*\]).*/\1/p'
}
one=$(tokens 1)
many=$(tokens $ranks $share)
[ -n "$one" ] || fail "no tokens of one rank: $(cat "$work/generate.log")"
[ "$one" = "$many" ] || fail "tokens of one rank and of $ranks differ: $one, $many $(cat "$work/generate.log")"
echo "tokens of $ranks ranks are those of one"

# ---- faults ----
alive() { # pids: one that has ended counts no more, reaped or not
    for pid in "$@"; do
        state=$(sed -nE 's/.*\) (.).*/\1/p' "/proc/$pid/stat" 2>/dev/null)
        [ -n "$state" ] && [ "$state" != Z ] && return 0
    done
    return 1
}

children_of() { # pid
    for stat in /proc/[0-9]*/stat; do
        sed -nE "s/^([0-9]+) .*\) . $1 .*/\1/p" "$stat" 2>/dev/null
    done
}

named() { # program, of the pids that are read
    while read -r pid; do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] && echo "$pid"
    done
}

limit_ms=2000 # ENGINE_GONE_MS: a step takes much less than a quarter of its least deadline
step_ms=250   # of a chunk that a GPU has begun
yes "Once upon a time there was a ship, and nobody knew where it went." | head -c 500000 >"$work/long"

client() { # a prompt's file, tokens
    "$bin/ropewalk" generate --connect "$target" --prompt-file "$1" --ignore-eos --max-new-tokens "$2" --temperature 0 \
        --progress
}

fault() { # signal, decode or prefill
    rm -f "$work"/{serve.log,stream,told}
    touch "$work"/{serve.log,stream,told} # not what the last group said
    "$bin/ropewalk" serve --model $model --ranks $ranks --device cuda $merge $share --max-context 131072 --listen 127.0.0.1:0 \
        >"$work/serve.log" 2>&1 &
    serve=$!
    for _ in $(seq 600); do
        grep -q "^serving" "$work/serve.log" && break
        kill -0 $serve 2>/dev/null || fail "serve ended"
        sleep 0.1
    done
    target=$(sed -nE 's/^serving .* on ([^,]*),.*/\1/p' "$work/serve.log")
    head -c 4000 "$work/long" >"$work/warm" # some 1000 tokens: two steps, for the first of a kind has half a minute
    client "$work/warm" 8 >/dev/null 2>&1 || fail "no answer"
    if [ "$2" = decode ]; then
        client "$work/warm" 100000 >"$work/stream" 2>"$work/told" &
        grown="$work/stream" enough=300
    else
        client "$work/long" 1 >"$work/stream" 2>"$work/told" &
        grown="$work/told" enough=30
    fi
    stream=$!
    for _ in $(seq 600); do
        [ "$(wc -c <"$grown")" -gt $enough ] && break
        sleep 0.05
    done
    [ "$(wc -c <"$grown")" -gt $enough ] || fail "SIG$1: no $2"
    mpirun=$(children_of $serve | named mpirun)
    mapfile -t pids < <(children_of "$mpirun" | named ropewalk-worker)
    [ ${#pids[@]} = $ranks ] || fail "${#pids[@]} ranks"
    begun=$(date +%s%N)
    kill "-$1" "${pids[1]}"
    while alive "${pids[@]}"; do
        [ $(($(date +%s%N) - begun)) -gt 20000000000 ] && fail "SIG$1: ranks are left after 20 s"
        sleep 0.01
    done
    took=$((($(date +%s%N) - begun) / 1000000))
    wait $stream 2>/dev/null
    client_status=$?
    told=$((($(date +%s%N) - begun) / 1000000))
    wait $serve
    status=$?
    grep "leaving" "$work/serve.log"
    echo "SIG$1 in $2: all ranks gone after $took ms, the client told after $told, serve ends with $status"
    [ $status != 0 ] || fail "SIG$1: serve ends with 0"
    [ $client_status != 0 ] && grep -q UNAVAILABLE "$work/told" || fail "SIG$1: the client ends with $client_status"
    [ "$2" = decode ] || [ ! -s "$work/stream" ] || fail "SIG$1: the prompt had ended"
    [ $took -le $limit_ms ] || fail "SIG$1: $took ms, at most $limit_ms"
    while after=$(gpu_bytes) && [ "${after:-0}" -gt $((${idle:-0} + 16)) ]; do # the driver frees what a process had after its end
        [ $((($(date +%s%N) - begun) / 1000000)) -le $((limit_ms + step_ms)) ] ||
            fail "SIG$1: the GPUs have $after MiB taken after $limit_ms and $step_ms ms, $idle before"
    done
}
fault KILL decode
fault KILL prefill
fault STOP decode
# Kernels of our own say who was missing; decode has no other exchanges.
if [ "$2" = lsa ]; then
    named=$(grep -cE "rank [02]: leaving.*nothing came from rank 1" "$work/serve.log")
    [ "$named" = 2 ] || fail "$named of 2 ranks name the one that was stopped"
fi
fault STOP prefill
echo PASSED
