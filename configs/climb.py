"""CLIMB (Diehl Martinez et al., 2023, arXiv 2311.08886): easy data first, or the frequent part of the vocabulary.

python -m experiments.finetune --config=configs/climb.py --workdir=runs/climb
python -m experiments.finetune --config=configs/climb.py:vocabulary --workdir=runs/climb_vocabulary

Easy is what a unigram model finds likely. The paper reports no consistent gain. Token 260 stands for unknown ones. The
third curriculum, of objectives, is configs/climb_objectives.py.

Not measured yet.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(curriculum="data"):
    config = common.sft()
    config.data.packed = False
    config.data.batch_size = 64
    if curriculum == "vocabulary":
        config.data.corruption = ConfigDict({"climb_vocabulary": {"unk_id": 260}})
        config.objective = ConfigDict({"sft": {"mask": "trained_mask"}})
    elif curriculum == "data":
        config.data.curriculum = ConfigDict({"climb": {"pacing": "linear"}})
    else:
        raise ValueError(f"configs/climb.py:{curriculum} is not one of data, vocabulary")
    return config
