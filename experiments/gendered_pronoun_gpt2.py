"""Gendered pronoun in GPT-2 small, as in the paper.

    python experiments/gendered_pronoun_gpt2.py --model gpt2     (a name on the hub or a folder)

Settings: 150 training pairs, 3,000 steps of 32, gates and multipliers at 0.8, sparsity raised from
0 over 2,500 steps to each target, node gates trained by the KL alone, seed 42; 378 test pairs.
Published KL: 0.057 at 96.2 %, 0.060 at 97.0 %, 0.081 at 98.3 %, 0.113 at 98.9 %; ACDC 0.107 at
98.1 %, EAP 0.31 at 98 %. Logit difference 2.9 at 98.1 %, full model 2.62. Not run here.
"""

from paper import reproduce
from sweep_results import Published

TARGETS = (
    0.93, 0.94, 0.945, 0.95, 0.955, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 1.0, 1.05,
    1.1, 1.15, 1.2, 1.4,
)  # fmt: skip
FIGURE = (
    (96.19, 0.057), (96.65, 0.057), (96.82, 0.060), (97.00, 0.060), (97.09, 0.063), (97.62, 0.063),
    (98.08, 0.074), (98.33, 0.081), (98.55, 0.087), (98.64, 0.093), (98.76, 0.107), (98.85, 0.110),
    (98.90, 0.113),
)  # fmt: skip

if __name__ == "__main__":
    reproduce(
        "gendered-pronoun", targets=TARGETS, examples=150, test_examples=378,
        published=Published("kl", FIGURE),
    )  # fmt: skip
