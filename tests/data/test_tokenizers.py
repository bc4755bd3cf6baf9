"""Both tokenizers: no special tokens of their own, chat templates, one end token even when pad == eos."""

import json

import pytest

from alignment.data import collating, formats, rows
from alignment.data.formats import Completion, DataError, Message, Pair
from alignment.data.tokenizers import ByteTokenizer, HuggingFaceTokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% generation %}{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = (Message("user", "who are you"),)


def make(directory, *, template=CHATML, eos="<|im_end|>", pad="<|im_end|>", bos=None, template_file=False, **config):
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    specials = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=specials,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["who are you? i am the model, said the model"], trainer)
    # Both act unseen when they stand in the file, and must not act here.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    directory.mkdir(exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config |= {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    if template_file:
        (directory / "chat_template.jinja").write_text(template)
    else:
        config["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return HuggingFaceTokenizer(directory)


@pytest.mark.parametrize("text", ["", "who are you?", "Grüße, 日本 🙂", " a\n\tb ", "x" * 100])
def test_decode_undoes_encode_and_nothing_is_added(tmp_path, text):
    for tokenizer in (ByteTokenizer(), make(tmp_path / "t")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size for i in (*ids, tokenizer.eos_id, tokenizer.pad_id))
        assert tokenizer.eos_id not in ids


def test_decode_leaves_out_special_tokens_and_survives_broken_utf8():
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 320
    assert tokenizer.decode([257, 104, 105, 258, 256, 256]) == "hi"
    assert tokenizer.decode([0xFF, 104]) == "\ufffdh"


def test_end_token_is_trained_although_pad_is_the_same_token(tmp_path):
    tokenizer = make(tmp_path / "t")
    assert tokenizer.pad_id == tokenizer.eos_id
    (example,), _ = rows.tokenize([Completion("who", "the model")], tokenizer, prompt_length=4, completion_length=16)
    batch = collating.collate_trees([example], 4, 16, 1, pad_id=tokenizer.pad_id)
    scored = batch["targets"][0, 0][batch["mask"][0, 0]]
    assert scored[-1] == tokenizer.eos_id and (scored == tokenizer.eos_id).sum() == 1
    assert batch["last_index"][0, 0] == 4 + len(scored) - 1


@pytest.mark.parametrize("template_file", [False, True])
def test_chat_answer_has_one_end_token_and_nothing_behind_it(tmp_path, template_file):
    tokenizer = make(tmp_path / "t", template_file=template_file)
    (example,), _ = rows.tokenize([Completion(CHAT, "i am")], tokenizer, prompt_length=32, completion_length=16)
    assert list(example.prompt) == tokenizer.encode("<|im_start|>user\nwho are you<|im_end|>\n<|im_start|>assistant\n")
    assert list(example.completions[0]) == [*tokenizer.encode("i am"), tokenizer.eos_id]


def test_end_token_is_added_when_the_template_ends_with_another(tmp_path):
    tokenizer = make(tmp_path / "t", eos="</s>", pad=None)
    (example,), _ = rows.tokenize([Completion(CHAT, "i am")], tokenizer, prompt_length=32, completion_length=16)
    assert list(example.completions[0]) == [*tokenizer.encode("i am<|im_end|>\n"), tokenizer.eos_id]
    assert tokenizer.pad_id == tokenizer.eos_id  # no pad token of its own


def test_begin_token_as_the_files_say_and_never_twice(tmp_path):
    plain = make(tmp_path / "a", bos="<s>", add_bos_token=True, template="{{ bos_token }}" + CHATML)
    for prompt in ("who", CHAT):
        ids = rows.encode_prompt(prompt, plain)
        assert ids[0] == plain.bos_id and ids.count(plain.bos_id) == 1
    without = make(tmp_path / "b", bos="<s>")
    assert rows.encode_prompt("who", without) == without.encode("who")
    with pytest.raises(DataError, match="x:1: field 'prompt' has no tokens"):
        examples = formats.from_records([{"prompt": "", "completion": "a"}], "completion", "x")
        rows.tokenize(examples, without, prompt_length=4, completion_length=4)


def test_byte_tokenizer_chat_splits_into_prompt_and_answer():
    (example,), _ = rows.tokenize([Completion(CHAT, "me")], ByteTokenizer(), prompt_length=64, completion_length=8)
    assert bytes(example.prompt[1:].tolist()) == b"user: who are you\nassistant: "
    assert example.completions[0].tolist() == [*b"me", 258]


def test_sides_that_a_template_makes_equal_are_not_trained_on(tmp_path):
    tokenizer = make(tmp_path / "t", template=CHATML.replace("message['content']", "message['content'] | trim"))
    examples = [Pair(CHAT, "a", "a ", where="x:1"), Pair(CHAT, "a", "b", where="x:2")]
    with pytest.raises(DataError, match=r"x:1.*same tokens"):
        rows.tokenize(examples, tokenizer, prompt_length=32, completion_length=8)
    kept, report = rows.tokenize(examples, tokenizer, prompt_length=32, completion_length=8, too_long="drop")
    assert [e.id for e in kept] == [1] and report.dropped_equal == 1


def test_template_faults_are_data_errors(tmp_path):
    refusing = make(tmp_path / "a", template="{{ raise_exception('only users') }}")
    with pytest.raises(DataError, match="only users"):
        refusing.render_chat(CHAT, True)
    rewriting = make(tmp_path / "b", template="{{ messages | length }}{{ messages[-1]['content'] }}")
    with pytest.raises(DataError, match=r"y:3.*chat template"):
        rows.tokenize([Completion(CHAT, "a", where="y:3")], rewriting, prompt_length=8, completion_length=8)
    # The sandbox keeps a downloaded template from reaching Python's insides.
    hostile = make(tmp_path / "c", template="{{ messages.__class__.__mro__ }}{{ ''.__class__.__subclasses__() }}")
    with pytest.raises(DataError, match=r"unsafe|access"):
        hostile.render_chat(CHAT, True)


def test_missing_files_and_tokens_are_named(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file"):
        HuggingFaceTokenizer(tmp_path)
    with pytest.raises(DataError, match="eos_token"):
        make(tmp_path / "a", eos=None)
    with pytest.raises(DataError, match=r"'<nope>'.*not in tokenizer\.json"):
        make(tmp_path / "b", eos="<nope>")
    with pytest.raises(DataError, match="no chat_template"):
        make(tmp_path / "c", template=None).render_chat(CHAT, True)


def test_named_templates_and_token_objects(tmp_path):
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
    tokenizer = make(tmp_path / "t", template=named, eos={"content": "<|im_end|>", "lstrip": False})
    assert tokenizer.render_chat(CHAT, False) == "<|im_start|>user\nwho are you<|im_end|>\n"


def test_rendering_and_ids_equal_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = make(tmp_path / "t", template="{{ bos_token }}\n  {% if true %}\n" + CHATML + "\n  {% endif %}\n", bos="<s>")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "t")
    turns = [{"role": "user", "content": " who\n"}, {"role": "assistant", "content": "i <|im_end|> am"}]
    for add in (False, True):
        text = theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=add)
        assert ours.render_chat(turns, add) == text
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
