"""How a row of the batch is a tree: the one number that data, model and sampler share.

`segment_ids` = tree * BRANCHES + branch, 0 for padding. Trees count from 1; branch 0 is a shared prompt (or a whole
plain sequence), 1, 2, ... the completions that continue it. Column q may attend to column k iff both are of one tree,
k <= q, and k's branch is 0 or q's.
"""

BRANCHES = 1024
