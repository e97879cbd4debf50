"""Needles in a long context over several ranks, under packed caches: the answer is right."""
import os
import subprocess
import tempfile
import unittest

import harness
from harness import Coordinator, Group, generate, request

SECONDS = 250


def haystack(n_bytes, seed):
    """(prompt, answer) made as launch/demo makes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "prompt.txt")
        needles = subprocess.run(["launch/haystack.awk", "-v", f"bytes={n_bytes}", "-v", f"seed={seed}", "-v",
                                  f"prompt={path}", "models/demo/haystack.txt"], capture_output=True, check=True)
        asked = next(line for line in needles.stdout.decode().splitlines() if line.startswith("asked"))
        with open(path) as f:
            return f.read(), asked.split()[-1]


class Needle(unittest.TestCase):
    def check(self, kv, ranks, n_bytes, seeds):
        coordinator = Coordinator()
        group = Group(coordinator, ranks=ranks, kv=kv)
        group.wait_serving(coordinator)
        for seed in seeds:
            text, answer = haystack(n_bytes, seed)
            result = generate(coordinator, request(text=text, temperature=0, max_new_tokens=16), timeout=SECONDS)
            self.assertEqual(result.text.strip(), answer + ".", f"{kv}, seed {seed}")
            self.assertEqual(len(result.finished.kv.blocks_per_rank), ranks)
        group.remove_log()
        coordinator.remove_log()

    def test_four_ranks_tq_4_bits(self):
        self.check("tq:k=4,v=4", 4, 8000, [1, 2, 3])

    def test_two_ranks_bf16(self):
        self.check("bf16", 2, 8000, [4])


if __name__ == "__main__":
    harness.main()
