#!/usr/bin/env python3
"""Trains a tiny SentencePiece-style BPE tokenizer and writes what Hugging Face's `tokenizers` makes
of some texts with it: tests/golden/tokenizers/sp/{tokenizer,vectors}.json.

usage: pip install tokenizers==0.23.3; tests/golden/make_sp_tokenizer.py   (from the repository root)

vectors.json holds, for each way that conversions write spaces ("variants": fields that replace those
of tokenizer.json), the ids of each text with special tokens added, and what decoding them gives
with and without special tokens; and texts of ids that no text leads to ("decodes").
"""
import json
import re
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tokenizers/sp"
N_MERGES = 230
TRAIN_BYTES = 400_000
MARK = "\u2581"

PREPEND = {"normalizer": {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": MARK},
    {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]}, "pre_tokenizer": None}
DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def metaspace(scheme, split):
    return {"normalizer": None, "pre_tokenizer": {
        "type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}}


VARIANTS = {
    "prepend": PREPEND,
    "replace_only": {"normalizer": PREPEND["normalizer"]["normalizers"][1],
                     "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                                       "behavior": "MergedWithPrevious", "invert": False},
                     "decoder": {"type": "Sequence", "decoders": DECODER["decoders"][:3]}},
    "first": metaspace("first", False),
    "first_split": metaspace("first", True),
    "always": metaspace("always", False),
    "always_split": metaspace("always", True),
    "never": dict(metaspace("never", False),
                  decoder={"type": "Sequence", "decoders": DECODER["decoders"][:3]}),
}

TEXTS = [
    "", " ", "  ", "a", " a", "  a", "a ", "a  b", "Hello, world!", " Hello", "the the  the   the",
    "the cat\nsat\n\non the\tmat\t\t", "\n", "\t x", "12345 678", "don't", "caf\u00e9", "cafe\u0301",
    "a\u0300\u0301\u0302b", "\U0001f600 smile \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\u4f60\u597d, world", "\u0416\u0443\u043a",
    "\u0001\u0002\u007f", "a\u0000b", "\U0010ffff\U0010fffd", "\ufeffbom", "\u2581", "\u2581the", "the\u2581\u2581the", " \u2581 ",
    "<0x41>", "<0x0A><0x0A>", "<s>", "<s>the</s>", "the<s>the", " <s> the </s> ", "<s><s>",
    "</s", "<unk>", "<tool>x<tool> y", "a<note>b", "<note>", " <note>", "the <note>the", "x" * 300,
    " " * 100, "the " * 60 + "\n" * 50, "aaaaaaaaaab" * 20, "\u00e9" * 90,
    "Zwei\u2003Leerzeichen\u00a0hier", "\u2018quoted\u2019 \u2014 dash\u2026",
]
BYTE = 3  # id of <0x00>
DECODES = [
    [], [BYTE + 0x20], [BYTE + 0x0a], [BYTE + 0xe2, BYTE + 0x82], [BYTE + 0xe2, BYTE + 0x82, BYTE + 0xac],
    [BYTE + 0x41, BYTE + 0xff], [BYTE + 0xff, "\u2581", BYTE + 0x41], ["\u2581", "\u2581", "a"], [1, "\u2581", "a"],
    ["\u2581the", 1, "\u2581the"], [BYTE + 0xc3, 1, BYTE + 0xa9], [BYTE + 0xc3, "a", BYTE + 0xa9],
    [BYTE + 0xe4, BYTE + 0xbd, BYTE + 0xa0, BYTE + 0xe5, BYTE + 0xa5], ["a", BYTE + 0x80, "b"],
    [BYTE + 0x20, BYTE + 0x20, "a"], [0, 2], ["<tool>", "\u2581the"],
]


def train():
    """Byte pair counts over words; a space joins the word behind it, as SentencePiece has it."""
    text = (ROOT / "models/demo/haystack.txt").read_text(encoding="utf-8")[:TRAIN_BYTES]
    words = Counter(tuple(MARK + w) for w in text.split())
    words[tuple(MARK * 8)] = 500
    letters = sorted({c for word in words for c in word} | {chr(c) for c in range(0x21, 0x7f)})
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = []
    while len(merges) < N_MERGES:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        left, right = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append([left, right])
        vocab.setdefault(left + right, len(vocab))
        merged = Counter()
        for word, n in words.items():
            new, i = [], 0
            while i < len(word):
                step = 2 if word[i:i + 2] == (left, right) else 1
                new.append("".join(word[i:i + step]))
                i += step
            merged[tuple(new)] += n
        words = merged
    # A few that training on words cannot give: one across a space, one of bytes.
    for left, right in (("e", MARK), ("e" + MARK, "t"), ("<0xF4>", "<0x8F>")):
        merges.append([left, right])
        vocab.setdefault(left + right, len(vocab))
    for letter in letters:
        vocab.setdefault(letter, len(vocab))
    return vocab, merges


def added(id, content, special, normalized=False):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": special}


def write(name, value):
    text = json.dumps(value, ensure_ascii=True, indent=0)
    text = re.sub(r"\n(?=[-\d\]])(?<=[\[,\d]\n)", "", text)
    (OUT / name).write_text(text + "\n", encoding="utf-8")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    vocab, merges = train()
    n = len(vocab)
    bos = {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
    base = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(0, "<unk>", True), added(1, "<s>", True), added(2, "</s>", True),
                         added(n, "<tool>", False), added(n + 1, "<note>", False, normalized=True)],
        **PREPEND,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                     {"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": bos}},
        "decoder": DECODER,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": vocab,
                  "merges": merges}}
    vectors = {"variants": []}
    ids_of = dict(vocab, **{"<tool>": n})
    for name, fields in VARIANTS.items():
        tokenizer = Tokenizer.from_str(json.dumps({**base, **fields}))
        cases = []
        for text in TEXTS:
            ids = tokenizer.encode(text).ids
            cases.append({"text": text, "ids": ids,
                          "decoded": tokenizer.decode(ids, skip_special_tokens=True),
                          "with_special": tokenizer.decode(ids, skip_special_tokens=False)})
        decodes = []
        for items in DECODES:
            ids = [ids_of[i] if isinstance(i, str) else i for i in items]
            decodes.append({"ids": ids,
                            "decoded": tokenizer.decode(ids, skip_special_tokens=True),
                            "with_special": tokenizer.decode(ids, skip_special_tokens=False)})
        vectors["variants"].append(
            {"name": name, "fields": fields, "cases": cases, "decodes": decodes})
    write("tokenizer.json", base)
    write("vectors.json", vectors)


if __name__ == "__main__":
    main()
