#!/usr/bin/env python3
"""A long context served as a user would: a coordinator, `mpirun -n N ropewalk-worker`, and a client of gRPC in Python.

usage: serve_long.py prompt [--ranks N] [--model random:qwen2.5-3b] [--kv P] [--tokens 512K] [--new 64] [-- WORKER OPTIONS]
       serve_long.py needle [--ranks N] [--model models/demo] [--kv P] [--tokens 128K] [--depths 5] [-- WORKER OPTIONS]

prompt  random ids, after a short prompt that nobody times: TTFT, tokens/s of the prompt, time per output token, and what
        every rank holds of weights and pages.
needle  numbers hidden in a text at several depths, one prompt a depth. A rank gets so few pages (--pages) that all ranks
        together hold the prompt and one alone does not: a group of one such rank must refuse it, by name, and still
        find a number in a shorter text.

--connect HOST:PORT takes a coordinator whose group is there already and serves nobody else, in place of starting both here;
then nothing is known of one rank alone, and no refusal is asked for. From the root of the checkout, with python3-grpcio and
python3-protobuf; programs and stubs are those of $ROPEWALK_BIN and $ROPEWALK_STUBS (build/release/bin and
build/release/generated/python). Ends with 1 if anything is not as asked: tokens, answers, refusal, blocks of ranks, blocks that
stay taken, processes that stay. What it started it ends."""
import argparse
import json
import math
import os
import random
import signal
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness
from harness import grpc, inference_pb2

BLOCK = 128
ANSWER_TOKENS = 16
WARM_TOKENS, WARM_NEW = 1024, 8
FIRST = "amber silver crimson quiet golden hollow northern velvet".split()
SECOND = "falcon harbor lantern meadow compass orchard river castle".split()
N_NEEDLES = 5


