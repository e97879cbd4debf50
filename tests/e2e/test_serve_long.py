"""tests/bench/serve_long.py in small: what it measures of a group, a number found beyond one rank's pages, and that it fails."""
import json
import os
import subprocess
import sys
import unittest

import harness

PROGRAM = "tests/bench/serve_long.py"
NEEDLE = ("needle", "--ranks", "3", "--kv", "tq:k=4,v=4", "--tokens", "3000", "--depths", "1")


def run(*argv, seconds=200):
    """(exit status, standard output, standard error)"""
    done = subprocess.run([sys.executable, PROGRAM, *argv], capture_output=True, text=True, timeout=seconds,
                          env={**os.environ, "ROPEWALK_BIN": harness.BIN, "ROPEWALK_STUBS": harness.STUBS})
    return done.returncode, done.stdout, done.stderr


class ServeLong(unittest.TestCase):
    def test_prompt(self):
        status, out, error = run("prompt", "--ranks", "2", "--model", "random:tiny", "--kv", "tq:k=4,v=4", "--tokens", "2K",
                                 "--new", "16", "--json", "--", "--threads", "1", "--weights", "split")
        self.assertEqual(status, 0, error)
        r = json.loads(out)
        self.assertEqual((r["ranks"], r["exchange"], r["policy"]), (2, "mpi", "tq:k=4,v=4"))
        self.assertEqual((r["prompt_tokens"], r["new_tokens"]), (2048, 16))
        self.assertGreater(r["ttft_ms"], r["tpot_ms"])
        self.assertGreaterEqual(r["tpot_p99_ms"], r["tpot_ms"])
        page = 128 * 2 * 2 * 2 * (64 * 4 // 8 + 2)  # K and V of 2 layers and 2 heads: codes and a norm
        self.assertEqual(r["page_bytes_per_rank"], [9 * page, 8 * page])
        self.assertGreaterEqual(min(r["pool_bytes_per_rank"]), 9 * page)
        whole = 2 * (512 * 128 + 128 + 2 * (2 * 128 * 256 + 2 * 128 * 128 + 3 * 128 * 256 + 2 * 128))  # bf16
        for weights in r["weight_bytes_per_rank"]:
            self.assertLess(weights, 0.8 * whole)
        self.assertGreater(sum(r["weight_bytes_per_rank"]), whole)

    def test_a_needle_beyond_one_rank(self):
        status, out, error = run(*NEEDLE)
        self.assertEqual(status, 0, out + error)
        self.assertIn("blocks of ranks [8, 8, 7]", out)
        self.assertIn("one rank alone, with as many pages: prompt.text has more than max_context 1152 tokens", out)
        self.assertEqual(out.count(" found\n"), 2)

    def test_it_fails_where_one_rank_holds_the_prompt(self):
        status, out, error = run(*NEEDLE, "--pages", "24")
        self.assertEqual(status, 1, out + error)
        self.assertIn("FAILED: one rank alone did not refuse", error)

    def test_it_says_how_far_it_came(self):
        status, _, error = run("prompt", "--ranks", "2", "--model", "random:tiny", "--tokens", "100K", "--seconds", "3")
        self.assertEqual(status, 1, error)
        self.assertRegex(error, r"FAILED: DEADLINE_EXCEEDED \d+\.\d s after the call, [1-9]\d+ tokens of the prompt and 0 of the answer")

    def test_a_group_that_is_there_already(self):
        coordinator = harness.Coordinator()
        address = f"127.0.0.1:{coordinator.listen_port}"
        status, _, error = run("needle", "--connect", address)
        self.assertEqual(status, 1)
        self.assertIn("FAILED: UNAVAILABLE: no worker group is attached", error)
        group = harness.Group(coordinator, ranks=2)
        group.wait_serving(coordinator)
        status, out, error = run("needle", "--tokens", "1000", "--depths", "2", "--connect", address)
        self.assertEqual(status, 0, out + error)
        self.assertEqual(out.count(" found\n"), 2)
        self.assertTrue(group.running())
        group.remove_log()
        coordinator.remove_log()


if __name__ == "__main__":
    harness.main()
