"""Rewards of completions: verifiable tasks with exact checks, and judges and ensembles of reward models.

Read in this order: `verifiable` (what a reward is, and the ready ones), `tasks` (generated prompts to train on),
`instructions` (IFEval), `readability`, `spans` (token rewards), `runner` (many calls, in parallel, none fatal).

Arithmetic of scores, pure functions of arrays: `ensembles`, `combining` (several heads as one reward), `process`
(scores of steps), `length`, `judges`, `contexts`, `armo`, `overoptimization`. Nothing is imported here: reward workers
start without jax. Trained models score texts through `experiments.reward_models`.
"""
