"""ropewalk eval: one small sample of every measure, several policies side by side."""
import json
import os
import subprocess
import tempfile
import unittest

import harness
from harness import BIN, MODEL

POLICIES = ["bf16", "tq:k=4,v=4", "tq:k=2,v=2"]
TASK = [
    {"prompt": "The secret number for amber falcon is 48213. The road was long.\n"
               "Question: What is the secret number for amber falcon?\nAnswer:",
     "answers": ["48213."], "scorer": "exact", "max_new_tokens": 12},
    {"prompt": "Once upon a time", "answers": ["zebra crossing"], "scorer": "f1", "max_new_tokens": 4},
]


def run(*arguments):
    return subprocess.run([f"{BIN}/ropewalk", "eval", *arguments], capture_output=True, timeout=280)


class Eval(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def test_every_measure_in_one_json_object(self):
        task = self.write("task.jsonl", "\n".join(json.dumps(item) for item in TASK))
        done = run("--model", MODEL, "--kv", ";".join(POLICIES[:2]), "--kv", POLICIES[2], "--json", "--threads", "2",
                   "--text", f"{MODEL}/haystack.txt", "--max-tokens", "512", "--window", "512", "--logits",
                   "--needle", "1K", "--depths", "1", "--task", task)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, b"")
        result = json.loads(done.stdout)
        self.assertEqual([p["policy"] for p in result["policies"]], POLICIES)
        self.assertEqual(result["text"]["tokens"], 512)
        self.assertEqual(result["needle"]["lengths"], [1024])
        self.assertEqual(result["task"]["questions"], 2)
        exact, fine, coarse = result["policies"]
        self.assertEqual(exact["bytes_per_token"], 6144)
        self.assertEqual(fine["bytes_per_token"], 2 * 6 * 2 * (64 + 2))
        self.assertEqual(fine["bits_per_element"], {"k": 4.125, "v": 4.125})
        self.assertLess(coarse["bytes_per_token"], fine["bytes_per_token"])

        self.assertEqual(exact["text"]["tokens"], 512)
        self.assertTrue(2.0 < exact["text"]["nats_per_token"] < 5.0, exact["text"])
        self.assertLess(abs(fine["text"]["nats_per_token"] - exact["text"]["nats_per_token"]), 0.02)
        self.assertEqual(exact["logits"]["kl"], 0)
        self.assertEqual(exact["logits"]["top10"], 1)
        for name in ("abs_error", "kl"):
            self.assertTrue(0 < fine["logits"][name] < coarse["logits"][name], name)
        for name in ("top1", "top10"):
            self.assertTrue(0.5 < coarse["logits"][name] < fine["logits"][name] < 1, name)
        for name in ("offsets", "pairs"):
            errors = [p["logits"]["attention_mae"][name] for p in result["policies"]]
            self.assertEqual([len(e) for e in errors], [6, 6, 6])
            for a, b, c in zip(*errors):
                self.assertTrue(0 < 5 * a < b < c / 2, (name, a, b, c))

        self.assertEqual(exact["needle"]["right"], [[1]])
        self.assertEqual(fine["needle"]["right"], [[1]])
        self.assertEqual(exact["task"]["score"], 0.5)
        self.assertEqual(fine["task"]["score"], 0.5)

    def test_tables_begin_with_the_true_bytes(self):
        task = self.write("task.jsonl", json.dumps(TASK[0]))
        done = run("--model", MODEL, "--kv", "tq:k=3,v=2", "--task", task)
        self.assertEqual(done.returncode, 0, done.stderr)
        row = done.stdout.decode().splitlines()[-1].split()
        self.assertEqual(row, ["1008.0", "3.125,", "2.125", "tq:k=3,v=2", "1.0000"])

    def check_refused(self, *arguments, names, status=2):
        done = run(*arguments)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(names, done.stderr.decode())

    def test_errors_name_what_is_wrong(self):
        task = self.write("task.jsonl", json.dumps(TASK[0]) + '\n{"prompt": "a", "answers": ["b"], "scorer": "bleu"}')
        both = ("--model", MODEL, "--kv", "bf16")
        self.check_refused("--kv", "bf16", "--task", task, names="--model")
        self.check_refused("--model", MODEL, "--task", task, names="--kv")
        self.check_refused(*both, names="nothing to measure")
        self.check_refused(*both, "--logits", "--task", task, names="--text")
        self.check_refused("--model", MODEL, "--kv", "bf16;tq:k=9", "--task", task, names="k is 9")
        self.check_refused(*both, "--needle", "4K,x", names="4K,x")
        self.check_refused(*both, "--needle", "256K", names="131072")
        self.check_refused(*both, "--needle", "1K", "--depths", "0", names="--depths is 0")
        self.check_refused(*both, "--text", "/nonexistent", names="/nonexistent", status=1)
        self.check_refused(*both, "--task", task, names="task.jsonl line 2: field 'scorer' is 'bleu'", status=1)
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"--needle", done.stdout)


if __name__ == "__main__":
    harness.main()
