"""One group of three ranks: what a client gets when nothing goes wrong."""
import json
import unittest

import harness
from harness import Coordinator, Group, code_of, generate, grpc, inference_pb2, request

GOLDEN = json.loads(harness.read("models/demo/golden.json"))["prompts"]
REASON = inference_pb2.FinishReason


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.coordinator = Coordinator()
        cls.group = Group(cls.coordinator, ranks=3)
        cls.group.wait_serving(cls.coordinator)

    @classmethod
    def tearDownClass(cls):
        cls.group.remove_log()
        cls.coordinator.remove_log()

    def test_golden_tokens_by_ids(self):
        for prompt in GOLDEN:
            n = len(prompt["greedy_ids"])
            result = generate(self.coordinator, request(ids=prompt["input_ids"], temperature=0,
                                                        max_new_tokens=n, ignore_eos=True))
            self.assertEqual(result.ids, prompt["greedy_ids"], prompt["name"])
            self.assertEqual(result.finished.reason, REASON.FINISH_REASON_LENGTH)
            self.assertEqual(result.finished.usage.prompt_tokens, len(prompt["input_ids"]))
            self.assertEqual(result.finished.usage.new_tokens, n)

    def test_golden_text_and_end_of_sequence(self):
        prompt = GOLDEN[2]
        result = generate(self.coordinator, request(text=prompt["input_text"], max_new_tokens=32))
        self.assertEqual(result.text, " 730518.")
        self.assertEqual(result.finished.reason, REASON.FINISH_REASON_EOS)
        self.assertEqual(result.finished.stop_id, 1)
        self.assertEqual(result.finished.usage.prompt_tokens, len(prompt["input_ids"]))

    def test_prefill_progress_ends_at_the_whole_prompt(self):
        prompt = GOLDEN[2]["input_ids"]
        result = generate(self.coordinator, request(ids=prompt, max_new_tokens=1))
        done = [d for d, _ in result.prefill]
        self.assertEqual(done, sorted(done))
        self.assertEqual(result.prefill[-1], (len(prompt), len(prompt)))
        self.assertGreater(len(done), 1)

    def test_kv_usage_and_timing(self):
        prompt = GOLDEN[2]["input_ids"]
        finished = generate(self.coordinator, request(ids=prompt, max_new_tokens=4, ignore_eos=True)).finished
        blocks = list(finished.kv.blocks_per_rank)
        self.assertEqual(finished.kv.ranks, 3)
        self.assertEqual(sum(blocks), -(-(len(prompt) + 3) // 128))
        self.assertLessEqual(max(blocks) - min(blocks), 1)
        self.assertEqual(finished.kv.policy, "bf16")
        self.assertEqual(finished.kv.bytes_per_token, 6144)
        self.assertEqual(finished.kv.k_bits_per_element, 16)
        self.assertGreater(finished.timing.ttft_ms, 0)
        self.assertGreater(finished.timing.tpot_ms, 0)
        self.assertGreaterEqual(finished.timing.total_ms, finished.timing.ttft_ms)

    def test_stop_string_across_tokens(self):
        prompt = GOLDEN[2]
        # The answer " 730518." comes digit by digit: a stop of two digits lies across a border.
        result = generate(self.coordinator, request(text=prompt["input_text"], stop=["305"]))
        self.assertEqual(result.text, " 7")
        self.assertEqual(result.finished.reason, REASON.FINISH_REASON_STOP_STRING)
        self.assertEqual(result.finished.stop, "305")
        result = generate(self.coordinator, request(text=prompt["input_text"], stop=["zzz", "305"], include_stop=True))
        self.assertEqual(result.text, " 7305")

    def test_stop_token(self):
        prompt = GOLDEN[2]
        result = generate(self.coordinator, request(ids=prompt["input_ids"], stop_token_ids=[21]))
        self.assertEqual(result.finished.reason, REASON.FINISH_REASON_STOP_TOKEN)
        self.assertEqual(result.finished.stop_id, 21)

    def test_a_seed_repeats_and_seeds_differ(self):
        def sample(seed):
            return generate(self.coordinator, request(text="Once upon a time", temperature=0.9, top_p=0.95,
                                                      seed=seed, max_new_tokens=24, ignore_eos=True))
        first, again, other = sample(7), sample(7), sample(8)
        self.assertEqual(first.ids, again.ids)
        self.assertNotEqual(first.ids, other.ids)
        self.assertEqual(first.finished.usage.seed, 7)

    def test_a_drawn_seed_is_returned_and_reproduces(self):
        first = generate(self.coordinator, request(text="Once", temperature=1, max_new_tokens=12, ignore_eos=True))
        again = generate(self.coordinator, request(text="Once", temperature=1, max_new_tokens=12, ignore_eos=True,
                                                   seed=first.finished.usage.seed))
        self.assertEqual(first.ids, again.ids)

    def test_logprobs(self):
        prompt = GOLDEN[1]["input_ids"]
        result = generate(self.coordinator, request(ids=prompt, max_new_tokens=5, logprobs=3, ignore_eos=True))
        self.assertEqual(len(result.logprobs), 5)
        for token, lp in zip(result.ids, result.logprobs):
            self.assertEqual(len(lp.top_ids), 3)
            self.assertEqual(lp.top_ids[0], token)  # greedy
            self.assertAlmostEqual(lp.top_logprobs[0], lp.logprob, places=5)
            self.assertEqual(sorted(lp.top_logprobs, reverse=True), list(lp.top_logprobs))
            self.assertLessEqual(lp.logprob, 0)

    def test_many_at_once_give_what_each_gives_alone(self):
        prompts = [GOLDEN[0]["input_ids"], GOLDEN[1]["input_ids"]] * 3
        want = [GOLDEN[0]["greedy_ids"][:8], GOLDEN[1]["greedy_ids"][:8]] * 3
        calls = [self.coordinator.inference.Generate(
            request(ids=p, max_new_tokens=8, temperature=0, ignore_eos=True), timeout=120) for p in prompts]
        got = [harness.Result(c).ids for c in calls]
        self.assertEqual(got, want)

    def test_tokenize_and_detokenize(self):
        text = "Question: What is naïve? 雪\n"
        ids = self.coordinator.inference.Tokenize(
            inference_pb2.TokenizeRequest(text=text, add_special=True), timeout=10).ids
        self.assertEqual(ids[0], 0)
        back = self.coordinator.inference.Detokenize(
            inference_pb2.DetokenizeRequest(ids=ids, skip_special=True), timeout=10).text
        self.assertEqual(back, text)

    def test_model_info(self):
        info = self.coordinator.info()
        self.assertEqual((info.vocab_size, info.n_layers, info.n_heads, info.n_kv_heads, info.head_dim),
                         (4096, 6, 4, 2, 128))
        self.assertEqual((info.ranks, info.groups, info.block_tokens), (3, 1, 128))
        self.assertEqual(len(info.blocks_free_per_rank), 3)
        self.assertEqual(info.policy, "bf16")
        self.assertEqual(len(info.model_hash), 32)

    def test_reflection_serves_both_versions(self):
        from proto import reflection_v1_pb2 as v1, reflection_v1_pb2_grpc as v1_grpc
        from proto import reflection_v1alpha_pb2 as va, reflection_v1alpha_pb2_grpc as va_grpc
        for messages, stubs in ((v1, v1_grpc), (va, va_grpc)):
            stub = stubs.ServerReflectionStub(self.coordinator.channel)
            ask = [messages.ServerReflectionRequest(list_services="")]
            reply = next(stub.ServerReflectionInfo(iter(ask), timeout=10))
            names = {s.name for s in reply.list_services_response.service}
            self.assertIn("ropewalk.v1.Inference", names)
            self.assertIn("grpc.health.v1.Health", names)
            ask = [messages.ServerReflectionRequest(file_containing_symbol="ropewalk.v1.Inference")]
            reply = next(stub.ServerReflectionInfo(iter(ask), timeout=10))
            self.assertGreater(len(reply.file_descriptor_response.file_descriptor_proto), 0)

    def test_unknown_method_is_unimplemented(self):
        call = self.coordinator.channel.unary_unary("/ropewalk.v1.Inference/Nothing")
        code, _ = code_of(lambda: call(b"", timeout=5))
        self.assertEqual(code, grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    harness.main()
