#!/usr/bin/env python3
"""Write a twin of this model that computes the same with uneven keys.

    python3 uneven.py OUT [--exponent 4] [--every 8]

In every head, every eighth RoPE pair (i, i + 64) of the keys is 2^4 times as large and the same pair of the queries is
2^4 times smaller: the attention logits are the same, and in bf16 no bit of a weight's fraction changes. What differs is
what a cache has to store: as in many trained models, a few channels hold most of a key's length. Needs no packages."""
import argparse, array, json, os, shutil, struct

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = 128


def scale(bf16, by):
    """Times 2^by: the exponent alone; zeros stay, and values too small for it become zero."""
    exponent = bf16 >> 7 & 0xFF
    if exponent == 0 or exponent + by <= 0:
        return bf16 & 0x8000
    assert exponent + by < 255
    return bf16 & 0x807F | exponent + by << 7


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("out")
    ap.add_argument("--exponent", type=int, default=4)
    ap.add_argument("--every", type=int, default=8)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "haystack.txt"):
        shutil.copy(os.path.join(HERE, name), a.out)
    with open(os.path.join(HERE, "model.safetensors"), "rb") as f:
        size = f.read(8)
        header = f.read(struct.unpack("<Q", size)[0])
        weights = array.array("H", f.read())
    for name, tensor in json.loads(header).items():
        by = a.exponent if name.endswith("k_proj.weight") else -a.exponent if name.endswith("q_proj.weight") else 0
        if by:
            rows, cols = tensor["shape"]
            start = tensor["data_offsets"][0] // 2
            for row in range(rows):
                if row % HEAD % (HEAD // 2) % a.every == 0:
                    for i in range(start + row * cols, start + (row + 1) * cols):
                        weights[i] = scale(weights[i], by)
    with open(os.path.join(a.out, "model.safetensors"), "wb") as f:
        f.write(size + header + weights.tobytes())


if __name__ == "__main__":
    main()
