"""The main job on real input: JSONL pairs and a checkpoint directory that transformers made, back to transformers."""

import json

import numpy as np
import pytest

from alignment.data import corpus
from alignment.models import decoder, hugging_face
from configs import common
from experiments import finetune

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random Llama with a byte-pair tokenizer and a chat template, as `save_pretrained` writes them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    directory = tmp_path_factory.mktemp("llama")
    texts = [r[k] for r in corpus.generate("pairs", 200, 0) for k in ("prompt", "chosen", "rejected")]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator(texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def test_pairs_and_a_transformers_checkpoint_become_a_checkpoint_that_transformers_loads(checkpoint, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(r) + "\n" for r in corpus.generate("pairs", 64, 0)))
    config = common.base()
    config.objective.dpo = {"beta": 0.1}
    config.metrics.reward_accuracy = {}
    config.model.hugging_face = str(checkpoint)
    config.data.update({"source": str(pairs), "eval_source": str(pairs), "batch_size": 8})
    config.training.update({"steps": 12, "eval_every": 6, "log_every": 1})
    config.optimizer.learning_rate = 1e-2
    result = finetune.run(config, tmp_path / "run")
    assert result["evaluation"]["loss"] < np.log(2) * 0.9

    trained = transformers.AutoModelForCausalLM.from_pretrained(result["hugging_face"], dtype=torch.float32)
    ours, params = hugging_face.load(result["hugging_face"])
    model = decoder.build(ours)
    tokens = np.random.default_rng(0).integers(2, ours.vocab_size, (2, 17))
    positions = np.broadcast_to(np.arange(17), tokens.shape)
    hidden, _ = model.hidden(params, tokens, positions, np.full(tokens.shape, 1024))
    with torch.no_grad():
        want = trained(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(model.unembed(params, hidden), want, atol=1e-4)
    original = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert not np.allclose(want, original(torch.tensor(tokens)).logits.detach().numpy(), atol=1e-2)

    # The tokenizer travels with the weights, so that the exported directory is whole.
    reloaded = transformers.AutoTokenizer.from_pretrained(result["hugging_face"])
    assert reloaded.encode("the cat") == transformers.AutoTokenizer.from_pretrained(checkpoint).encode("the cat")
