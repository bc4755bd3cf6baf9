"""Tokenizers behind one small interface: bytes without any file, or a Hugging Face `tokenizer.json`.

Neither adds special tokens in `encode`: where a sequence begins and ends is decided once, in `alignment.data.rows`.
Padding is decided by masks and never by comparing with `pad_id`, so `pad_id == eos_id` is harmless.
"""

import datetime
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alignment.data.formats import DataError, Message

# What `save_pretrained` and older tools write of a tokenizer.
_FILES = {
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model"),
}


class Tokenizer(Protocol):
    bos_id: int | None
    eos_id: int
    pad_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; nothing is added before or after."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""

    def render_chat(self, messages: Sequence[Message | Mapping[str, str]], add_generation_prompt: bool) -> str:
        """The text of a conversation; with `add_generation_prompt`, up to where the assistant's answer begins."""

    def prefix_ids(self, chat: bool) -> list[int]:
        """What stands before the encoded prompt (a begin token, or nothing); `chat` for rendered conversations."""

    def copy_files(self, directory: str | os.PathLike) -> None:
        """Puts the tokenizer's own files into a directory beside a model's, where it has any."""


class ByteTokenizer:
    """UTF-8 bytes 0..255, then pad, bos and eos. The vocabulary is rounded up to 320, a multiple of 64."""

    pad_id, bos_id, eos_id = 256, 257, 258
    vocab_size = 320

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        # Sampled bytes need not be UTF-8.
        return bytes(int(i) for i in ids if i < 256).decode("utf-8", errors="replace")

    def render_chat(self, messages: Sequence[Message | Mapping[str, str]], add_generation_prompt: bool) -> str:
        text = "".join(f"{m['role']}: {m['content']}\n" for m in _as_dicts(messages))
        # The end token stands for the newline of the turn being learnt, so that line must not end twice.
        return text + "assistant: " if add_generation_prompt else text.removesuffix("\n")

    def prefix_ids(self, chat: bool) -> list[int]:
        return [self.bos_id]

    def copy_files(self, directory: str | os.PathLike) -> None:
        """Bytes need no file."""

    def pieces(self) -> dict[str, int]:
        return {f"byte {i}": i for i in range(256)} | {"pad": self.pad_id, "bos": self.bos_id, "eos": self.eos_id}


class HuggingFaceTokenizer:
    """A tokenizer directory as `save_pretrained` writes it: tokenizer.json, tokenizer_config.json and
    perhaps chat_template.jinja.

    Reads with the `tokenizers` package; transformers is not needed. Prompt and completion are encoded apart, as at
    sampling time; a tokenizer that puts a blank before every text (Llama 2) therefore also puts one before completions.
    A template runs in jinja2's immutable sandbox.
    """

    def __init__(self, directory: str | os.PathLike):
        try:
            import tokenizers
        except ImportError as error:
            raise ImportError(f"{directory}: this tokenizer needs: pip install alignment[huggingface]") from error
        self.directory = pathlib.Path(directory)
        path = self.directory / "tokenizer.json"
        if not path.exists():
            raise DataError(
                f"{path}: no such file; a tokenizer directory holds tokenizer.json and tokenizer_config.json"
            )
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # `tokenizers` raises a bare Exception
            raise DataError(f"{path}: not a tokenizer: {error}") from error
        # A file may carry truncation or padding of its own, which would act unseen.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = _read_json(self.directory / "tokenizer_config.json")
        self._special = {
            name: _token_text(self._config[name])
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
            if self._config.get(name) is not None
        }
        self.bos_id = self._id("bos_token")
        eos_id = self._id("eos_token")
        if eos_id is None:
            raise DataError(
                f"{self.directory / 'tokenizer_config.json'}: field 'eos_token' is missing; completions need an end"
            )
        self.eos_id = eos_id
        pad_id = self._id("pad_token")
        self.pad_id = eos_id if pad_id is None else pad_id
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.chat_template = self._read_template()
        self._compiled = None

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def prefix_ids(self, chat: bool) -> list[int]:
        if chat or self.bos_id is None:  # A chat template writes its own begin token.
            return []
        by_file = self._tokenizer.encode("", add_special_tokens=True).ids[:1] == [self.bos_id]
        return [self.bos_id] if self._config.get("add_bos_token", by_file) else []

    def render_chat(self, messages: Sequence[Message | Mapping[str, str]], add_generation_prompt: bool) -> str:
        if self.chat_template is None:
            raise DataError(
                f"{self.directory}: has no chat_template; allowed: in tokenizer_config.json or chat_template.jinja"
            )
        if self._compiled is None:
            self._compiled = _template_environment().from_string(self.chat_template)
        import jinja2

        try:
            return self._compiled.render(
                messages=_as_dicts(messages), add_generation_prompt=add_generation_prompt, **self._special
            )
        except jinja2.TemplateError as error:
            raise DataError(f"{self.directory}: chat_template refuses the conversation: {error}") from error

    def copy_files(self, directory: str | os.PathLike) -> None:
        for path in self.directory.iterdir():
            if path.name in _FILES or path.name.startswith("chat_template"):
                shutil.copy(path, pathlib.Path(directory) / path.name)
        if (templates := self.directory / "additional_chat_templates").is_dir():
            shutil.copytree(templates, pathlib.Path(directory) / templates.name, dirs_exist_ok=True)

    def pieces(self) -> dict[str, int]:
        """What each number stands for, as the tokenizer itself spells it."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def _id(self, name: str) -> int | None:
        if name not in self._special:
            return None
        found = self._tokenizer.token_to_id(self._special[name])
        if found is None:
            raise DataError(
                f"{self.directory}: {name} {self._special[name]!r} of tokenizer_config.json is not in tokenizer.json"
            )
        return found

    def _read_template(self) -> str | None:
        path = self.directory / "chat_template.jinja"
        if path.exists():
            return path.read_text(encoding="utf-8")
        template = self._config.get("chat_template")
        if isinstance(template, list):  # several named templates
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template


def _template_environment():
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError as error:
        raise ImportError("chat templates need jinja2: pip install alignment[huggingface]") from error

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks the assistant's text for other tools; here it only passes its body on."""

        tags = frozenset({"generation"})

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    def refuse(message):
        raise jinja2.TemplateError(message)

    # Block trimming and these helpers are what published templates are written for.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _as_dicts(messages: Sequence[Message | Mapping[str, str]]) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} if isinstance(m, Message) else dict(m) for m in messages]


def _token_text(value: Any) -> str:
    return value["content"] if isinstance(value, Mapping) else value


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; it names the bos, eos and pad tokens") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: invalid JSON: {error.msg}") from error
