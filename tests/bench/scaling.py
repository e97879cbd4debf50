#!/usr/bin/env python3
"""Predicts the time of a decode step and of a prompt on 1 to 128 GPUs from constants that were measured (docs/scaling.md).

usage: scaling.py table [--model SHAPE] [--kv POLICY] [--batch B] [--contexts N,..] [--ranks N,..] [--weights W] [--way W]
                       [--host N] [--prefill-chunk C] [--svg FILE]
       scaling.py check     what was measured beside what is predicted
       scaling.py limits    where sharding stops paying: the ranks of the shortest step, and those from which on an
                            exchange takes longer than a shard's attention

Shapes are those of random:SHAPE (worker/model/random_shapes.def); constants with their sources: scaling.json.
"""
import argparse
import json
import math
import os
import re
from dataclasses import dataclass

import plot_scale

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = os.path.join(HERE, "../../worker/model/random_shapes.def")
BLOCK = 128
MODEL_BYTES = 2  # bf16
ROW_BYTES = 129 * 4
F32 = 4


@dataclass
class Shape:
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool


@dataclass
class Run:
    """What is predicted: one point of a sweep."""
    context: int
    batch: int = 1
    policy: str = "tq:k=3,v=3"
    ranks: int = 1
    weights: str = "replicated"  # or split
    way: str = "lsa"  # or nccl
    chunk: int = 8192  # of a prompt


