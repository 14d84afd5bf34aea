"""Times the paper's PyTorch code: one plain forward pass of GPT-2 small, one training step.

    python experiments/bench/reference.py FOLDER BATCH TOKENS REPEATS

FOLDER is a checkout of the paper's repository; torch and transformers are needed, this project is
not. The step is as its IOI trainer makes it, teacher and corrupted run included, on random
weights. Prints seconds as JSON.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel


def reading(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def training_step(folder: Path, tokens, corrupted):
    """The reference's step: teacher, corrupted run, masked run, backward, AdamW."""
    sys.path.insert(0, str(folder / "src" / "modeling"))
    from modeling_fpt2 import FPT2LMHeadModel

    def make():
        model = FPT2LMHeadModel(GPT2Config(), with_embedding_nodes=True)
        model.reset_all_log_alphas()
        return model

    student, full = make(), make().eval()
    for name, weight in student.named_parameters():
        weight.requires_grad = "log_alpha" in name or "sparsity_lambda" in name
    optimiser = torch.optim.AdamW([w for w in student.parameters() if w.requires_grad], lr=0.1)

    def step():
        with torch.no_grad():
            teacher = full(input_ids=tokens).logits
            writes = full(input_ids=corrupted, output_writer_states=True).writer_states
        out = student(
            input_ids=tokens, target_edge_sparsity=0.5, target_node_sparsity=0.5,
            corr_x=writes.transpose(0, 1),
        )  # fmt: skip
        ours, theirs = (F.log_softmax(x[:, -1], dim=-1) for x in (out["logits"], teacher))
        kl = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        optimiser.zero_grad()
        (kl + out["edge_loss"] + out["node_loss"]).backward()
        optimiser.step()

    return step


def main() -> None:
    folder, batch, length, repeats = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    torch.manual_seed(0)
    tokens, corrupted = torch.randint(1000, 20000, (2, batch, length))
    ordinary = GPT2LMHeadModel(GPT2Config()).eval()

    def plain():
        with torch.no_grad():
            ordinary(input_ids=tokens, use_cache=False)

    functions = {"plain": plain, "step": training_step(folder, tokens, corrupted)}
    readings = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            seconds = reading(function)
            if turn:  # the first warms up
                readings[name].append(seconds)
    print(json.dumps({
        name: {"median": statistics.median(one), "min": min(one), "max": max(one)}
        for name, one in readings.items()
    }))  # fmt: skip


if __name__ == "__main__":
    main()
