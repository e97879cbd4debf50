#!/usr/bin/env python3
"""What a group of four GPUs is to reach, beside what the reports of run_gpu.sh's group parts say.

usage: goals.py FOLDER    of merge-N.json, steps-*-N.json, prompts-3b-N.json; "-" where there is no such report
"""
import json
import os
import sys

RANKS = 4
M = 1 << 20
K = 1 << 10


class Reports:
    def __init__(self, folder):
        self.folder = folder

    def load(self, name, ranks):
        path = os.path.join(self.folder, f"{name}-{ranks}.json")
        if not os.path.exists(path):
            return None
        with open(path) as f:
            return json.load(f)

    def link_us(self, transport, what, rows):
        """Median of a link in a graph, less that of the norm in it."""
        times = {(r["transport"], r["what"]): r["p50_us"] for r in (self.load("merge", RANKS) or {"results": []})["results"]
                 if r["mode"] == "graph" and r["rows"] == rows}
        nothing = [us for (_, name), us in times.items() if name == "nothing"]
        us = times.get((transport, what))
        return None if us is None or not nothing else us - min(nothing)

    def row(self, name, ranks, context, part="rows"):
        report = self.load(name, ranks)
        rows = [] if report is None else [r for r in report.get(part, []) if r["context"] == context and r["fits"]]
        return rows[0] if rows else None

    def step_ms(self, name, ranks, context):
        row = self.row(name, ranks, context)
        return None if row is None else row["step_ms"]

    def prompt_ms(self, ranks, context):
        row = self.row("prompts-3b", ranks, context, "prefill")
        return None if row is None else row["prefill_ms"]

    def layers_us(self, name, layers):
        """What a layer of RANKS ranks takes more than one's of as many positions as each of them has."""
        alone, all_of_them = self.step_ms(name, 1, 128 * K), self.step_ms(name, RANKS, 512 * K)
        return None if alone is None or all_of_them is None else (all_of_them - alone) * 1e3 / layers


def ratio(a, b):
    return None if a is None or b is None else a / b


def goals(r):
    """(what, measured, goal, unit, whether more is better)"""
    bare = r.link_us("nccl-ag", "bare", 32)
    yield "lsa, exchange and merge, 32 rows", r.link_us("lsa", "merge", 32), 2.5, "us", False
    yield "lsa, the same within attention: a layer of 3B more than one GPU's", r.layers_us("steps-3b", 36), 2.0, "us", False
    yield "lsa, 512 rows", r.link_us("lsa", "merge", 512), 3.2, "us", False
    for way in ("nccl-ag", "nccl-a2a"):
        merged = r.link_us(way, "merge", 32)
        yield f"{way}, 32 rows, more than an all-gather alone", None if merged is None or bare is None else merged - bare, 2.0, "us", False
    for name in ("steps-3b", "steps-3b-split"):
        yield f"{name}, 512K", r.step_ms(name, RANKS, 512 * K), 1.6, "ms", False
    split = r.step_ms("steps-8b-split", RANKS, M)
    yield "steps-8b-split, 1M", split, 3.8, "ms", False
    yield "the same, times as fast as one GPU", ratio(r.step_ms("steps-8b", 1, M), split), 3.0, "x", True
    yield "prompt of 512K, 3B, times as fast as one GPU", ratio(r.prompt_ms(1, 512 * K), r.prompt_ms(RANKS, 512 * K)), 3.3, "x", True
    for name, context in (("steps-70b-split", M), ("steps-8b", 8 * M)):
        row = r.row(name, RANKS, context)
        yield f"{name}, {context // M}M: ms a token", None if row is None else row["step_ms"], None, "ms", False
        yield f"{name}, {context // M}M: pages of a rank", None if row is None else row["page_bytes"] / 1e9, None, "GB", False


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("| what | measured | goal | |\n|---|---|---|---|")
    for what, measured, goal, unit, more in goals(Reports(sys.argv[1])):
        said = "-" if measured is None else f"{measured:.2f} {unit}"
        wanted = "" if goal is None else f"{'>=' if more else '<='} {goal} {unit}"
        met = "" if goal is None or measured is None else "met" if (measured >= goal) == more or measured == goal else "missed"
        print(f"| {what} | {said} | {wanted} | {met} |")


if __name__ == "__main__":
    main()
