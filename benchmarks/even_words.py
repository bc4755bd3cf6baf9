"""The reward and the replayed rollouts of `benchmarks.grpo_iteration`, where every process can import them."""

from __future__ import annotations

import json
from pathlib import Path


def reward(prompt, completion, record) -> float:
    words = [int(word[1:]) for word in completion.split() if word[0] == "w"]
    return sum(word % 2 == 0 for word in words) / max(len(words), 1)


def recorded_engine(config, model, tokenizer):
    """Gives the completions that TRL drew for each prompt."""
    import numpy as np  # not above: TRL's side needs the reward alone

    from alignment.training import rollouts

    recorded = json.loads(Path(config.data.source).with_name("recorded.json").read_text())
    drawn = {tuple(prompt): completions for prompt, completions in recorded}

    def engine(params, prompts, prompt_mask, rng):
        completions = [c for row, m in zip(prompts, prompt_mask, strict=True) for c in drawn[tuple(row[m].tolist())]]
        shape = (len(completions), config.data.completion_length)
        tokens, mask = np.full(shape, tokenizer.pad_id, np.int32), np.zeros(shape, bool)
        for i, ids in enumerate(completions):
            tokens[i, : len(ids)], mask[i, : len(ids)] = ids, True
        return rollouts.Rollout(tokens, mask, np.zeros(shape, np.float32))

    return engine
