"""Indirect object identification in GPT-2 small, as in the paper.

    python experiments/ioi_gpt2.py --model gpt2        (a name on the hub or a folder)

Settings: 200 training pairs, 3,000 steps of 32, gates and multipliers at 0.8, sparsity raised from
0 over 2,500 steps to each target, node gates trained by the KL alone, seed 42; 36,084 test pairs.
Published KL: 0.19 at 95.1 %, 0.25 at 96.6 % (0.22 with 400 pairs, 0.20 with 100,000), 0.44 at
97.95 %, 0.88 at 98.8 %; ACDC 0.92, EAP 3.47 at 96.6 %. Logit difference 3.6 at 96.7 %, full model
3.17. A run took 2,756 s on one H100. Not run here.
"""

from paper import reproduce
from sweep_results import Published

TARGETS = (
    0.94, 0.945, 0.95, 0.955, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 1.0, 1.01, 1.02,
    1.05, 1.1,
)  # fmt: skip
FIGURE = (
    (95.08, 0.19), (95.70, 0.22), (96.33, 0.22), (96.45, 0.26), (96.71, 0.27), (96.93, 0.30),
    (97.25, 0.39), (97.35, 0.35), (97.57, 0.36), (97.79, 0.40), (97.95, 0.44), (98.20, 0.53),
    (98.45, 0.58), (98.56, 0.72), (98.80, 0.88),
)  # fmt: skip

if __name__ == "__main__":
    reproduce(
        "ioi", targets=TARGETS, examples=200, test_examples=36_084,
        published=Published("kl", FIGURE),
    )  # fmt: skip
