"""A rank dies, hangs, or the coordinator goes: who notices, how fast, and what goes on."""
import glob
import os
import re
import signal
import subprocess
import threading
import time
import unittest

import harness
from harness import (BIN, Coordinator, Group, Process, code_of, exists, generate, grpc, request, wait_until)


GONE = 2.0  # ENGINE_GONE_MS
LEAST_DEADLINE = 1.2  # ENGINE_MIN_STEP_MS


def promised(log):
    """How long it may take until all ranks are gone: the log says what deadline passed.  Only a step that was
    expected to take more than a quarter of the least one has more."""
    deadlines = [int(ms) / 1000 for ms in re.findall(r"not all ranks answered in (\d+) ms", log)]
    return GONE + max([0.0, *(d - LEAST_DEADLINE for d in deadlines)])


def started_stream(coordinator, **fields):
    stream = coordinator.inference.Generate(
        request(text="Once upon a time", ignore_eos=True, temperature=0, **fields), timeout=60)
    ids = []
    for event in stream:
        if event.WhichOneof("event") == "tokens":
            ids.extend(event.tokens.ids)
            return stream, ids
    raise AssertionError("no tokens")


class RankDies(unittest.TestCase):
    def check(self, ranks, victim, how, busy):
        coordinator = Coordinator("--wait-for-group-ms", "60000")
        group = Group(coordinator, ranks=ranks)
        group.wait_serving(coordinator)
        pids = group.worker_pids()
        self.assertEqual(len(pids), ranks)
        want = generate(coordinator, request(text="Once upon a time", temperature=0, max_new_tokens=400,
                                             ignore_eos=True)).ids
        stream, ids = (started_stream(coordinator, max_new_tokens=400) if busy else (None, []))

        os.kill(pids[victim], how)
        started = time.monotonic()
        status = group.wait(10)
        took = time.monotonic() - started
        self.assertNotEqual(status, 0)
        self.assertLess(took, promised(group.output()), group.output())
        wait_until(lambda: not any(exists(p) for p in pids), 2, "no rank is left")
        wait_until(lambda: not coordinator.serving(), 3, "health turns NOT_SERVING")
        self.assertTrue(coordinator.running())

        again = Group(coordinator, ranks=ranks)
        again.wait_serving(coordinator)
        if busy:  # the client's stream goes on with the tokens it would have got
            for event in stream:
                if event.WhichOneof("event") == "tokens":
                    ids.extend(event.tokens.ids)
            self.assertEqual(ids, want)
        self.assertEqual(generate(coordinator, request(text="Once upon a time", temperature=0, max_new_tokens=400,
                                                       ignore_eos=True)).ids, want)
        again.remove_log()
        group.remove_log()
        coordinator.remove_log()

    def test_kill_of_a_rank_in_decode(self):
        self.check(3, 2, signal.SIGKILL, True)

    def test_kill_of_rank_0_while_idle(self):
        self.check(2, 0, signal.SIGKILL, False)

    def test_a_stopped_rank_is_noticed(self):
        self.check(3, 1, signal.SIGSTOP, True)


