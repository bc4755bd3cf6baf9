"""TFDS builders that turn JSONL preferences (pairs, triples, unpaired) into array_record, without TensorFlow.

from alignment.data import builder, formats
directory = builder.prepare({"train": "pairs_train.jsonl", "test": "pairs_test.jsonl"}, data_dir)
examples = formats.read(directory, "pairs", split="train")
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from alignment.data import formats

OPTIONAL = {"margin": np.float32, "annotator_id": np.int32, "weight": np.float32, "preference_proportion": np.float32}


class _Preferences(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Answers to one prompt; the optional fields (`OPTIONAL`) are kept when the first example has them.

    A `config_name` tells several data sets in one data_dir apart (then `tfds:preference_pairs/CONFIG_NAME`).
    Floats are stored in float32, the precision in which a batch carries them anyway.
    """

    KIND: ClassVar[str]
    TEXTS: ClassVar[tuple[str, ...]]
    LABELLED: ClassVar[bool] = False  # has the field `label`, which an example calls `desirable`
    # TFDS would look for checksum files beside this one, through a package that it does not declare.
    url_infos: ClassVar[dict[str, Any]] = {}
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, files: Mapping[str, str | os.PathLike], config_name: str | None = None, **kwargs: Any):
        if not files:
            raise ValueError("files must name at least one split")
        self._examples = {split: formats.read(path, self.KIND) for split, path in files.items()}
        first = next(iter(self._examples.values()))[0]
        self._chat = not isinstance(first.prompt, str)
        self._optional = [field for field in OPTIONAL if getattr(first, field, None) is not None]
        # TFDS would write tfrecord by default, and that needs TensorFlow.
        kwargs = {"file_format": "array_record"} | kwargs
        super().__init__(config=config_name and tfds.core.BuilderConfig(name=config_name), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        prompt = tfds.features.Sequence({"role": text, "content": text}) if self._chat else text
        # Conversations hold their answers as messages too.
        features = {"prompt": prompt} | dict.fromkeys(self.TEXTS, prompt if self._chat else text)
        features |= {field: tfds.features.Scalar(OPTIONAL[field]) for field in self._optional}
        if self.LABELLED:
            features["label"] = tfds.features.Scalar(np.bool_)
        # Without TFDS's shuffling the records keep the order, and so the numbers, that they have in the file.
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, example in enumerate(self._examples[split]):
            if isinstance(example.prompt, str) == self._chat:
                raise formats.DataError(f"{example.where}: field 'prompt' mixes text and messages within one data set")
            record = {"prompt": example.prompt} | {text: getattr(example, text) for text in self.TEXTS}
            if self._chat:
                record["prompt"] = [dataclasses.asdict(message) for message in example.prompt]
                for text in self.TEXTS:
                    record[text] = [{"role": "assistant", "content": record[text]}]
            if self.LABELLED:
                record["label"] = example.desirable
            for field in OPTIONAL:
                value = getattr(example, field, None)
                if (value is None) == (field in self._optional):
                    raise formats.DataError(f"{example.where}: field {field!r} must be in all records or in none")
                if value is not None:
                    record[field] = value
            yield number, record


class PreferencePairs(_Preferences):
    KIND, TEXTS = "pairs", ("chosen", "rejected")


class PreferenceTriples(_Preferences):
    KIND, TEXTS = "triples", ("gold", "chosen", "rejected")


class UnpairedPreferences(_Preferences):
    KIND, TEXTS, LABELLED = "unpaired", ("completion",), True


_BUILDERS = {builder.KIND: builder for builder in (PreferencePairs, PreferenceTriples, UnpairedPreferences)}


def prepare(
    files: Mapping[str, str | os.PathLike],
    data_dir: str | os.PathLike,
    config_name: str | None = None,
    *,
    kind: str = "pairs",
) -> pathlib.Path:
    """Writes {split: JSONL file} as array_record under `data_dir`; returns the directory that `formats.read` takes.

    Raises:
      ValueError: `kind` is not one of pairs, triples, unpaired.
      FileExistsError: the data set is there already; TFDS would keep the old one without looking at the files.
    """
    if kind not in _BUILDERS:
        raise ValueError(f"{kind=} is not one of {', '.join(_BUILDERS)}")
    builder = _BUILDERS[kind](files=files, config_name=config_name, data_dir=os.fspath(data_dir))
    directory = pathlib.Path(builder.data_dir)
    if directory.exists():
        raise FileExistsError(f"{directory}: already prepared; remove it, or give another data_dir or config_name")
    builder.download_and_prepare()
    return directory
