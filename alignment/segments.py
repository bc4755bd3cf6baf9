"""How a row of the batch is a tree, and who said what in it: the numbers that data, model and sampler share.

`segment_ids` = tree * BRANCHES + branch, 0 for padding. Trees count from 1; branch 0 is a shared prompt (or a whole
plain sequence), 1, 2, ... the completions that continue it. Column q may attend to column k iff both are of one tree,
k <= q, and k's branch is 0 or q's.

`instruction_levels` say, for a model that has embeddings of them, whose word a token is: `LEVELS`, by the role of the
message that it stands in, in the order in which instructions bind. They come from the structure of the data and never
from its text.
"""

BRANCHES = 1024
LEVELS = {"system": 0, "user": 1, "data": 2, "assistant": 3}
