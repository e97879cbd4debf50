"""`ropewalk bench`: its fields, its sums, its errors.  No figure is judged: the machine is shared."""
import json
import os
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

import harness
from harness import BIN, MODEL, MPI_ENVIRONMENT


def run(*arguments):
    return subprocess.run([f"{BIN}/ropewalk", "bench", *arguments], capture_output=True, timeout=100,
                          env={**os.environ, **MPI_ENVIRONMENT})


class Bench(unittest.TestCase):
    def test_attention_puts_policies_side_by_side(self):
        done = run("attention", "--shape", "demo", "--context", "2048", "--kv", "bf16;tq:k=3,v=3;block-gtq:k=3,v=3",
                   "--threads", "1,2", "--seconds", "0", "--device", "cpu", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual([r["threads"] for r in report["read_bandwidth"]], [1, 2])
        self.assertEqual(len(report["results"]), 6)
        for r in report["results"]:
            least, most = {"bf16": (1024, 1024), "tq:k=3,v=3": (200, 200), "block-gtq:k=3,v=3": (150, 200)}[r["policy"]]
            pages = r["bytes"] - 64 * 1024  # the rows of the open block
            self.assertTrue(least <= pages / 2048 <= most, r)
            self.assertIn(r["path"], ("plain", "avx2", "avx512"))
            self.assertTrue(0 < r["p10_us"] <= r["median_us"] <= r["p90_us"])
            self.assertAlmostEqual(r["gb_per_s"], r["bytes"] * 1e-3 / r["median_us"], places=3)
            self.assertGreater(r["share_of_read_bandwidth"], 0)
            if r["policy"] == "bf16":
                self.assertEqual(r["speed_against_bf16"], 1.0)

    def test_prefill_reads_earlier_blocks_as_pages_and_its_own_as_rows(self):
        done = run("prefill", "--shape", "demo", "--context", "256", "--queries", "200", "--kv", "bf16;tq:k=3,v=3",
                   "--fill", "synthetic", "--seconds", "0", "--device", "cpu", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        bf16, tq = json.loads(done.stdout)["results"]
        rows = 200 * 1024
        self.assertEqual(bf16["bytes"], rows + 3 * 128 * 1024)
        self.assertEqual(tq["bytes"], rows + 3 * 128 * 200)
        pairs = sum(256 + i + 1 for i in range(200)) * 4
        self.assertAlmostEqual(tq["tflops"] * tq["median_us"] * 1e6, 4 * 128 * pairs, delta=1e3)

    def test_pack_counts_rows_and_pages(self):
        done = run("pack", "--shape", "demo", "--context", "1024", "--kv", "bf16;tq:k=3,v=3", "--device", "cpu", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        for r, page in zip(json.loads(done.stdout)["results"], (1024, 200)):
            self.assertEqual(r["input_bytes"], 1024 * 1024)
            self.assertEqual(r["page_bytes"], 1024 * page)
            self.assertAlmostEqual(r["input_gb_per_s"], r["input_bytes"] * 1e-3 / r["median_us"], places=3)

    def test_step_gives_every_op_its_share_and_scratch_does_not_grow(self):
        for ranks, policy in (("1", "block-gtq:k=3,v=3"), ("3", "tq:k=3,v=3")):
            done = run("step", "--model", MODEL, "--context", "512", "--prefill-chunk", "128", "--ranks", ranks, "--kv",
                       policy, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual([m["context"] for m in report["memory"]], [512, 4096, 65536])
            self.assertEqual(len({m["scratch_bytes"] for m in report["memory"]}), 1)
            pages = [m["page_bytes"] for m in report["memory"]]
            self.assertTrue(3 * pages[0] < pages[1] and 12 * pages[1] < pages[2], pages)
            self.assertGreater(report["gemm"]["of_library"], 0)
            self.assertEqual([p["phase"] for p in report["phases"]], ["prefill", "decode"])
            for phase in report["phases"]:
                self.assertAlmostEqual(sum(op["share"] for op in phase["ops"]), 1.0, places=6)
                self.assertTrue(all(op["share"] >= 0 for op in phase["ops"]), phase)
                shares = {op["op"]: op["share"] for op in phase["ops"]}
                self.assertTrue({"attention", "gemm", "norm", "turns", "append", "pack", "merge", "exchange", "other"} == set(shares))
                self.assertGreater(shares["gemm"], 0)

    def test_merge_times_dependent_exchanges_of_ranks(self):
        done = run("merge", "--ranks", "2", "--seconds", "0", "--device", "cpu", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual((report["ranks"], report["gpus"], report["absent"]), (2, 0, []))
        sizes = [4, 8, 16, 32, 64, 256, 512, 2048]
        lines = [("none", "nothing"), ("mpi", "merge"), ("mpi", "bare"), ("mpi", "sum"), ("mpi-a2a", "merge")]
        self.assertEqual([(r["transport"], r["what"], r["mode"], r["rows"]) for r in report["results"]],
                         [(*line, "eager", rows) for line in lines for rows in sizes])
        for r in report["results"]:
            self.assertEqual(r["bytes"], r["rows"] * (128 if r["what"] == "sum" else 129) * 4)
            self.assertTrue(0 < r["p50_us"] <= r["p99_us"], r)

    def test_scale_says_what_fits_and_halves_a_ranks_pages(self):
        reports = []
        for ranks, weights in ((1, "replicated"), (2, "replicated"), (2, "split")):
            done = run("scale", "--ranks", str(ranks), "--model", "random:tiny", "--contexts", "256,1K,8M", "--kv",
                       "bf16;tq:k=3,v=3", "--batch", "32", "--weights", weights, "--device", "cpu", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual((report["bench"], report["ranks"], report["weights"], report["merge"]),
                             ("scale", ranks, weights, "self" if ranks == 1 else "mpi"))
            reports.append(report)
        all_of_them, replicated, split = (report["weight_bytes"] for report in reports)
        self.assertEqual(replicated, all_of_them)
        self.assertTrue(all_of_them / 2 < split < 0.8 * all_of_them, split)  # q, k and v are on both
        for report in reports:
            ranks = report["ranks"]
            self.assertEqual([(r["policy"], r["context"]) for r in report["rows"]],
                             [(policy, n) for policy in ("bf16", "tq:k=3,v=3") for n in (256, 1024, 1 << 23)])
            for r in report["rows"]:
                bytes_per_token = {"bf16": 1024, "tq:k=3,v=3": 208}[r["policy"]]
                self.assertEqual(r["page_bytes"], bytes_per_token * r["context"] * 32 // ranks)
                self.assertGreater(r["cache_bytes"], r["page_bytes"])
                self.assertEqual(r["fits"], r["cache_bytes"] <= report["room_bytes"])
                self.assertEqual("step_ms" in r, r["fits"])
                if r["fits"]:
                    self.assertTrue(0 < r["p10_ms"] <= r["step_ms"] <= r["p90_ms"], r)
                    self.assertAlmostEqual(r["tokens_per_s_per_rank"] * r["step_ms"] * ranks, 32000, places=1)
            self.assertTrue(report["rows"][0]["fits"])
            for p in report["policies"]:
                held = p["largest_context"] * p["bytes_per_token"] * 32 / ranks
                self.assertTrue(0.9 * report["room_bytes"] < held < report["room_bytes"], (p, report["room_bytes"]))

    def test_scale_times_chunks_of_prompts_and_adds_them_up(self):
        """And all of them, and part by part."""
        for ranks, policy in (("1", "kivi:k=2,v=2"), ("3", "tq:k=3,v=3")):
            done = run("scale", "--prefill", "--whole", "--parts", "--prefill-chunk", "256", "--ranks", ranks, "--model",
                       MODEL, "--contexts", "200,2K,2100", "--kv", policy, "--device", "cpu", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual(report["prefill_chunk"], 256)
            rows = report["prefill"]
            self.assertEqual([(r["policy"], r["context"]) for r in rows],
                             [(policy, n) for n in (200, 2048, 2100)])
            self.assertEqual([(t["position"], t["tokens"]) for r in rows for t in r["timed"]],
                             [(0, 200), (0, 256), (512, 256), (1024, 256), (1280, 256), (1792, 256),
                              (0, 256), (512, 256), (1024, 256), (1280, 256), (1792, 256), (2048, 52)])
            for r in rows:
                self.assertTrue(r["fits"] and r["cache_bytes"] <= report["room_bytes"])
                self.assertGreater(r["whole_ms"], 0)
                self.assertAlmostEqual(r["tokens_per_s"] * r["prefill_ms"] / r["context"], 1000, places=3)
                self.assertAlmostEqual(r["tokens_per_s_per_rank"] * int(ranks), r["tokens_per_s"], places=3)
                for t in r["timed"]:
                    self.assertTrue(t["ms"] > 0 and t["attention"] > 0 and t["gemm"] > 0, t)
                    self.assertEqual(t["exchange"] > 0, ranks == "3")
            a, b, c, d, e = (t["ms"] for t in rows[1]["timed"])  # of eight: 0, 2, 4, 5 and 7
            self.assertAlmostEqual(rows[1]["prefill_ms"], 1.5 * a + 2 * b + 1.5 * c + 1.5 * d + 1.5 * e, places=3)

    def test_scale_refuses_what_it_does_not_know(self):
        done = run("scale", "--merge", "carrier", "--model", "random:tiny", "--contexts", "1K", "--device", "cpu")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--merge is 'carrier', allowed auto, mpi, nccl-ag", done.stderr.decode())

    def test_scale_draws_its_plots(self):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for ranks in (1, 2):
                files.append(f"{folder}/{ranks}.json")
                done = run("scale", "--ranks", str(ranks), "--model", "random:tiny", "--contexts", "1K,2K", "--kv",
                           "bf16", "--prefill", "--device", "cpu", "--json")
                self.assertEqual(done.returncode, 0, done.stderr)
                with open(files[-1], "wb") as file:
                    file.write(done.stdout)
            done = subprocess.run(["/usr/bin/python3", "tests/bench/plot_scale.py", "-o", f"{folder}/scale.svg", *files],
                                  capture_output=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            svg = xml.etree.ElementTree.parse(f"{folder}/scale.svg").getroot()
            lines = svg.findall(".//{http://www.w3.org/2000/svg}polyline")
            # Strong: 1K and 2K over two numbers of ranks.  Weak: 1K a rank.  Prompts of 1K and 2K: seconds, and speed-up.
            self.assertEqual([len(line.get("points").split()) for line in lines], [2] * 7)

    def test_errors_name_what_is_wrong(self):
        for arguments, names in ((("fly",), "fly"), (("attention", "--shape", "huge"), "huge"),
                                 (("attention", "--kv", "tq:k=9"), "k is 9"), (("attention", "--device", "tpu"), "tpu"),
                                 (("step", "--threads", "1,2"), "one policy"), (("step", "--ranks", "0"), "--ranks is 0"),
                                 (("attention", "--device", "cpu", "--paths", "mmx"), "mmx"),
                                 (("pack", "--threads", "1,2", "--device", "cpu"), "one number"),
                                 (("scale", "--contexts", "4K,x"), "4K,x"),
                                 (("scale", "--prefill", "--prefill-chunk", "200"),
                                  "--prefill-chunk is 200, allowed are multiples of 128 up to 8192"),
                                 (("scale", "--prefill-chunk", "8193"), "--prefill-chunk is 8193, allowed 1..8192"),
                                 (("scale", "--whole"), "--whole is of bench scale --prefill"),
                                 (("step", "--prefill"), "--prefill is bench scale's, not bench step's"),
                                 ((), "attention|prefill|pack|step|merge|scale is missing")):
            done = run(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(names, done.stderr.decode())


if __name__ == "__main__":
    harness.main()
