#!/usr/bin/env python3
"""Writes tests/golden/models/NAME: tiny random models with logits and greedy tokens by transformers.

usage: make_models.py OUTPUT_FOLDER [NAME..]   all models, or those named
(torch, transformers; made with 2.15.0 and 5.24.0)

Each folder is what save_pretrained writes, a stand-in for tokenizer.json, and golden.json.  The weights
are 16-bit values, the reference runs them in float32.  They are drawn much larger than for training,
so that attention is far from uniform and a wrong angle, bias or norm shows in the logits.
"""
import json
import pathlib
import sys

import torch
import transformers as tf

PROMPT = 400  # ids; past every original_max_position_embeddings below
GREEDY = 8
MARGIN = 0.15  # between the best two logits of each greedy token: the cache's bf16 must not decide
SMALL = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
             head_dim=64)
TIED = dict(hidden_size=128, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1,
            tie_word_embeddings=True)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=128)

# name: (configuration class, its fields, dtype of the file, size of its shards)
MODELS = {
    "llama": (tf.LlamaConfig, dict(TIED, rms_norm_eps=1e-5), torch.float16, "5GB"),
    "llama-llama3": (tf.LlamaConfig, dict(SMALL, rope_parameters=LLAMA3), torch.bfloat16, "5GB"),
    "llama-yarn": (tf.LlamaConfig, dict(SMALL, rope_parameters=YARN), torch.bfloat16, "5GB"),
    "qwen2": (tf.Qwen2Config, TIED, torch.bfloat16, "5GB"),
    "qwen3": (tf.Qwen3Config, SMALL, torch.bfloat16, "5GB"),
    "mistral": (tf.MistralConfig, dict(SMALL, sliding_window=None), torch.bfloat16, "150KB"),
}


def draw_weights(model, generator, dtype):
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            value = noise
        elif parameter.dim() == 1:  # a norm
            value = 1.0 + 0.2 * noise
        else:
            gain = 1.4 if "q_proj" in name or "k_proj" in name else 1.0
            value = gain * noise / parameter.shape[1] ** 0.5
        parameter.data = value.to(dtype).to(torch.float32)


def attend(module, query, key, value, attention_mask, scaling, **_):
    """Dense attention; key and value are rounded as the cache rounds them where round_cache is set."""
    if round_cache:
        # transformers scales cosine and sine by yarn's factor, the cache holds keys without it.
        key = (key / factor).to(torch.bfloat16).to(torch.float32) * factor
        value = value.to(torch.bfloat16).to(torch.float32)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    n = query.shape[2]
    seen = torch.tril(torch.ones(n, n, dtype=torch.bool))
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2), None


round_cache, factor = False, 1.0
tf.AttentionInterface.register("attend", attend)


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


def rounded_logits(model, ids):
    """The same with a bf16 cache."""
    global round_cache, factor
    eager = logits_of(model, ids)
    model.set_attn_implementation("attend")
    assert (logits_of(model, ids) - eager).abs().max() < 1e-4
    round_cache, factor = True, model.model.rotary_emb.attention_scaling
    rounded = logits_of(model, ids)
    round_cache, factor = False, 1.0
    return rounded


def greedy(model, prompt):
    """The logits behind the prompt, the greedy tokens, and the smallest margin among them."""
    ids, made, margin, first = list(prompt), [], float("inf"), None
    for _ in range(GREEDY):
        logits = logits_of(model, ids)
        first = logits if first is None else first
        best = torch.topk(logits, 2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        made.append(int(best.indices[0]))
        ids.append(made[-1])
    return first, made, margin


def numbers(logits):
    return [float(f"{x:.7g}") for x in logits.tolist()]


def make(name, folder):
    kind, fields, dtype, shard = MODELS[name]
    config = kind(vocab_size=256, num_hidden_layers=2, max_position_embeddings=1024,
                  bos_token_id=None, eos_token_id=None, attn_implementation="eager", **fields)
    generator = torch.Generator().manual_seed(1)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    draw_weights(model, generator, dtype)
    for _ in range(200):
        prompt = torch.randint(0, 256, (PROMPT,), generator=generator).tolist()
        logits, made, margin = greedy(model, prompt)
        if margin >= MARGIN:
            break
    else:
        sys.exit(f"{name}: no prompt with margins of {MARGIN}")
    rounded = rounded_logits(model, prompt)
    model.to(dtype).save_pretrained(folder / name, max_shard_size=shard)
    (folder / name / "generation_config.json").unlink(missing_ok=True)
    (folder / name / "tokenizer.json").write_text("{}\n")
    golden = {"reference": f"transformers {tf.__version__}, torch {torch.__version__}, float32",
              "prompt_ids": prompt, "greedy_ids": made, "smallest_margin": round(margin, 4),
              "logits": numbers(logits), "logits_bf16_cache": numbers(rounded)}
    (folder / name / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"{name}: logits of size {logits.abs().max():.2f}, smallest margin {margin:.2f}, "
          f"bf16 cache {(logits - rounded).abs().max():.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for model_name in sys.argv[2:] or MODELS:
        make(model_name, pathlib.Path(sys.argv[1]))
