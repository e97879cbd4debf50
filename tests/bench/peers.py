#!/usr/bin/env python3
"""Attention in torch, bf16 and, where torch offers it, fp8, at the shapes of `ropewalk bench attention|prefill`.

usage: peers.py [--only decode|prefill] [--json]

decode   one query a sequence, n positions before it, in a CUDA graph over buffers that rotate through more than 1 GiB.
         FlashAttention-2 and cuDNN, each with enable_gqa and with the group folded into the query length, which is the
         same for one query; fp8 as torch's own attention, and as products of torch._scaled_mm with a softmax between.
prefill  n queries after m positions, causal: FlashAttention-2 as it is, and both backends in two calls, before and
         within the chunk; merging the two is left out, in their favour.
A line is the time of every way; a way that torch refuses is named with its reason, once."""
import argparse
import json
import warnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention as sdpa

DIM = 128
SHAPES = {"llama-8b": (32, 8), "qwen-3b": (16, 2)}
DECODE = ((32768, 1), (131072, 1), (524288, 1), (131072, 8))
PREFILL = ((98304, 32768), (98304, 8192), (98304, 2048), (0, 2048))
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
ROTATED_BYTES = 1 << 30
REPLAYS = 7
FP8 = torch.float8_e4m3fn

refused = {}


def graph_us(run, n_copies):
    """Median over replays of a graph of run(0), run(1) .."""
    stream = torch.cuda.Stream()
    times = []
    with torch.cuda.stream(stream):
        run(0)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(n_copies):
                run(i)
        for _ in range(REPLAYS + 1):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            graph.replay()
            end.record(stream)
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1e3 / n_copies)
    return sorted(times[1:])[REPLAYS // 2]


def best_us(run, n=3):
    times = []
    for _ in range(n + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return min(times[1:])


def attempt(name, measure, times):
    try:
        times[name] = measure()
    except Exception as error:  # every way of refusing: not built, not for this shape, not for this type
        if name not in refused:
            refused[name] = str(error).strip().splitlines()[0][:160]


def scaled_products(q, k, v_t, scores, one):
    """Attention of q [g, DIM] fp8 over k [n, DIM] and v_t [DIM, n] fp8: what torch's fp8 products give."""
    torch._scaled_mm(q, k.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, out=scores)
    weights = torch.softmax(scores, dim=-1).to(FP8)
    return torch._scaled_mm(weights, v_t.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def decode_fp8(q, k, v, times):
    batch, kv_heads, n, _ = k[0].shape
    k8, v8, q8 = [x.to(FP8) for x in k], [x.to(FP8) for x in v], q.to(FP8)
    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            attempt(f"fp8 {name}", lambda: graph_us(lambda i: sdpa(q8, k8[i], v8[i]), len(k8)), times)
    rows = torch.zeros(batch, kv_heads, 16, DIM, device="cuda").to(FP8)  # a product takes 16 rows at least
    v_t = [x.transpose(2, 3).contiguous() for x in v8]
    scores = torch.empty(16, n, dtype=torch.bfloat16, device="cuda")
    one = torch.ones((), device="cuda")

    def run(i):
        for b in range(batch):
            for h in range(kv_heads):
                scaled_products(rows[b, h], k8[i][b, h], v_t[i][b, h], scores, one)

    attempt("fp8 _scaled_mm", lambda: graph_us(run, len(k8)), times)


def decode(shape, n, batch):
    heads, kv_heads = SHAPES[shape]
    n_bytes = 2 * batch * kv_heads * n * DIM * 2
    copies = max(1, min(24, ROTATED_BYTES // n_bytes))
    k, v = ([torch.randn(batch, kv_heads, n, DIM, dtype=torch.bfloat16, device="cuda") for _ in range(copies)]
            for _ in range(2))
    folded = torch.randn(batch, kv_heads, heads // kv_heads, DIM, dtype=torch.bfloat16, device="cuda")
    plain = folded.reshape(batch, heads, 1, DIM)
    times = {}
    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            attempt(f"{name} gqa", lambda: graph_us(lambda i: sdpa(plain, k[i], v[i], enable_gqa=True), copies), times)
            if name == "flash" or n <= 32768:  # cuDNN takes 2 to 46 times as long this way
                attempt(f"{name} folded", lambda: graph_us(lambda i: sdpa(folded, k[i], v[i]), copies), times)
    decode_fp8(folded, k, v, times)
    return {"bench": "attention", "shape": shape, "context": n, "batch": batch, "bytes": n_bytes, "us": times}


def prefill(shape, before, n):
    heads, kv_heads = SHAPES[shape]
    q = torch.randn(1, heads, n, DIM, dtype=torch.bfloat16, device="cuda")
    k, v = (torch.randn(1, kv_heads, before + n, DIM, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    times = {}

    def in_two():
        if before > 0:
            sdpa(q, k[:, :, :before], v[:, :, :before], enable_gqa=True)
        sdpa(q, k[:, :, before:], v[:, :, before:], is_causal=True, enable_gqa=True)

    with sdpa_kernel(BACKENDS["flash"]):
        mask = causal_lower_right(n, before + n)
        attempt("flash", lambda: best_us(lambda: sdpa(q, k, v, attn_mask=mask, enable_gqa=True)), times)
    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            attempt(f"{name} in two", lambda: best_us(in_two), times)
    flops = 4.0 * DIM * heads * n * (before + n / 2)
    return {"bench": "prefill", "shape": shape, "before": before, "queries": n, "flops": flops, "us": times}


def show(r):
    best = min(r["us"], key=r["us"].get)
    us = r["us"][best]
    if r["bench"] == "attention":
        what = f"{r['context'] // 1024}K x {r['batch']}"
        rate = f"{r['bytes'] / us * 1e-3:.0f} GB/s of bf16"
    else:
        what = f"{r['queries']} after {r['before']}"
        rate = f"{r['flops'] / us * 1e-6:.0f} TFLOP/s"
    ways = ", ".join(f"{name} {t:.1f}" for name, t in r["us"].items())
    print(f"torch {r['bench']} {r['shape']:8} {what:16} best {us:9.1f} us ({best}, {rate}): {ways}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("decode", "prefill"))
    parser.add_argument("--json", action="store_true", help="one object a line")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # torch's way of saying why a backend refuses: named below
    if not args.json:
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    cases = []
    if args.only != "prefill":
        cases += [lambda s=s, c=c: decode(s, *c) for s in SHAPES for c in DECODE]
    if args.only != "decode":
        cases += [lambda c=c: prefill("llama-8b", *c) for c in PREFILL]
    for case in cases:
        result = case()
        print(json.dumps(result), flush=True) if args.json else show(result)
        torch.cuda.empty_cache()
    for name, why in refused.items():
        print(json.dumps({"refused": name, "why": why}) if args.json else f"torch refuses {name}: {why}")


if __name__ == "__main__":
    main()