def shape_of(config):
    heads = config["num_attention_heads"]
    return Shape(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"], heads,
                 config["num_key_value_heads"], config.get("head_dim", config["hidden_size"] // heads),
                 config["vocab_size"], config.get("tie_word_embeddings", False))


def read_shapes(path=SHAPES):
    with open(path) as file:
        text = file.read()
    shapes = {}
    for name, body in re.findall(r'^X\("([^"]+)",((?:\s*"(?:[^"\\]|\\.)*")+)\)', text, re.M):
        config = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', body)).replace('\\"', '"')
        shapes[name] = shape_of(json.loads(config))
    return shapes


def read_constants(path=os.path.join(HERE, "scaling.json")):
    with open(path) as file:
        return json.load(file)


def between(x, xs, ys):
    """On the line through the two points around x, or the first or last two."""
    i = max(1, min(len(xs) - 1, sum(1 for known in xs if known < x)))
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


class Scaling:
    def __init__(self, constants):
        self.c = constants

    def value(self, name):
        return self.c[name]["value"]

    # -- bytes of a rank

    def page_bytes(self, shape, run):
        """Of all layers; the rank with most blocks."""
        blocks = math.ceil(math.ceil(run.context / BLOCK) / run.ranks)
        per_head = self.c["page_bytes"][run.policy] * shape.head_dim / 128
        return blocks * BLOCK * per_head * shape.kv_heads * shape.layers * run.batch

    def products(self, shape, run):
        """[(bytes of the weights, how often)] of a step."""
        parts = run.ranks if run.weights == "split" else 1
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        elems = [(shape.width * (q + 2 * kv), shape.layers),  # every rank has all of q, k and v
                 (shape.width * q / parts, shape.layers),
                 (2 * shape.width * shape.ffn / parts, shape.layers),
                 (shape.width * shape.ffn / parts, shape.layers),
                 (shape.width * shape.vocab / parts, 1)]
        return [(n * MODEL_BYTES, times) for n, times in elems]

    def weight_bytes(self, shape, run):
        table = 0 if shape.tied else shape.width * shape.vocab * MODEL_BYTES
        parts = run.ranks if run.weights == "split" else 1
        return sum(n * times for n, times in self.products(shape, run)) + table / parts

    # -- us

    def linear_us(self, shape, run):
        w = self.c["weights_gb_per_s"]
        speed = between(min(run.batch, w["rows"][-1]), w["rows"], w["values"]) * 1e3  # bytes a us
        return sum((self.value("product_us") + n / speed) * times for n, times in self.products(shape, run))

    def attention_us(self, shape, run):
        """Of a layer, on a rank."""
        a = self.c["attention"]
        group = min(a["kv_heads"], key=lambda g: abs(math.log(int(g) / (shape.heads / shape.kv_heads))))
        known = [n * a["kv_heads"][group] * self.c["page_bytes"][run.policy] for n in a["contexts"]]
        us = between(self.page_bytes(shape, run) / shape.layers, known, a["us"][run.policy][group])
        return us + self.value("attention_in_step_us")

    def exchange_us(self, kind, run, rows):
        """rows: of 129 floats, that a rank has.  On several hosts: by NCCL inside each, and then between them."""
        e = self.c["exchange"]
        if run.ranks == 1:
            return 0.0
        near = min(run.ranks, self.value("nvlink_ranks"))
        hosts = math.ceil(run.ranks / near)
        of_way = e["us"][run.way if hosts == 1 else "nccl"][kind]
        us = between(max(near, 2), [2, 4], [between(rows, e["rows"], of_way[n]) for n in ("2", "4")])
        if hosts > 1:
            doublings, far = math.ceil(math.log2(hosts)), run.ranks - near
            hops, n_rows = {"gather": (doublings, rows * far), "all_to_all": (1, rows * far / run.ranks),
                            "sum": (2 * doublings, 2 * rows)}[kind]  # a tree, up and down
            us += hops * self.value("network_us") + n_rows * ROW_BYTES / (self.value("network_gb_per_s") * 1e3)
        return us

    def exchanges_us(self, shape, run):
        """Of a layer."""
        rows = run.batch * shape.heads * shape.head_dim / 128
        us = self.exchange_us("gather" if run.weights == "replicated" else "all_to_all", run, rows)
        if self.is_attended(shape, run):
            us += self.value("attended_us")
        if run.weights == "replicated":
            return us
        return us + 2 * self.exchange_us("sum", run, run.batch * shape.width / 128)

    def is_attended(self, shape, run):
        """Whether partials are exchanged where attention's parts are added up (kernels/cuda/exchange_attend.cu)."""
        sources = run.ranks if run.weights == "split" else 1
        return (run.way == "lsa" and 1 < run.ranks <= self.value("nvlink_ranks") and sources <= 4 and
                run.batch * shape.heads <= self.c["attended_us"]["rows"])

    def step_ms(self, shape, run):
        layer = self.value("layer_us") + self.attention_us(shape, run) + self.exchanges_us(shape, run)
        return (self.value("step_us") + self.linear_us(shape, run) + shape.layers * layer) * 1e-3

    # -- a prompt of one sequence: us of a layer of a chunk

    def own_rows(self, run, tokens):
        """Of a step of so many tokens, which a rank embeds and multiplies (worker/model/rows.h)."""
        shared = run.weights == "replicated" and tokens >= run.ranks * max(64, run.ranks)
        return math.ceil(tokens / run.ranks) if shared else tokens

    def rate(self, name, of, rows):
        """FLOP a us with so many rows, of the kind that is nearest."""
        known = self.c[name]
        kind = min(known["tflops"], key=lambda k: abs(math.log(int(k) / of)))
        near = min(max(rows, known["rows"][0]), known["rows"][-1])
        return 1e6 * between(math.log2(near), [math.log2(n) for n in known["rows"]], known["tflops"][kind])

    def chunk_products_us(self, shape, run, tokens):
        rows = self.own_rows(run, tokens)
        elems = sum(n for n, times in self.products(shape, run)[:-1]) / MODEL_BYTES  # the head is a token's
        return 2 * rows * elems / self.rate("prefill_products", shape.width, rows)

    def chunk_attention_us(self, shape, run, tokens, position):
        """Of all rows, over a rank's positions; q and o of all rows are read and written however few these are."""
        pairs = tokens * (position + (tokens + 1) / 2) / run.ranks
        us = 4 * shape.head_dim * shape.heads * pairs / self.rate("prefill_attention", shape.heads / shape.kv_heads, tokens)
        rows = 2 * tokens * shape.heads * shape.head_dim * F32
        return us + self.value("prefill_attention_us") + rows / (self.value("prefill_attention_gb_per_s") * 1e3)

    def chunk_store_us(self, shape, run, tokens):
        """Turning q of a rank's own rows, k and v of its own positions; pages of these."""
        q = self.own_rows(run, tokens) * shape.heads * shape.head_dim
        kv = tokens * 2 * shape.kv_heads * shape.head_dim / run.ranks
        gb = self.value("prefill_append_gb_per_s"), self.value("prefill_pack_gb_per_s")
        return 2 * (q + kv) * F32 / (gb[0] * 1e3) + kv * MODEL_BYTES / (gb[1] * 1e3)

    def chunk_merge_us(self, shape, run, tokens):
        """Partials of all rows are dealt, and those of the rank's own rows or heads read."""
        if run.ranks == 1:
            return 0.0
        partials = tokens * shape.heads * (shape.head_dim + 1) * F32
        return 3 * partials / (self.value("memory_gb_per_s") * 1e3)

    def chunk_exchange_bytes(self, shape, run, tokens):
        """That a rank receives, of a layer."""
        others = (run.ranks - 1) / run.ranks
        partials = tokens * shape.heads * (shape.head_dim + 1) * F32
        if run.weights == "replicated" and self.own_rows(run, tokens) == tokens:
            return (run.ranks - 1) * partials  # all, to all
        if run.weights == "replicated":
            return others * (tokens * (shape.heads + 2 * shape.kv_heads) * shape.head_dim * F32 + partials)
        return others * (partials + 2 * 2 * tokens * shape.width * F32)  # two sums, each out and back

    def chunk_exchange_us(self, shape, run, tokens):
        near = min(run.ranks, self.value("nvlink_ranks"))
        hosts = math.ceil(run.ranks / near)
        gb = self.value("nvlink_gb_per_s") if hosts == 1 else self.value("network_gb_per_s")
        return self.chunk_exchange_bytes(shape, run, tokens) / (gb * 1e3)

    def chunk_ms(self, shape, run, tokens, position):
        layer = (self.chunk_products_us(shape, run, tokens) + self.chunk_attention_us(shape, run, tokens, position) +
                 self.chunk_store_us(shape, run, tokens) + self.chunk_merge_us(shape, run, tokens) +
                 self.chunk_exchange_us(shape, run, tokens))
        return shape.layers * layer * 1e-3

    def prefill_s(self, shape, run):
        begins = range(0, run.context, run.chunk)
        return sum(self.chunk_ms(shape, run, min(run.chunk, run.context - at), at) for at in begins) * 1e-3

    def room_bytes(self, shape, run):
        """For pages, of a rank."""
        return self.value("room_share") * (self.value("free_gb") * 1e9 - self.weight_bytes(shape, run))

    def fits(self, shape, run):
        """Ranks that share the weights have a head each at least."""
        ranks_fit = run.weights == "replicated" or run.ranks <= shape.heads
        return ranks_fit and self.page_bytes(shape, run) <= self.room_bytes(shape, run)

    def largest_context(self, shape, run):
        one = Run(BLOCK, run.batch, run.policy)
        return max(0, int(self.room_bytes(shape, run) / self.page_bytes(shape, one))) * BLOCK * run.ranks

    # -- where sharding stops paying

    def best_ranks(self, shape, run, counts):
        """The number of ranks with the shortest step, among those that it fits; None: none."""
        times = [(self.step_ms(shape, at(run, ranks=n)), n) for n in counts if self.fits(shape, at(run, ranks=n))]
        return min(times)[1] if times else None

    def outweighed_at(self, shape, run, counts):
        """The first number of ranks whose exchange takes longer than the shard's attention; None: none."""
        for n in counts:
            one = at(run, ranks=n)
            if self.exchanges_us(shape, one) > self.attention_us(shape, one):
                return n
        return None


def at(run, **changes):
    return Run(**{**run.__dict__, **changes})


def lengths(text):
    units = {"K": 1 << 10, "M": 1 << 20}
    return [int(part.rstrip("KM")) * units.get(part[-1], 1) for part in text.split(",")]


def errors(scaling, shapes):
    """[(row, predicted ms, error)] of what was measured."""
    found = []
    for row in (row for run in scaling.c["measured"] for row in run["rows"]):
        model, context, batch, policy, ranks, ms = row
        predicted = scaling.step_ms(shapes[model], Run(context, batch, policy, ranks))
        found.append((row, predicted, predicted / ms - 1.0))
    return found


def prefill_errors(scaling, shapes):
    """As errors: [(row, predicted s, error)]."""
    found = []
    for row in (row for run in scaling.c["measured_prefill"] for row in run["rows"]):
        model, context, chunk, policy, ranks, s = row
        predicted = scaling.prefill_s(shapes[model], Run(context, 1, policy, ranks, chunk=chunk))
        found.append((row, predicted, predicted / s - 1.0))
    return found


def print_check(scaling, shapes):
    print("| model, positions, batch, ranks | pages | measured, ms | predicted, ms | error, % |\n|---|---|---|---|---|")
    for (model, context, batch, policy, ranks, ms), predicted, error in errors(scaling, shapes):
        print(f"| {model}, {plot_scale.length(context)}, {batch}, {ranks} | `{policy}` | {ms:.2f} | {predicted:.2f} | {100 * error:+.1f} |")


    print("\n| model, positions, chunk, ranks | pages | measured, s | predicted, s | error, % |\n|---|---|---|---|---|")
    for (model, context, chunk, policy, ranks, s), predicted, error in prefill_errors(scaling, shapes):
        print(f"| {model}, {plot_scale.length(context)}, {chunk}, {ranks} | `{policy}` | {s:.2f} | {predicted:.2f} | {100 * error:+.1f} |")


def print_prefill(scaling, shape, run, contexts, counts):
    """Seconds of a prompt, and how many times faster it is than on one GPU, whether that holds it or not."""
    print(f"\n| prefill, chunks of {run.chunk} | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in counts) + " |\n" + "|---" * (len(counts) + 1) + "|")
    for context in contexts:
        cells = []
        for n in counts:
            one = at(run, context=context, ranks=n)
            s = scaling.prefill_s(shape, one)
            times = scaling.prefill_s(shape, at(one, ranks=1)) / s
            text = f"{s:.2f}" if s < 10 else f"{s:.1f}"
            cells.append((text + (f", {times:.2f}" if n > 1 else "")) if scaling.fits(shape, one) else "-")
        print(f"| {plot_scale.length(context)} | " + " | ".join(cells) + " |")


def print_table(scaling, shape, run, contexts, counts):
    print("| positions | " + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in counts) + " |\n" + "|---" * (len(counts) + 1) + "|")
    for context in contexts:
        cells = []
        for n in counts:
            one = at(run, context=context, ranks=n)
            cells.append(f"{scaling.step_ms(shape, one):.2f}" if scaling.fits(shape, one) else "-")
        print(f"| {plot_scale.length(context)} | " + " | ".join(cells) + " |")
    cells = []
    for n in counts:
        one = at(run, ranks=n, context=BLOCK)
        cells.append(f"{scaling.largest_context(shape, one) / (1 << 20):.1f}M" if scaling.fits(shape, one) else "-")
    print("| longest | " + " | ".join(cells) + " |")


def draw_table(scaling, model, shape, run, contexts, counts):
    """As plot_scale.py draws what was measured."""
    times = {}
    for context in contexts:
        for n in counts:
            one = at(run, context=context, ranks=n)
            if scaling.fits(shape, one):
                times.setdefault(context, {})[n] = scaling.step_ms(shape, one)
    prompts = {context: {n: scaling.prefill_s(shape, at(run, context=context, ranks=n)) for n in of_context}
               for context, of_context in times.items()}
    name = f"{model}, {run.weights} weights, predicted"
    return plot_scale.draw({(name, run.batch, run.policy): times}, {(name, run.chunk, run.policy): prompts})


def print_limits(scaling, shapes, policy, counts):
    ways = [(weights, way) for weights in ("replicated", "split") for way in ("lsa", "nccl")]
    print("| model | positions | " + " | ".join(f"{weights}, {way}" for weights, way in ways) + " |\n" + "|---" * 6 + "|")
    for model in ("qwen2.5-3b", "llama-3.1-8b", "llama-3.1-70b"):
        for context in lengths("128K,512K,1M,2M,4M,8M"):
            cells = []
            for weights, way in ways:
                run = Run(context, 1, policy, 1, weights, way)
                best = scaling.best_ranks(shapes[model], run, counts)
                over = scaling.outweighed_at(shapes[model], run, counts)
                cells.append(f"{best or '-'}, {over or '-'}")
            print(f"| {model} | {plot_scale.length(context)} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("table", "check", "limits"))
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--kv", default="tq:k=3,v=3")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--contexts", type=lengths, default=lengths("128K,512K,1M,2M,4M,8M"))
    parser.add_argument("--ranks", type=lengths, default=lengths("1,2,4,8,16,32,64,128"))
    parser.add_argument("--weights", default="replicated", choices=("replicated", "split"))
    parser.add_argument("--way", default="lsa", choices=("lsa", "nccl"), help="inside a host; between hosts it is nccl")
    parser.add_argument("--host", type=int, metavar="N", help="GPUs of a host, joined by NVLink; 1: InfiniBand alone")
    parser.add_argument("--prefill-chunk", type=int, default=8192, metavar="C")
    parser.add_argument("--svg", metavar="FILE", help="the table as plots")
    given = parser.parse_args()
    scaling, shapes = Scaling(read_constants()), read_shapes()
    if given.host is not None:
        scaling.c["nvlink_ranks"]["value"] = given.host
    if given.what == "check":
        print_check(scaling, shapes)
    elif given.what == "limits":
        print_limits(scaling, shapes, given.kv, given.ranks)
    else:
        run = Run(0, given.batch, given.kv, 1, given.weights, given.way, given.prefill_chunk)
        print_table(scaling, shapes[given.model], run, given.contexts, given.ranks)
        print_prefill(scaling, shapes[given.model], at(run, batch=1), given.contexts, [n for n in given.ranks if n <= 8])
        if given.svg is not None:
            with open(given.svg, "w") as file:
                file.write(draw_table(scaling, given.model, shapes[given.model], run, given.contexts, given.ranks))


if __name__ == "__main__":
    main()
