"""The scaling model: its arithmetic on a case that is computed by hand, and its error on what was measured."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import scaling  # noqa: E402
from scaling import Run, Scaling, Shape, at  # noqa: E402

# 1 GB/s is 1000 bytes a us.
CONSTANTS = {
    "attention": {"contexts": [128, 256], "kv_heads": {"4": 1}, "us": {"p": {"4": [10, 20]}}},
    "page_bytes": {"p": 100},
    "attention_in_step_us": {"value": -1},
    "product_us": {"value": 1},
    "weights_gb_per_s": {"rows": [1, 3], "values": [1, 0.5]},
    "layer_us": {"value": 2},
    "step_us": {"value": 5},
    "attended_us": {"value": -1, "rows": 4},
    "exchange": {"rows": [1, 3], "us": {"lsa": {"gather": {"2": [4, 6], "4": [6, 10]},
                                                "all_to_all": {"2": [3, 3], "4": [3, 3]},
                                                "sum": {"2": [2, 4], "4": [2, 4]}},
                                        "nccl": {"gather": {"2": [8, 8], "4": [9, 9]},
                                                 "all_to_all": {"2": [5, 5], "4": [5, 5]},
                                                 "sum": {"2": [7, 7], "4": [7, 7]}}}},
    "nvlink_ranks": {"value": 4},
    "network_us": {"value": 10},
    "network_gb_per_s": {"value": 1},
    "free_gb": {"value": 1.45e-4},
    "room_share": {"value": 0.9},
    # 1e-3 TFLOP/s are 1000 FLOP a us.
    "prefill_products": {"rows": [64, 256], "tflops": {"8": [1e-3, 2e-3]}},
    "prefill_attention": {"rows": [64, 256], "tflops": {"4": [0.05, 0.1]}},
    "prefill_attention_us": {"value": 100},
    "prefill_attention_gb_per_s": {"value": 8},
    "prefill_append_gb_per_s": {"value": 1},
    "prefill_pack_gb_per_s": {"value": 2},
    "memory_gb_per_s": {"value": 4},
    "nvlink_gb_per_s": {"value": 0.5},
}
SHAPE = Shape(layers=2, width=8, ffn=16, heads=4, kv_heads=1, head_dim=128, vocab=10, tied=True)
RUN = Run(context=256, policy="p")


class ByHand(unittest.TestCase):
    model = Scaling(CONSTANTS)

    def test_one_rank(self):
        # q, k, v: 8 x 768 of 2 bytes, 13.288 us; o: 8 x 512, 9.192; gate and up: 1.512; down: 1.256; head: 1.160.
        self.assertAlmostEqual(self.model.linear_us(SHAPE, RUN), 2 * (13.288 + 9.192 + 1.512 + 1.256) + 1.160)
        self.assertEqual(self.model.page_bytes(SHAPE, RUN), 2 * 25600)
        self.assertEqual(self.model.attention_us(SHAPE, RUN), 19)
        self.assertAlmostEqual(self.model.step_ms(SHAPE, RUN) * 1e3, 5 + 51.656 + 2 * (2 + 19))

    def test_two_ranks_with_all_weights(self):
        run = at(RUN, ranks=2)
        self.assertEqual(self.model.attention_us(SHAPE, run), 9)
        self.assertEqual(self.model.exchanges_us(SHAPE, run), 7 - 1)  # four rows, with attention
        self.assertEqual(self.model.exchanges_us(SHAPE, at(run, batch=2)), 11)  # more than go with it
        self.assertEqual(self.model.exchanges_us(SHAPE, at(run, way="nccl")), 8)
        self.assertAlmostEqual(self.model.step_ms(SHAPE, run) * 1e3, 5 + 51.656 + 2 * (2 + 9 + 6))

    def test_two_ranks_that_share_the_weights(self):
        run = at(RUN, ranks=2, weights="split")
        self.assertAlmostEqual(self.model.linear_us(SHAPE, run), 2 * (13.288 + 5.096 + 1.256 + 1.128) + 1.080)
        self.assertAlmostEqual(self.model.exchanges_us(SHAPE, run), 3 - 1 + 2 * 1.0625)  # sums of a sixteenth of a row
        self.assertAlmostEqual(self.model.step_ms(SHAPE, run) * 1e3, 5 + 42.616 + 2 * (2 + 9 + 4.125))

    def test_rows_of_a_batch(self):
        run = at(RUN, batch=3)  # weights come half as fast, pages are three times as many
        self.assertAlmostEqual(self.model.linear_us(SHAPE, run), 2 * 51.656 - 9)  # of which 9 launches
        self.assertEqual(self.model.page_bytes(SHAPE, run), 3 * 2 * 25600)
        self.assertAlmostEqual(self.model.attention_us(SHAPE, run), 59)
        self.assertAlmostEqual(self.model.linear_us(SHAPE, at(RUN, batch=300)), self.model.linear_us(SHAPE, run))

    def test_two_hosts(self):
        run = at(RUN, ranks=8)
        self.assertAlmostEqual(self.model.exchange_us("gather", run, 4), 9 + 10 + 4 * 4 * 516e-3)
        self.assertAlmostEqual(self.model.exchange_us("all_to_all", run, 4), 5 + 10 + 4 * 4 * 516e-3 / 8)
        self.assertAlmostEqual(self.model.exchange_us("sum", run, 4), 7 + 2 * 10 + 2 * 4 * 516e-3)
        # Three more hosts are two more hops of a gather, and none of an all-to-all.
        self.assertAlmostEqual(self.model.exchange_us("gather", at(run, ranks=20), 4), 9 + 30 + 16 * 4 * 516e-3)
        self.assertAlmostEqual(self.model.exchange_us("all_to_all", at(run, ranks=20), 4), 5 + 10 + 16 * 4 * 516e-3 / 20)

    def test_what_fits(self):
        # Weights: 2 x (12288 + 8192 + 768) + 160, the head is the embedding.  0.9 x (145000 - 42656): 92110 for pages.
        self.assertEqual(self.model.weight_bytes(SHAPE, RUN), 42656)
        self.assertTrue(self.model.fits(SHAPE, at(RUN, context=384)))
        self.assertFalse(self.model.fits(SHAPE, at(RUN, context=512)))
        self.assertTrue(self.model.fits(SHAPE, at(RUN, ranks=4, weights="split")))
        self.assertFalse(self.model.fits(SHAPE, at(RUN, ranks=5, weights="split")))
        self.assertEqual(self.model.largest_context(SHAPE, RUN), 384)
        self.assertEqual(self.model.largest_context(SHAPE, at(RUN, ranks=4)), 1536)

    def test_a_chunk_on_one_rank(self):
        # A layer's weights are 6144 + 4096 + 256 + 128 elements; With 4 heads 256 rows see 256 x 256 positions
        # and 256 x 257 / 2 of their own; q and o are 524288 bytes each.
        run = at(RUN, chunk=256)
        self.assertAlmostEqual(self.model.chunk_products_us(SHAPE, run, 256), 2 * 256 * 10624 / 2000)
        self.assertAlmostEqual(self.model.chunk_attention_us(SHAPE, run, 256, 256), 4 * 128 * 4 * 98432 / 1e5 + 100 + 131.072)
        # q, k and v of a row are 3072 bytes, read and written; its bf16 rows 512.
        self.assertAlmostEqual(self.model.chunk_store_us(SHAPE, run, 256), 256 * (6.144 + 0.256))
        self.assertEqual(self.model.chunk_merge_us(SHAPE, run, 256), 0)
        self.assertEqual(self.model.chunk_exchange_us(SHAPE, run, 256), 0)
        self.assertAlmostEqual(self.model.chunk_ms(SHAPE, run, 256, 256), 2 * (2.719744 + 2.24695936 + 1.6384))

    def test_a_chunk_on_two_ranks(self):
        run = at(RUN, ranks=2)
        self.assertAlmostEqual(self.model.chunk_products_us(SHAPE, run, 256), 2 * 128 * 10624 / 1500)  # between 64 and 256 rows
        self.assertAlmostEqual(self.model.chunk_attention_us(SHAPE, run, 256, 256), 2 * 128 * 4 * 98432 / 1e5 + 231.072)
        self.assertAlmostEqual(self.model.chunk_store_us(SHAPE, run, 256), 128 * (6.144 + 0.256))
        # Partials: 256 rows of 4 heads of 129 floats, 528384 bytes.  Half of them and of q, k and v come from the other rank.
        self.assertAlmostEqual(self.model.chunk_merge_us(SHAPE, run, 256), 3 * 528384 / 4000)
        self.assertEqual(self.model.chunk_exchange_bytes(SHAPE, run, 256), (786432 + 528384) / 2)
        self.assertAlmostEqual(self.model.chunk_exchange_us(SHAPE, run, 256), 657408 / 500)
        self.assertAlmostEqual(self.model.chunk_ms(SHAPE, run, 256, 256),
                               2 * (1.81316267 + 1.23901568 + 0.8192 + 0.396288 + 1.314816))
        # 100 rows are too few to share: all partials go to all.
        self.assertEqual(self.model.own_rows(run, 100), 100)
        self.assertEqual(self.model.chunk_exchange_bytes(SHAPE, run, 100), 206400)

    def test_a_chunk_on_two_ranks_that_share_the_weights(self):
        run = at(RUN, ranks=2, weights="split")  # q, k and v whole, the others halves: 6144 + 2048 + 128 + 64 elements
        self.assertAlmostEqual(self.model.chunk_products_us(SHAPE, run, 256), 2 * 256 * 8384 / 2000)
        self.assertAlmostEqual(self.model.chunk_store_us(SHAPE, run, 256), 256 * (4.096 + 1.024 + 0.128))  # q of all rows
        self.assertEqual(self.model.chunk_exchange_bytes(SHAPE, run, 256), (528384 + 2 * 2 * 256 * 32) / 2)
        self.assertAlmostEqual(self.model.chunk_exchange_us(SHAPE, at(run, ranks=8), 256), 7 / 8 * 561152 / 1000)  # two hosts

    def test_a_prompt_is_its_chunks(self):
        run = at(RUN, context=612, chunk=256)
        parts = [self.model.chunk_ms(SHAPE, run, *chunk) for chunk in ((256, 0), (256, 256), (100, 512))]
        self.assertAlmostEqual(self.model.prefill_s(SHAPE, run), sum(parts) * 1e-3)

    def test_where_sharding_stops_paying(self):
        self.assertEqual(self.model.outweighed_at(SHAPE, RUN, (1, 2, 4)), 4)  # 9 and 7 us, then 9 and 12
        self.assertEqual(self.model.best_ranks(SHAPE, RUN, (1, 2, 4)), 2)


class Measured(unittest.TestCase):
    BOUND = 0.05

    def test_constants_say_where_they_come_from(self):
        constants = scaling.read_constants()
        runs = constants.pop("measured") + constants.pop("measured_prefill")
        del constants["about"]
        for constant in (*constants.values(), *runs):
            self.assertRegex(constant["source"], "^(measured|lab|reference, not measured|guess): ")

    def test_shapes_are_those_of_random_models(self):
        shapes = scaling.read_shapes()
        self.assertEqual(shapes["llama-3.1-8b"], Shape(32, 4096, 14336, 32, 8, 128, 128256, False))
        self.assertEqual(shapes["qwen2.5-3b"], Shape(36, 2048, 11008, 16, 2, 128, 151936, True))

    def test_predictions_of_measured_rows(self):
        for row, predicted, error in scaling.errors(Scaling(scaling.read_constants()), scaling.read_shapes()):
            self.assertLess(abs(error), self.BOUND, (row, predicted))

    def test_predictions_of_measured_prompts(self):
        for row, predicted, error in scaling.prefill_errors(Scaling(scaling.read_constants()), scaling.read_shapes()):
            self.assertLess(abs(error), self.BOUND, (row, predicted))


if __name__ == "__main__":
    unittest.main()
