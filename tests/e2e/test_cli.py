"""The command line: its JSON, its errors, its exit status."""
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

import harness
from harness import BIN, MODEL

GOLDEN = json.loads(harness.read("models/demo/golden.json"))["prompts"]


def run(*arguments, stdin=None, timeout=100, environment=None):
    return subprocess.run([f"{BIN}/ropewalk", *arguments], input=stdin, capture_output=True, timeout=timeout,
                          env={**os.environ, **(environment or {})})


class CommandLine(unittest.TestCase):
    def check_usage(self, *arguments, names):
        done = run(*arguments)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(names, done.stderr.decode())

    def test_help_of_every_verb(self):
        self.assertEqual(run("--help").returncode, 0)
        for verb in ("serve", "generate", "tokenize", "inspect", "doctor", "calibrate"):
            done = run(verb, "--help")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"Usage", done.stdout)

    def test_errors_name_what_is_wrong(self):
        self.check_usage(names="usage")
        self.check_usage("fly", names="fly")
        self.check_usage("serve", names="--model")
        self.check_usage("serve", "--model", MODEL, "--ranks", "0", names="--ranks is 0")
        self.check_usage("serve", "--model", MODEL, "--device", "tpu", names="tpu")
        for command in (("serve",), ("generate", "--prompt", "a")):
            self.check_usage(*command, "--model", MODEL, "--merge", "nccl", names="mpi, nccl-ag, nccl-ar, nccl-a2a, lsa")
        self.check_usage("serve", "--bogus", names="--bogus")
        self.check_usage("generate", "--prompt", "a", names="--connect")
        self.check_usage("generate", "--model", MODEL, names="--prompt")
        self.check_usage("generate", "--model", MODEL, "--prompt-ids", "[1,-2]", names="entry 1")
        self.check_usage("tokenize", names="--model")

    def test_a_bad_policy_or_model_reaches_the_user(self):
        done = run("generate", "--model", MODEL, "--kv", "tq:k=9", "--prompt", "a")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"k is 9", done.stderr)
        done = run("inspect", "/nonexistent")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"/nonexistent", done.stderr)

    def test_generate_json_with_its_own_group(self):
        prompt = GOLDEN[1]
        done = run("generate", "--model", MODEL, "--ranks", "2", "--kv", "tq:k=4,v=4", "--json", "--prompt-ids",
                   json.dumps(prompt["input_ids"]), "--max-new-tokens", "4", "--temperature", "0", "--ignore-eos")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["prompt_tokens"], len(prompt["input_ids"]))
        self.assertEqual(len(result["tokens"]), 4)
        self.assertIsInstance(result["text"], str)
        self.assertEqual(result["finish_reason"], "length")
        self.assertEqual(result["ranks"], 2)
        self.assertEqual(result["kv"]["policy"], "tq:k=4,v=4")
        self.assertEqual(result["kv"]["bits_per_element"], {"k": 4.125, "v": 4.125})
        self.assertEqual(result["kv"]["bytes_per_token"], 6 * 2 * 2 * (64 + 2))
        self.assertEqual(result["kv"]["blocks_per_rank"], [1, 1])
        self.assertEqual(result["kv"]["bytes_per_rank"], [128 * 1584] * 2)
        self.assertGreater(result["timing"]["ttft_ms"], 0)
        self.assertIn("tpot_ms", result["timing"])

    def test_ranks_that_share_the_weights_say_what_they_hold_and_give_the_same_tokens(self):
        prompt = GOLDEN[1]
        n = len(prompt["greedy_ids"])
        with tempfile.TemporaryDirectory() as folder:
            held = {}
            for weights in ("replicated", "split"):
                log = f"{folder}/{weights}"
                done = run("generate", "--model", MODEL, "--ranks", "3", "--weights", weights, "--device", "cpu", "--json", "--log", log,
                           "--prompt-ids", json.dumps(prompt["input_ids"]), "--max-new-tokens", str(n), "--temperature", "0", "--ignore-eos")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(json.loads(done.stdout)["tokens"], prompt["greedy_ids"])
                held[weights] = [int(mb) for mb in re.findall("([0-9]+) MB of weights", harness.read(log))]
            self.assertEqual(len(held["split"]), 3)
            self.assertLess(max(held["split"]), min(held["replicated"]))
            done = run("generate", "--model", MODEL, "--ranks", "5", "--weights", "split", "--device", "cpu", "--log", f"{folder}/five",
                       "--prompt", "a")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"num_attention_heads is 4", done.stderr)
        self.check_usage("generate", "--model", MODEL, "--weights", "halved", "--prompt", "a", names="halved")

    def test_a_random_model_takes_ids_and_refuses_text(self):
        arguments = ("generate", "--model", "random:tiny:3", "--rope-scaling", '{"type": "yarn", "factor": 4}',
                     "--json", "--max-new-tokens", "5", "--temperature", "0")
        made = []
        for ranks in ("1", "2"):
            done = run(*arguments, "--ranks", ranks, "--prompt-ids", json.dumps(list(range(300))))
            self.assertEqual(done.returncode, 0, done.stderr)
            made.append(json.loads(done.stdout)["tokens"])
        self.assertEqual(len(made[0]), 5)
        self.assertEqual(made[0], made[1])
        done = run(*arguments, "--prompt", "hello")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"INVALID_ARGUMENT: prompt.text: model 'random:tiny:3' has no tokenizer", done.stderr)

    def test_tokenize_both_ways(self):
        text = GOLDEN[1]["input_text"].encode()
        done = run("tokenize", "--model", MODEL, stdin=text)
        self.assertEqual(json.loads(done.stdout), GOLDEN[1]["input_ids"])
        done = run("tokenize", "--model", MODEL, "--no-special", stdin=text)
        self.assertEqual(json.loads(done.stdout), GOLDEN[1]["input_ids"][1:])
        back = run("tokenize", "--model", MODEL, "--decode", stdin=done.stdout)
        self.assertEqual(back.stdout, text)

    def test_tokenize_llama_2_style(self):
        folder = os.environ.get("ROPEWALK_FIXTURES", "../shared/fixtures") + "/models/stories260K-hd64-bf16"
        if not os.path.exists(folder):
            self.skipTest(f"no {folder} (set ROPEWALK_FIXTURES)")
        done = run("tokenize", "--model", folder, stdin=b"Once upon a time")
        self.assertEqual(json.loads(done.stdout), [1, 403, 407, 261, 378])
        done = run("tokenize", "--model", folder, "--no-special", stdin=b" Once\n\xf0\x9f\x98\x80 ")
        back = run("tokenize", "--model", folder, "--decode", stdin=done.stdout)
        self.assertEqual(back.stdout, b" Once\n\xf0\x9f\x98\x80 ")

    def test_inspect_says_what_a_cache_costs(self):
        info = json.loads(run("inspect", MODEL, "--json").stdout)
        self.assertEqual((info["layers"], info["kv_heads"], info["head_dim"]), (6, 2, 128))
        costs = {c["policy"]: c["bytes_per_token"] for c in info["caches"]}
        self.assertEqual(costs["bf16"], 6144)
        self.assertEqual(costs["tq:k=3,v=3"], 6 * 2 * 100)  # 12 800 bytes a head page of 128 positions
        self.assertIn(b"tq:k=3,v=3", run("inspect", MODEL).stdout)

    def test_calibrate_makes_what_block_gtq_needs(self):
        self.check_usage("calibrate", "--model", MODEL, "-o", "x", names="--text")
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/own.cal"
            done = run("calibrate", "--model", MODEL, "--text", "models/demo/haystack.txt", "--max-tokens", "300",
                       "-o", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, rb"over 300 tokens in [0-9.]+ s, 6224 bytes")
            done = run("generate", "--model", MODEL, "--ranks", "2", "--kv", f"block-gtq:k=3,v=3,calib={path}", "--json",
                       "--prompt-ids", json.dumps(GOLDEN[1]["input_ids"]), "--max-new-tokens", "2")
            self.assertEqual(done.returncode, 0, done.stderr)
            kv = json.loads(done.stdout)["kv"]
            self.assertEqual(kv["policy"], "block-gtq:k=3,v=3")
            self.assertLessEqual(kv["bits_per_element"]["k"], 3.125)  # what tq takes
            self.assertGreater(kv["bits_per_element"]["k"], 3.0)
            done = run("generate", "--model", MODEL, "--kv", f"block-gtq:calib={folder}/none", "--prompt", "a")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"ropewalk calibrate --model", done.stderr)

    def test_programs_that_compute_have_the_cpus_own_gemm(self):
        with open("/proc/cpuinfo") as f:
            knows_avx2 = " avx2 " in f.read()
        with tempfile.TemporaryDirectory() as folder:
            for asked in (None, "Prescott"):  # OpenBLAS's SSE3 code, which it also takes on CPUs it does not know
                environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
                environment.update({} if asked is None else {"OPENBLAS_CORETYPE": asked})

                def output(*arguments):
                    done = subprocess.run([f"{BIN}/ropewalk", *arguments], env=environment, capture_output=True, timeout=100)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    return done.stdout.decode()

                log = f"{folder}/{asked}.log"
                output("generate", "--model", MODEL, "--device", "cpu", "--prompt", "a", "--max-new-tokens", "1", "--log", log)
                library = next(c for c in json.loads(output("doctor", "--json"))["checks"] if c["check"] == "matrix library")
                for says in (harness.read(log), json.dumps(library)):
                    self.assertRegex(says, "OpenBLAS runs its [A-Za-z0-9]+ code")
                    if knows_avx2:
                        self.assertEqual("Prescott code" in says, asked == "Prescott", says)

    def test_why_a_group_ended_is_told_though_it_logs_to_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            for context in ("1000000", "1000001"):  # the second one's log begins with the first one's
                done = run("generate", "--model", "random:tiny", "--max-context", context, "--log", f"{folder}/log",
                           "--prompt-ids", "[1]")
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex(done.stderr.decode(), f"worker rank 0: leaving: .*--max-context {context}, .*--rope-scaling")

    def test_a_group_that_dies_ends_the_call_at_once(self):
        with tempfile.TemporaryDirectory() as folder:
            call = subprocess.Popen([f"{BIN}/ropewalk", "generate", "--model", MODEL, "--device", "cpu", "--log", f"{folder}/log",
                                     "--prompt", "Once", "--max-new-tokens", "100000", "--ignore-eos"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.addCleanup(call.kill)
            call.stdout.read(1)  # a token has come
            worker, = [pid for child in harness.children_of(call.pid) for pid in harness.children_of(child)
                       if harness.command_of(pid).endswith("ropewalk-worker")]
            os.kill(worker, signal.SIGKILL)
            killed = time.monotonic()
            _, errors = call.communicate(timeout=60)
            self.assertEqual(call.returncode, 1)
            self.assertIn(b"the mpirun group ended with status", errors)
            self.assertLess(time.monotonic() - killed, 10)  # the coordinator alone would wait 30 s for another group

    def test_doctor_reports_every_check(self):
        report = json.loads(run("doctor", "--json").stdout)
        names = {c["check"] for c in report["checks"]}
        self.assertTrue({"programs", "mpirun", "memory"} <= names)
        self.assertTrue(all(c["ok"] or c["fix"] for c in report["checks"]))
        self.assertTrue(next(c for c in report["checks"] if c["check"] == "mpirun")["ok"], report)

    def test_doctor_tunes_by_what_it_times(self):
        done = run("doctor", "--tune", "--ranks", "2", "--model", MODEL, "--contexts", "1K,8M", "--device", "cpu",
                   environment=harness.MPI_ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = done.stdout.decode()
        rows = {tuple(line.split()[:2]): line.split()[2:] for line in text.splitlines()[2:4]}
        self.assertEqual(set(rows), {("mpi", "replicated"), ("mpi", "split")})
        fastest = min(rows, key=lambda way: float(rows[way][1]))
        for megabytes, ms, *rest in rows.values():
            self.assertGreater(float(ms), 0)
            self.assertEqual(rest, ["no", "room"])
        self.assertGreater(float(rows["mpi", "replicated"][0]), float(rows["mpi", "split"][0]))
        self.assertIn(f"use: --merge {fastest[0]} --weights {fastest[1]} (1 of 2", text.splitlines()[-1])

        # Seven ranks have no head each: the table says so, and the rest is timed.
        done = run("doctor", "--tune", "--ranks", "7", "--model", "random:tiny", "--contexts", "128", "--device", "cpu",
                   environment=harness.MPI_ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        text = done.stdout.decode()
        self.assertIn("num_attention_heads is 4", text)
        self.assertIn("use: --merge mpi --weights replicated", text)
        for arguments, names in ((("--ranks", "1"), "--ranks is 1, allowed 2..16"),
                                 (("--ranks", "17"), "--ranks is 17, allowed 2..16"),
                                 (("--contexts", "127"), "127"), (("--device", "tpu"), "tpu")):
            self.check_usage("doctor", "--tune", *arguments, names=names)


if __name__ == "__main__":
    harness.main()
