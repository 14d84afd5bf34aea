"""Greater-than in GPT-2 small, as in the paper.

    python experiments/greater_than_gpt2.py --model gpt2        (a name on the hub or a folder)

Settings: 150 training pairs, 3,000 steps of 32, gates and multipliers at 0.8, sparsity raised from
0 over 2,500 steps to each target, node gates trained by the KL alone, seed 42; 12,240 test pairs.
Published KL over the 100 years: 0.035 at 96.5 %, 0.046 at 98.0 %, 0.072 at 98.8 %, 0.27 at 99.5 %;
ACDC 0.137 at 97.9 %, EAP 0.32 at 98 %. Probability difference 0.62 at 98 %, full model 0.54.
Not run here.
"""

from paper import reproduce
from sweep_results import Published

TARGETS = (
    0.95, 0.955, 0.96, 0.965, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 1.0, 1.01, 1.02, 1.05, 1.1,
)  # fmt: skip
FIGURE = (
    (96.51, 0.035), (96.65, 0.040), (96.91, 0.038), (97.26, 0.043), (97.44, 0.038), (98.01, 0.046),
    (98.27, 0.051), (98.59, 0.062), (98.73, 0.062), (98.81, 0.072), (98.88, 0.078), (99.26, 0.150),
    (99.49, 0.271),
)  # fmt: skip

if __name__ == "__main__":
    reproduce(
        "greater-than", targets=TARGETS, examples=150, test_examples=12_240,
        published=Published("choice_kl", FIGURE),
    )  # fmt: skip
