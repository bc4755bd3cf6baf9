"""FIRST (Chen et al., 2024, arXiv 2411.05508): lists are reranked by the first token alone.

python -m experiments.make_data first_ranknet --output=runs/first.jsonl --eval=runs/first_eval.jsonl

python -m experiments.finetune --config=configs/first_ranknet.py --workdir=runs/first_ranknet \
    --config.data.source=runs/first.jsonl --config.data.eval_source=runs/first_eval.jsonl

The prompts list four candidates with a letter each; the answer spells their order, of which the first letter is read.
Without these files it ranks the corpus' lists by their first byte, which says nothing.

The trained model reranks lists of any length, here in windows of the four candidates that it has seen at once:

echo '{"prompt": "jzkr:", "candidates": ["koee", "uiio", "ruzj", "aeio", "zjkr", "zkoe"]}' > runs/lists.jsonl
python -m experiments.rerank --run=runs/first_ranknet --input=runs/lists.jsonl --output=runs/reranked.jsonl \
    --window=4 --stride=2

Measured on 2026-11-22 (seed 0) with --config.training.steps=250 --config.data.batch_size=32: NDCG@10 of the 1,024 lists
of evaluation 1.000. Of 200 lists of 12 random words (0 to 4 letters shared with the query), reranked so with
experiments.rerank, NDCG@10 rose from 0.623 to 0.926, and 98 % had one of the best words first. The run of 1,000 steps
of 64 lists has not been measured yet.
"""

from configs import common


def get_config():
    config = common.base()
    config.objective = {"first_ranknet": {"weight": 10.0}, "first_lm": {"weight": 1.0}}
    config.metrics = {"first_token_ndcg": {}}
    config.data.kind = "lists"
    config.data.prompt_length = 48
    config.gold.samples = 0
    config.training.steps = 1000
    return config
