"""What a client gets when it asks for too much, gives up, or comes with two hundred others."""
import threading
import time
import unittest

import harness
from harness import Coordinator, Group, code_of, generate, grpc, request, wait_until


class Limits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.coordinator = Coordinator("--max-waiting", "4")
        cls.group = Group(cls.coordinator, "--max-batch", "2", "--max-context", "2048", ranks=2, kv="tq:k=4,v=4")
        cls.group.wait_serving(cls.coordinator)

    @classmethod
    def tearDownClass(cls):
        cls.group.remove_log()
        cls.coordinator.remove_log()

    def free_blocks(self):
        return sum(self.coordinator.info().blocks_free_per_rank)

    def all_blocks(self):
        return sum(self.coordinator.info().blocks_total_per_rank)

    def wait_idle(self):
        wait_until(lambda: self.free_blocks() == self.all_blocks() and self.coordinator.info().running == 0,
                   10, "all blocks are free again")

    def start(self, **fields):
        """A stream that has begun to give tokens."""
        stream = self.coordinator.inference.Generate(
            request(text="Once upon a time", ignore_eos=True, **fields), timeout=60)
        for event in stream:
            if event.WhichOneof("event") == "tokens":
                return stream
        raise AssertionError("no tokens")

    def test_bad_fields_are_named(self):
        cases = [
            (request(), "prompt"),
            (request(text="a", temperature=-1), "temperature"),
            (request(text="a", top_p=1.5), "top_p"),
            (request(text="a", min_p=float("nan")), "min_p"),
            (request(text="a", repetition_penalty=0), "repetition_penalty"),
            (request(text="a", max_new_tokens=0), "max_new_tokens"),
            (request(text="a", logprobs=21), "logprobs"),
            (request(text="a", stop=[""]), "stop"),
            (request(text="a", stop=["x"] * 17), "stop"),
            (request(ids=[]), "token_ids"),
            (request(ids=[4096]), "4096"),
            (request(text="a", request_id="x" * 129), "request_id"),
        ]
        for r, name in cases:
            code, text = code_of(lambda: generate(self.coordinator, r))
            self.assertEqual(code, grpc.StatusCode.INVALID_ARGUMENT, text)
            self.assertIn(name, text)
        self.wait_idle()

    def test_a_wrong_model_name_is_not_found(self):
        code, text = code_of(lambda: generate(self.coordinator, request(text="a", model="gpt")))
        self.assertEqual(code, grpc.StatusCode.NOT_FOUND)
        self.assertIn("gpt", text)

    def test_too_long_names_the_limit(self):
        code, text = code_of(lambda: generate(self.coordinator, request(ids=[5] * 2000, max_new_tokens=49)))
        self.assertEqual(code, grpc.StatusCode.OUT_OF_RANGE)
        self.assertIn("2048", text)
        fits = generate(self.coordinator, request(ids=[5] * 2000, max_new_tokens=48, ignore_eos=True))
        self.assertEqual(fits.finished.usage.new_tokens, 48)

    def test_cancel_frees_the_blocks(self):
        stream = self.start(max_new_tokens=1500)
        before = self.coordinator.info()
        self.assertEqual(before.running, 1)
        self.assertLess(self.free_blocks(), self.all_blocks())
        stream.cancel()
        started = time.monotonic()
        self.wait_idle()
        self.assertLess(time.monotonic() - started, 2)
        self.assertEqual(self.coordinator.info().requests_cancelled, before.requests_cancelled + 1)

    def test_a_deadline_ends_the_stream_and_frees_the_blocks(self):
        code, _ = code_of(lambda: generate(
            self.coordinator, request(text="Once", max_new_tokens=1900, ignore_eos=True), timeout=0.5))
        self.assertEqual(code, grpc.StatusCode.DEADLINE_EXCEEDED)
        self.wait_idle()

    def test_a_full_queue_is_resource_exhausted(self):
        running = [self.start(max_new_tokens=1900), self.start(max_new_tokens=1900)]  # --max-batch 2
        waiting = [self.coordinator.inference.Generate(request(text="a", max_new_tokens=1), timeout=60)
                   for _ in range(4)]
        wait_until(lambda: self.coordinator.info().waiting == 4, 10, "four requests wait")
        code, text = code_of(lambda: generate(self.coordinator, request(text="a", max_new_tokens=1)))
        self.assertEqual(code, grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn("4", text)
        for stream in running:
            stream.cancel()
        for stream in waiting:  # none was lost
            self.assertEqual(harness.Result(stream).finished.usage.new_tokens, 1)
        self.wait_idle()

    def test_a_waiting_request_can_be_cancelled(self):
        running = [self.start(max_new_tokens=1900), self.start(max_new_tokens=1900)]
        waiting = self.coordinator.inference.Generate(request(text="a", max_new_tokens=1), timeout=60)
        wait_until(lambda: self.coordinator.info().waiting == 1, 10, "one request waits")
        waiting.cancel()
        wait_until(lambda: self.coordinator.info().waiting == 0, 5, "it waits no more")
        for stream in running:
            stream.cancel()
        self.wait_idle()


class Crowd(unittest.TestCase):
    def test_two_hundred_streams(self):
        coordinator = Coordinator("--max-waiting", "400")
        group = Group(coordinator, "--max-batch", "16", "--max-context", "1024", ranks=2)
        group.wait_serving(coordinator)
        want = generate(coordinator, request(text="Once upon a time there was a", temperature=0, max_new_tokens=6,
                                             ignore_eos=True)).ids
        results, errors = [], []

        def one():
            try:
                results.append(generate(coordinator, request(
                    text="Once upon a time there was a", temperature=0, max_new_tokens=6, ignore_eos=True)).ids)
            except Exception as error:  # a thread's failure must reach the test
                errors.append(error)

        threads = [threading.Thread(target=one) for _ in range(200)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(errors, [])
        self.assertEqual(results, [want] * 200)
        info = coordinator.info()
        self.assertEqual(info.requests_finished, 201)
        wait_until(lambda: list(coordinator.info().blocks_free_per_rank) ==
                   list(coordinator.info().blocks_total_per_rank), 5, "all blocks are free")
        group.remove_log()
        coordinator.remove_log()


if __name__ == "__main__":
    harness.main()
