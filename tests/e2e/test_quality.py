"""The orders that policies must keep, on a small sample: fewer bits cost more, and uneven keys need block-gtq.

The numbers themselves are in docs/quality.md with their commands; here no number of a policy is written down."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import harness
from harness import BIN, MODEL

# Name, text with the bits, and the bits from fine to coarse.
FAMILIES = [
    ("tq", "tq:k={0},v={0}", (4, 3, 2)),
    ("block-gtq", "block-gtq:k={0},v={0}", (4, 3, 2)),
    ("kivi", "kivi:k={0},v={0},w=0", (4, 2)),
]
REFERENCE = "block-gtq:k=3,v=3,paper=1"
TEXT = f"{MODEL}/haystack.txt"
SAMPLE = ["--text", TEXT, "--max-tokens", "384", "--window", "384", "--logits", "--needle", "256", "--depths", "1"]


def ropewalk(*arguments):
    return subprocess.run([f"{BIN}/ropewalk", *arguments], capture_output=True, timeout=280)


def evaluate(model, policies, *arguments):
    done = ropewalk("eval", "--json", "--threads", "2", "--model", model, "--kv", ";".join(policies), *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["policies"]


def known_families():
    """Those that this build names when asked for one that does not exist, but bf16."""
    error = ropewalk("eval", "--model", MODEL, "--kv", "?", "--text", TEXT).stderr.decode()
    return error.split("known are ")[1].strip().split(", ")[1:]


class Quality(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.known = known_families()
        cls.families = [[text.format(bits) for bits in widths] for name, text, widths in FAMILIES if name in cls.known]
        policies = ["bf16", REFERENCE] + [policy for family in cls.families for policy in family]

        twin = os.path.join(cls.folder.name, "uneven")
        subprocess.run([sys.executable, f"{MODEL}/uneven.py", twin], check=True)
        calibration = os.path.join(twin, "ropewalk", "block-gtq.cal")  # in a folder that is not there yet
        done = ropewalk("calibrate", "--model", twin, "--text", TEXT, "--max-tokens", "512", "-o", calibration)
        assert done.returncode == 0, done.stderr
        cls.even = dict(zip(policies, evaluate(MODEL, policies, *SAMPLE)))
        cls.uneven = dict(zip(policies, evaluate(twin, policies, *SAMPLE)))

    def test_no_family_of_policies_is_left_out(self):
        self.assertLessEqual(set(self.known), {name for name, _, _ in FAMILIES})

    def test_bf16_says_what_the_reference_says(self):
        with open(f"{MODEL}/golden.json") as f:
            prompts = json.load(f)["prompts"]
        task = os.path.join(self.folder.name, "golden.jsonl")
        with open(task, "w") as f:
            for prompt in prompts:
                said = prompt["greedy_text"].split("\n")[0]  # the reference goes on after <|eos|>
                f.write(json.dumps({"prompt": prompt["input_text"], "answers": [said.strip()], "scorer": "exact",
                                    "max_new_tokens": len(prompt["greedy_ids"])}) + "\n")
        self.assertEqual(evaluate(MODEL, ["bf16"], "--task", task)[0]["task"]["score"], 1)
        for measured in (self.even, self.uneven):
            self.assertEqual(measured["bf16"]["logits"]["kl"], 0)
            self.assertEqual(measured["bf16"]["needle"]["right"], [[1]])
        nats = [measured["bf16"]["text"]["nats_per_token"] for measured in (self.even, self.uneven)]
        self.assertLess(abs(nats[0] - nats[1]), 0.001)  # the twin is the same function

    def test_more_bits_are_closer_to_bf16_in_every_family(self):
        for measured in (self.even, self.uneven):
            for family in self.families:
                for fine, coarse in zip(family, family[1:]):
                    a, b = measured[fine], measured[coarse]
                    self.assertGreater(a["bytes_per_token"], b["bytes_per_token"])
                    for name in ("kl", "abs_error"):
                        self.assertLess(a["logits"][name], b["logits"][name], (name, fine, coarse))
                    self.assertGreater(a["logits"]["top10"], b["logits"]["top10"], (fine, coarse))

    def test_four_bits_find_the_needle(self):
        for family in self.families:
            self.assertEqual(self.even[family[0]]["needle"]["right"], [[1]], family[0])

    def test_on_uneven_keys_block_gtq_beats_tq_of_more_bytes(self):
        for bits in (3, 2):
            block, tq = self.uneven[f"block-gtq:k={bits},v={bits}"], self.uneven[f"tq:k={bits + 1},v={bits + 1}"]
            self.assertLess(block["bytes_per_token"], tq["bytes_per_token"])
            self.assertLess(block["logits"]["kl"], tq["logits"]["kl"], bits)
        self.assertEqual(self.uneven["block-gtq:k=4,v=4"]["needle"]["right"], [[1]])

    def test_block_gtq_wins_layers_against_tq(self):
        """Of uneven keys all, at the same nominal and true bits.  Of even ones the reference wins all at nominal bits,
        which are more true bits; in the bytes of tq the mean is better, and most layers are."""
        for bits in (4, 3, 2):
            block, tq = (self.even[f"{name}:k={bits},v={bits}"]["bytes_per_token"] for name in ("block-gtq", "tq"))
            self.assertLessEqual(block, tq)
        for measured, uneven in ((self.even, False), (self.uneven, True)):
            for policy in ("block-gtq:k=3,v=3", REFERENCE):
                for measure in ("offsets", "pairs"):
                    against = measured[policy]["logits"]["against_tq"][measure]
                    least = 6 if uneven or policy == REFERENCE else 4
                    self.assertGreaterEqual(against["nominal"]["layers_won"], least, (policy, measure))
                    self.assertGreater(against["nominal"]["cut"], 0)
                    if uneven:
                        self.assertEqual(against["true_bits"]["layers_won"], 6, (policy, measure))
                        self.assertGreater(against["true_bits"]["cut"], 0)
        tq = self.even["tq:k=4,v=4"]["logits"]["against_tq"]
        self.assertEqual(tq, {m: {"nominal": None, "true_bits": None} for m in ("offsets", "pairs")})

    def test_serving_refuses_the_reference_by_name(self):
        done = ropewalk("bench", "step", "--model", MODEL, "--kv", REFERENCE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("block-gtq:paper", done.stderr.decode())


if __name__ == "__main__":
    harness.main()
