"""What README.md shows is what happens: its Python runs, its records are read, its commands and links name files."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from alignment import losses, metrics, objective
from alignment.data import formats
from configs import common

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_examples_print_what_they_show():
    session = "".join(b for b in blocks("python") if ">>>" in b)
    test = doctest.DocTestParser().get_doctest(session, {}, "README.md", "README.md", 0)
    assert test.examples
    said = []
    with np.printoptions():  # the session sets the precision, and other tests shall not see it
        doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("source", [b for b in blocks("python") if ">>>" not in b])
def test_a_config_of_the_readme_has_known_keys_and_binds(source):
    namespace = {}
    exec(source, namespace)
    config = namespace["get_config"]()
    common.check_keys(config, common.base())
    common.check_numbers(config)
    for section, kernels in (("objective", losses), ("metrics", metrics)):
        assert objective.bind(config[section].to_dict(), kernels, section, ("chosen", "rejected"), ())


def test_its_records_are_pairs(tmp_path):
    (records,) = blocks("json")
    (tmp_path / "pairs.jsonl").write_text(records)
    assert len(formats.read(tmp_path / "pairs.jsonl", "pairs")) == len(records.splitlines())


def test_its_links_and_configs_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    configs = re.findall(r"--config=(configs/\S+)", TEXT)
    assert links
    assert configs
    assert not [p for p in (*links, *configs) if not (ROOT / p).exists()]