def tokens_of(text):
    """"512K", "1M" or a number."""
    units = {"K": 1 << 10, "M": 1 << 20}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def within(what, seconds):
    """True as soon as what() is, False after so long."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


# ---- what serves ----

class Served:
    """A coordinator and its group: started here, or, with --connect, found."""

    def __init__(self, args, ranks, *options):
        self.group = None
        if args.connect:
            self.coordinator = harness.Client(args.connect)
            return
        self.coordinator = harness.Coordinator("--wait-for-group-ms", "0")
        self.group = harness.Group(self.coordinator, *options, *args.worker, ranks=ranks, model=args.model, kv=args.kv,
                                   threads=None)
        self.group.wait_serving(self.coordinator, args.start_seconds)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.group is None:
            return
        if kind is not None:
            sys.stderr.write(self.group.output()[-4000:])
        pids = self.group.worker_pids()
        self.group.remove_log()
        self.coordinator.remove_log()
        left = within(lambda: not any(map(harness.exists, pids)), 5)
        check(left or kind is not None, f"ranks that stay: {list(filter(harness.exists, pids))}")

    def all_blocks_free(self):
        info = self.coordinator.info()
        return list(info.blocks_free_per_rank) == list(info.blocks_total_per_rank)

    def generate(self, request, seconds):
        """(Result, seconds to its first token, [seconds of each token after it])"""
        begun = last = time.monotonic()
        first, gaps, events = None, [], []
        try:
            for event in self.coordinator.inference.Generate(request, timeout=seconds):
                events.append(event)
                n = len(event.tokens.ids)
                if n > 0:
                    now = time.monotonic()
                    if first is None:
                        first = now - begun
                        n -= 1
                    gaps += [(now - last) / max(n, 1)] * n
                    last = now
        except grpc.RpcError as error:
            if not events:
                raise  # refused
            done = max((event.prefill.done for event in events), default=0)
            raise AssertionError(f"{error.code().name} {time.monotonic() - begun:.1f} s after the call, {done} tokens of the "
                                 f"prompt and {len(gaps) + (first is not None)} of the answer done: {error.details()}")
        result = harness.Result(events)
        check(first is not None, "no token came")
        check(within(self.all_blocks_free, 5), "blocks stay taken after the answer")
        return result, first, gaps


def check_blocks(result, ranks):
    """Blocks of the sequence that each rank held: all of them, shared evenly."""
    usage = result.finished.usage
    blocks = list(result.finished.kv.blocks_per_rank)
    check(len(blocks) == ranks, f"{ranks} ranks, blocks of {len(blocks)}")
    want = math.ceil((usage.prompt_tokens + usage.new_tokens - 1) / BLOCK)
    check(sum(blocks) in (want, want + 1), f"{usage.prompt_tokens} + {usage.new_tokens} tokens, but blocks are {blocks}")
    check(max(blocks) - min(blocks) <= 1, f"blocks are not shared evenly: {blocks}")
    return blocks


# ---- prompt ----

def prompt(args):
    draw = random.Random(args.seed)
    options = ("--max-batch", "1", "--max-context", str(args.tokens + args.new))
    with Served(args, args.ranks, *options) as served:
        info = served.coordinator.info()

        def ask(n_prompt, n_new):
            ids = [draw.randrange(info.vocab_size) for _ in range(n_prompt)]
            return served.generate(
                harness.request(ids=ids, temperature=0, max_new_tokens=n_new, ignore_eos=True), args.seconds)

        ask(min(WARM_TOKENS, args.tokens), WARM_NEW)
        result, ttft, gaps = ask(args.tokens, args.new)
    usage = result.finished.usage
    check(usage.prompt_tokens == args.tokens, f"{args.tokens} tokens were sent, {usage.prompt_tokens} counted")
    check(usage.new_tokens == len(result.ids) == args.new,
          f"{args.new} tokens were asked for, {len(result.ids)} came, {usage.new_tokens} counted")
    check(all(i < info.vocab_size for i in result.ids), "ids beyond the vocabulary")
    blocks = check_blocks(result, info.ranks)
    p99 = sorted(gaps)[min(len(gaps) - 1, math.ceil(len(gaps) * 0.99) - 1)]
    print_prompt(args, {
        "model": info.model, "policy": info.policy, "ranks": info.ranks, "exchange": info.exchange,
        "prompt_tokens": args.tokens, "new_tokens": args.new, "ttft_ms": ttft * 1e3,
        "prompt_tokens_per_second": args.tokens / ttft, "tpot_ms": statistics.median(gaps) * 1e3, "tpot_p99_ms": p99 * 1e3,
        "coordinator_ttft_ms": result.finished.timing.ttft_ms, "coordinator_tpot_ms": result.finished.timing.tpot_ms,
        "weight_bytes_per_rank": list(info.weight_bytes_per_rank),
        "page_bytes_per_rank": [n * info.bytes_per_page for n in blocks],
        "pool_bytes_per_rank": [n * info.bytes_per_page for n in info.blocks_total_per_rank],
    })


def print_prompt(args, r):
    if args.json:
        print(json.dumps(r))
        return
    print(f"{r['model']}, {r['policy']}, {r['ranks']} ranks, exchange by {r['exchange']}: {r['prompt_tokens']} tokens of prompt, "
          f"{r['new_tokens']} decoded")
    print(f"TTFT {r['ttft_ms']:.0f} ms ({r['prompt_tokens_per_second']:.0f} tokens/s), TPOT median {r['tpot_ms']:.2f} ms, "
          f"p99 {r['tpot_p99_ms']:.2f} ms; the coordinator's: {r['coordinator_ttft_ms']:.0f} ms, mean "
          f"{r['coordinator_tpot_ms']:.2f} ms")
    print("rank   weights, MB   pages of the sequence, MB   room for pages, MB")
    for i in range(r["ranks"]):
        mb = [r[name][i] / 1e6 for name in ("weight_bytes_per_rank", "page_bytes_per_rank", "pool_bytes_per_rank")]
        print(f"{i:4}   {mb[0]:11.2f}   {mb[1]:25.2f}   {mb[2]:18.2f}")


# ---- needle ----

class Haystack:
    """Texts of sentences in which numbers are hidden, at most so many tokens long."""

    def __init__(self, inference, path):
        self.inference = inference
        self.sentences = harness.read(path).split(". ")

    def count(self, text):
        return len(self.inference.Tokenize(inference_pb2.TokenizeRequest(text=text, add_special=True), timeout=60).ids)

    def write(self, n_bytes, depth, draw):
        """(text, the number asked for): one needle at depth, others evenly, no two of them with a word in common."""
        a, b = draw.randrange(len(FIRST)), draw.randrange(len(SECOND))
        keys = [f"{FIRST[(a + i) % len(FIRST)]} {SECOND[(b + 3 * i) % len(SECOND)]}" for i in range(N_NEEDLES)]
        numbers = draw.sample(range(10000, 1000000), N_NEEDLES)
        depths = [depth] + [(i + 0.5) / (N_NEEDLES - 1) for i in range(N_NEEDLES - 1)]
        hidden = sorted(zip(depths, keys, numbers))
        parts, size, i = [], 0, 0
        while size < n_bytes or hidden:
            if hidden and size >= hidden[0][0] * n_bytes:
                _, key, number = hidden.pop(0)
                parts.append(f"The secret number for {key} is {number}. ")
            else:
                parts.append(self.sentences[i % (len(self.sentences) - 1)] + ". ")
                i += 1
            size += len(parts[-1])
        return "".join(parts) + f"\nQuestion: What is the secret number for {keys[0]}?\nAnswer:", str(numbers[0])

    def of_tokens(self, most, depth, seed):
        """(text, answer, its tokens): as long as fits in most tokens, to 1 % and a long sentence."""
        n_bytes = most * 3
        for _ in range(8):
            text, answer = self.write(n_bytes, depth, random.Random(seed))
            n = self.count(text)
            if most - most // 100 - 200 <= n <= most:
                return text, answer, n
            n_bytes = int(n_bytes * (most - most // 200 - 100) / n)
        raise AssertionError(f"no text of {most} tokens")


def needle(args):
    pages = args.pages or math.ceil(args.tokens / BLOCK / args.ranks) + 1
    pool = ("--max-batch", "1", "--pages", str(pages))
    report = {"tokens": [], "found": [], "pages_per_rank": None if args.connect else pages}

    def answer(served, most, depth, seed):
        stack = Haystack(served.coordinator.inference, args.text)
        text, number, n = stack.of_tokens(most - ANSWER_TOKENS, depth, seed)
        result, ttft, _ = served.generate(
            harness.request(text=text, temperature=0, max_new_tokens=ANSWER_TOKENS), args.seconds)
        check(result.finished.usage.prompt_tokens == n, f"{n} tokens were sent, {result.finished.usage.prompt_tokens} counted")
        blocks = check_blocks(result, served.coordinator.info().ranks)
        right = result.text.strip() == number + "."
        say(args, f"{n} tokens, {depth:4.0%} deep, blocks of ranks {blocks}, TTFT {ttft * 1e3:.0f} ms: {number} "
                  + ("found" if right else f"NOT found, but '{result.text.strip()}'"))
        return text, right, n

    with Served(args, args.ranks, *pool) as served:
        info = served.coordinator.info()
        report |= {"model": info.model, "policy": info.policy, "ranks": info.ranks, "exchange": info.exchange}
        say(args, f"{info.model}, {info.policy}, {info.ranks} ranks, exchange by {info.exchange}, "
                  f"{info.blocks_total_per_rank[0]} pages of {info.bytes_per_page} bytes on each")
        for i in range(args.depths):
            text, right, n = answer(served, args.tokens, i / max(args.depths - 1, 1), args.seed + i)
            report["tokens"].append(n)
            report["found"].append(right)
    if args.ranks > 1 and not args.connect:
        with Served(args, 1, *pool) as alone:
            code, reason = None, "the prompt was taken"
            try:
                alone.generate(harness.request(text=text, temperature=0, max_new_tokens=ANSWER_TOKENS), args.seconds)
            except grpc.RpcError as error:
                code, reason = error.code(), error.details()
            say(args, f"one rank alone, with as many pages: {reason}")
            limit = alone.coordinator.info().max_context
            check(code == grpc.StatusCode.OUT_OF_RANGE and str(limit) in reason and limit <= pages * BLOCK,
                  f"one rank alone did not refuse {report['tokens'][-1]} tokens by its {pages} pages: {reason}")
            _, right, _ = answer(alone, min(limit, args.tokens // 2), 0.5, args.seed)
            check(right, "one rank alone did not find a number in a text that it holds")
            report["refused"] = reason
    if args.json:
        print(json.dumps(report))
    check(all(report["found"]), f"{report['found'].count(False)} of {args.depths} numbers were not found")


def say(args, line):
    if not args.json:
        print(line, flush=True)


# ---- command line ----

def main():
    argv = sys.argv[1:]
    at = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prompt", "needle"))
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--model")
    parser.add_argument("--kv", default="tq:k=3,v=3")
    parser.add_argument("--tokens", type=tokens_of, help="of the prompt; of needle: of prompt and answer")
    parser.add_argument("--new", type=int, default=64, help="prompt: tokens to decode")
    parser.add_argument("--depths", type=int, default=5, help="needle: prompts, from the text's beginning to its end")
    parser.add_argument("--pages", type=int, help="needle: pages of a rank")
    parser.add_argument("--text", default="models/demo/haystack.txt", help="needle: what to hide numbers in")
    parser.add_argument("--connect", metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600, help="that an answer may take")
    parser.add_argument("--start-seconds", type=float, default=300, help="that the group may take until it serves")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv[:at])
    args.worker = argv[at + 1:]
    args.model = args.model or ("models/demo" if args.what == "needle" else "random:qwen2.5-3b")
    args.tokens = args.tokens or (128 << 10 if args.what == "needle" else 512 << 10)
    if min(args.ranks, args.tokens, args.new - 1, args.depths) < 1:
        parser.error("--ranks, --tokens and --depths are 1 or more, --new 2 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended at exit
    try:
        {"prompt": prompt, "needle": needle}[args.what](args)
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
    except grpc.RpcError as error:
        sys.exit(f"FAILED: {error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
