"""Writes prompts.json: token ids for tests/multirank/test_engine.c, so that it needs no tokenizer.

    pip install tokenizers
    python tests/golden/make_prompts.py > tests/golden/prompts.json

`text` is the beginning of models/demo/haystack.txt; `short` and `long` are a secret number hidden in it at
a third, and the question.  The offsets (of the prompts of each length in `text`) were chosen for their
margins, which the test checks.
"""
import json
import sys

from tokenizers import Tokenizer

DEMO = "models/demo/"
OFFSETS = {1: 588, 127: 588, 128: 78, 129: 848, 511: 210, 512: 1820, 513: 470}

tokenizer = Tokenizer.from_file(DEMO + "tokenizer.json")
haystack = open(DEMO + "haystack.txt", encoding="utf-8").read()


def ids(text, special=True):
    return tokenizer.encode(text, add_special_tokens=special).ids


def needle(n_bytes):
    hay = haystack[: haystack.index(". ", n_bytes) + 1]
    at = hay.index(". ", len(hay) // 3) + 2
    return ids(
        hay[:at] + "The secret number for amber falcon is 48213. " + hay[at:] + "\n"
        "Question: What is the secret number for amber falcon?\nAnswer:"
    )


out = {
    "what": "token ids of models/demo's tokenizer, by tests/golden/make_prompts.py",
    "text": ids(haystack[:12000])[:3000],
    "lengths": [{"length": n, "offset": o} for n, o in OFFSETS.items()],
    "short": needle(1500),
    "long": needle(17000),
}
json.dump(out, sys.stdout, separators=(",", ":"))
sys.stdout.write("\n")