class NobodyReadsTheLog(unittest.TestCase):
    def test_a_rank_leaves_all_the_same(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with self.assertRaises(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        worker = subprocess.Popen([f"{BIN}/ropewalk-worker", "--coordinator", "127.0.0.1:1", "--model", "/nowhere",
                                   "--log-level", "error"], stdout=subprocess.DEVNULL, stderr=writer,
                                  env={**os.environ, **harness.MPI_ENVIRONMENT})
        self.addCleanup(worker.kill)
        self.assertNotEqual(worker.wait(timeout=10), 0)
        os.close(reader)
        os.close(writer)


class ClientsAreTold(unittest.TestCase):
    """One of three ranks is killed or stopped in a step: within the time promised no rank and no mpirun is left, health says
    NOT_SERVING, and the client has its status."""

    PROMPT = [10 + i * 7 % 500 for i in range(30000)]  # some seconds of prefill

    def check(self, victim, how, fields, first):
        coordinator = Coordinator("--wait-for-group-ms", "0")
        group = Group(coordinator, ranks=3)
        group.wait_serving(coordinator)
        pids = group.worker_pids()
        # The first steps of a kind have half a minute.
        generate(coordinator, request(ids=self.PROMPT[:2000], max_new_tokens=8, ignore_eos=True))
        stream = coordinator.inference.Generate(request(ignore_eos=True, **fields), timeout=60)
        self.assertIn(first, (event.WhichOneof("event") for event in stream))
        kinds, told = [], []

        def read():
            try:
                kinds.extend(event.WhichOneof("event") for event in stream)
            except grpc.RpcError as error:
                told.append(error.code())

        reader = threading.Thread(target=read)
        reader.start()
        os.kill(pids[victim], how)
        started = time.monotonic()
        wait_until(lambda: not (any(map(exists, pids)) or group.running() or coordinator.serving() or reader.is_alive()),
                   20, "all are gone, and told\n" + group.output())
        took = time.monotonic() - started
        reader.join()
        self.assertEqual(told, [grpc.StatusCode.UNAVAILABLE])
        self.assertTrue(set(kinds) <= {first}, "the step was not the one that was meant")
        self.assertLess(took, promised(group.output()), group.output())
        if how == signal.SIGSTOP:
            self.assertIn("leaving: a rank stopped answering", group.output())
        group.remove_log()
        coordinator.remove_log()

    def in_decode(self, victim, how):
        self.check(victim, how, {"text": "Once upon a time", "max_new_tokens": 3000}, "tokens")

    def in_prefill(self, victim, how):
        self.check(victim, how, {"ids": self.PROMPT, "max_new_tokens": 1}, "prefill")

    def test_kill_in_decode(self):
        self.in_decode(1, signal.SIGKILL)

    def test_stop_in_decode(self):
        self.in_decode(2, signal.SIGSTOP)

    def test_stop_of_rank_0_in_decode(self):
        self.in_decode(0, signal.SIGSTOP)

    def test_kill_in_prefill(self):
        self.in_prefill(2, signal.SIGKILL)

    def test_stop_in_prefill(self):
        self.in_prefill(1, signal.SIGSTOP)

    def test_stop_of_rank_0_in_prefill(self):
        self.in_prefill(0, signal.SIGSTOP)


    def test_stop_under_serve(self):
        serve = Process(f"{BIN}/ropewalk", "serve", "--model", harness.MODEL, "--ranks", "3", "--listen", "127.0.0.1:0")
        wait_until(lambda: "serving " in serve.output(), 60, "serve is ready\n" + serve.output())
        target = re.search(r"serving .* on ([^,]*),", serve.output()).group(1)
        pids = [p for child in harness.children_of(serve.pid) for p in harness.children_of(child)]
        self.assertEqual(len(pids), 3)
        client = Process(f"{BIN}/ropewalk", "generate", "--connect", target, "--prompt", "Once upon a time",
                         "--ignore-eos", "--max-new-tokens", "30000")
        wait_until(lambda: len(client.output()) > 200, 60, "tokens come\n" + client.output())
        os.kill(pids[1], signal.SIGSTOP)
        started = time.monotonic()
        wait_until(lambda: not (any(map(exists, pids)) or serve.running() or client.running()), 20, "all are gone")
        took = time.monotonic() - started
        self.assertLess(took, promised(serve.output()), serve.output())
        self.assertIn("UNAVAILABLE: no worker group", client.output())
        client.remove_log()
        serve.remove_log()


class Others(unittest.TestCase):
    def test_kill_of_mpirun_leaves_no_orphan(self):
        coordinator = Coordinator()
        group = Group(coordinator, ranks=3)
        group.wait_serving(coordinator)
        pids = group.worker_pids()
        os.kill(group.pid, signal.SIGKILL)
        wait_until(lambda: not any(exists(p) for p in pids), 5, "no rank is left")
        wait_until(lambda: not coordinator.serving(), 3, "health turns NOT_SERVING")
        group.remove_log()
        coordinator.remove_log()

    def test_without_a_group_calls_are_unavailable(self):
        coordinator = Coordinator()
        self.assertFalse(coordinator.serving())
        code, text = code_of(lambda: generate(coordinator, request(text="a")))
        self.assertEqual(code, grpc.StatusCode.UNAVAILABLE)
        self.assertIn("group", text)
        coordinator.remove_log()

    def test_workers_stay_warm_and_redial_a_new_coordinator(self):
        first = Coordinator()
        group = Group(first, ranks=2)
        group.wait_serving(first)
        port = first.attach_port
        first.child.kill()
        first.wait(5)
        time.sleep(0.5)
        self.assertTrue(group.running(), group.output())
        second = Coordinator(attach=f"127.0.0.1:{port}")
        group.wait_serving(second, 15)
        self.assertEqual(len(generate(second, request(text="Once", max_new_tokens=3, ignore_eos=True)).ids), 3)
        group.remove_log()
        first.remove_log()
        second.remove_log()

    def test_another_policy_is_refused_while_one_is_attached(self):
        coordinator = Coordinator()
        group = Group(coordinator, ranks=2)
        group.wait_serving(coordinator)
        other = Group(coordinator, ranks=1, kv="tq:k=4,v=4")
        wait_until(lambda: "policy" in other.output() and "refuse" in other.output().lower() or not other.running(),
                   20, "the other group is told\n" + other.output())
        self.assertEqual(coordinator.info().groups, 1)
        other.remove_log()
        group.remove_log()
        coordinator.remove_log()

    def test_sigterm_lets_a_running_stream_end(self):
        coordinator = Coordinator("--grace-ms", "20000")
        group = Group(coordinator, ranks=2)
        group.wait_serving(coordinator)
        stream, ids = started_stream(coordinator, max_new_tokens=300)
        coordinator.child.send_signal(signal.SIGTERM)

        def refused():  # a call that comes before the signal is still served
            try:
                generate(coordinator, request(text="a", max_new_tokens=1), 2)
                return False
            except grpc.RpcError as error:
                return error.code() == grpc.StatusCode.UNAVAILABLE

        wait_until(refused, 5, "new calls are refused")
        for event in stream:
            if event.WhichOneof("event") == "tokens":
                ids.extend(event.tokens.ids)
        self.assertEqual(len(ids), 300)
        self.assertEqual(coordinator.wait(10), 0)
        group.remove_log()
        coordinator.remove_log()

    def test_serve_ends_all_it_started(self):
        serve = Process(f"{BIN}/ropewalk", "serve", "--model", harness.MODEL, "--ranks", "2",
                        "--listen", "127.0.0.1:0")
        wait_until(lambda: "serving " in serve.output(), 60, "serve is ready\n" + serve.output())
        pids = [p for child in harness.children_of(serve.pid) for p in [child, *harness.children_of(child)]]
        self.assertGreaterEqual(len(pids), 4)
        self.assertEqual(serve.end(), 0, serve.output())
        wait_until(lambda: not any(exists(p) for p in pids), 3, "nothing is left")
        serve.remove_log()

    def test_kill_of_serve_leaves_no_orphan(self):
        files = "/tmp/ropewalk-ports-*"
        before = set(glob.glob(files))
        serve = Process(f"{BIN}/ropewalk", "serve", "--model", harness.MODEL, "--ranks", "2",
                        "--listen", "127.0.0.1:0")
        wait_until(lambda: "serving " in serve.output(), 60, "serve is ready\n" + serve.output())
        pids = [p for child in harness.children_of(serve.pid) for p in [child, *harness.children_of(child)]]
        os.kill(serve.pid, signal.SIGKILL)
        wait_until(lambda: not any(exists(p) for p in pids), 15, "nothing is left")
        port = re.search(r"serving .* on [^,]*:(\d+),", serve.output()).group(1)
        left = [path for path in set(glob.glob(files)) - before if harness.read(path).startswith(port + " ")]
        self.assertEqual(left, [])
        serve.remove_log()


if __name__ == "__main__":
    harness.main()
