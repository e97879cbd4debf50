"""Prefill attention in torch, for comparison with time_cuda: bf16, causal at the end of a longer context.

usage: python3 time_torch.py"""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

DIM, KV_HEADS = 128, 8


def best_ms(run, n=4):
    times = []
    for _ in range(n):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return min(times)


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for before, tokens, heads in ((0, 2048, 32), (98304, 2048, 32), (98304, 8192, 32)):
        n = before + tokens
        q = torch.randn(1, heads, tokens, DIM, dtype=torch.bfloat16, device="cuda")
        k, v = (torch.randn(1, KV_HEADS, n, DIM, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            def run():
                with sdpa_kernel(backend):
                    bias = causal_lower_right(tokens, n)
                    torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, enable_gqa=True)
            try:
                ms = best_ms(run)
            except RuntimeError as error:
                print(f"{backend.name} refuses: {str(error)[:80]}")
                continue
            flops = 4 * DIM * heads * tokens * (before + tokens / 2)
            print(f"{backend.name:16} {tokens:6} {before:6} {heads:4} {ms * 1e3:10.1f} us {flops / ms * 1e-9:7.1f} TFLOP/s")


if __name__ == "__main__":
    main()
