"""goals.py on reports that are made up: what is met, missed, and not there."""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import goals  # noqa: E402

K, M = 1 << 10, 1 << 20


def link(transport, what, rows, us, mode="graph"):
    return {"transport": transport, "what": what, "rows": rows, "p50_us": us, "mode": mode}


def steps(*rows):
    return {"rows": [{"context": context, "fits": ms is not None, "step_ms": ms, "page_bytes": 2e9} for context, ms in rows]}


REPORTS = {
    "merge-4": {"results": [link("none", "nothing", 32, 0.9), link("none", "nothing", 512, 1.2), link("lsa", "merge", 32, 3.3),
                            link("lsa", "merge", 32, 99.0, "eager"), link("lsa", "merge", 512, 4.5),
                            link("nccl-ag", "bare", 32, 3.0), link("nccl-ag", "merge", 32, 4.9)]},
    "steps-3b-1": steps((128 * K, 2.5)),
    "steps-3b-4": steps((512 * K, 2.5 + 36 * 1.5e-3)),
    "steps-3b-split-4": steps((512 * K, 1.75)),
    "steps-8b-1": steps((M, 10.0)),
    "steps-8b-split-4": steps((M, 3.5)),
    "steps-8b-4": steps((8 * M, None)),
    "prompts-3b-1": {"prefill": [{"context": 512 * K, "fits": True, "prefill_ms": 80000}]},
    "prompts-3b-4": {"prefill": [{"context": 512 * K, "fits": True, "prefill_ms": 20000}]},
}
LINES = [
    "| lsa, exchange and merge, 32 rows | 2.40 us | <= 2.5 us | met |",
    "| lsa, the same within attention: a layer of 3B more than one GPU's | 1.50 us | <= 2.0 us | met |",
    "| lsa, 512 rows | 3.30 us | <= 3.2 us | missed |",
    "| nccl-ag, 32 rows, more than an all-gather alone | 1.90 us | <= 2.0 us | met |",
    "| nccl-a2a, 32 rows, more than an all-gather alone | - | <= 2.0 us |  |",
    "| steps-3b-split, 512K | 1.75 ms | <= 1.6 ms | missed |",
    "| steps-8b-split, 1M | 3.50 ms | <= 3.8 ms | met |",
    "| the same, times as fast as one GPU | 2.86 x | >= 3.0 x | missed |",
    "| prompt of 512K, 3B, times as fast as one GPU | 4.00 x | >= 3.3 x | met |",
    "| steps-8b, 8M: ms a token | - |  |  |",
]


def table(reports):
    with tempfile.TemporaryDirectory() as folder:
        for name, report in reports.items():
            with open(os.path.join(folder, f"{name}.json"), "w") as file:
                json.dump(report, file)
        out = io.StringIO()
        with mock.patch.object(sys, "argv", ["goals.py", folder]), contextlib.redirect_stdout(out):
            goals.main()
        return out.getvalue().splitlines()


class Goals(unittest.TestCase):
    def test_what_is_met_and_missed(self):
        lines = table(REPORTS)
        for line in LINES:
            self.assertIn(line, lines)

    def test_without_reports_nothing_is_said(self):
        lines = table({})[2:]
        self.assertEqual(len(lines), len(table(REPORTS)) - 2)
        for line in lines:
            self.assertIn("| - |", line)


if __name__ == "__main__":
    unittest.main()
