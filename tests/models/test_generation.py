"""CLCRForConditionalGeneration: its loss, generation, saving and loading, with three kinds of decoders."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from multifuse import CLCRConfig, CLCRForConditionalGeneration, MultimodalCollator, Sample
from multifuse.models.saved import SavedModelError
from tests.sizes import SMALL_SIZES

VOCABULARY = 30
IDS: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 24, **IDS}
BART = {
    "model_type": "bart",
    "d_model": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "max_position_embeddings": 24,
    "forced_eos_token_id": None,
    "decoder_start_token_id": 2,
    **IDS,
}
T5 = {
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    **IDS,
}
DECODERS = {"gpt2": GPT2, "bart": BART, "t5": T5}
WIDTHS = {"vision": 5, "audio": 3}
Model = CLCRForConditionalGeneration


def config(decoder: Any, **options: Any) -> CLCRConfig:
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    return CLCRConfig(modalities=modalities, decoder=decoder, **{**SMALL_SIZES, **options})


def model(decoder: Any = GPT2, **options: Any) -> Model:
    torch.manual_seed(0)
    network: Model = Model(config(decoder, **options)).eval()
    with torch.no_grad():  # so that what is said depends on the memory, and on what was said before
        for name, weight in network.decoder.named_parameters():
            if weight.ndim == 2:
                is_cross = any(part in name.lower() for part in ("cross", "encdec", "encoder_attn"))
                weight.normal_(std=1.0 if is_cross else 0.2)
    return network


def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(3, 6, width, generator=generator) for name, width in WIDTHS.items()}
    mask = {
        "vision": torch.arange(6) < torch.tensor([[6], [2], [0]]),
        "audio": torch.arange(6) < torch.tensor([[3], [6], [4]]),
    }
    return {"inputs": inputs, "mask": mask}


def labels() -> Tensor:
    given = torch.randint(3, VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(2))
    given[1, 3:] = -100
    return given


@pytest.fixture(scope="module", params=DECODERS)
def network(request: pytest.FixtureRequest) -> Model:
    return model(DECODERS[request.param])


def test_the_loss_is_the_mean_over_the_tokens_of_the_labels(network: Model) -> None:
    output = network(**batch(), labels=labels())
    assert output.logits.shape == (3, 5, VOCABULARY)
    expected = nn.functional.cross_entropy(output.logits.flatten(0, 1), labels().flatten())
    torch.testing.assert_close(output.loss, expected)
    assert list(output.terms) == ["task"]


def test_training_adds_the_regularisers_and_reaches_every_parameter(network: Model) -> None:
    network.train()
    output = network(**batch(), labels=labels())
    weighted = 0.1 * output.terms["intra_total"] + 0.1 * output.terms["inter_total"]
    torch.testing.assert_close(output.loss, output.terms["task"] + weighted)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    network.zero_grad()
    network.eval()
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]


def test_greedy_search_is_the_argmax_step_by_step_with_and_without_a_cache(network: Model) -> None:
    options = {"min_new_tokens": 5, "max_new_tokens": 5, **batch()}
    said = network.generate(**options)
    assert len(set(map(tuple, said.tolist()))) == 3  # what is said depends on the sample
    assert torch.equal(network.generate(**options, use_cache=False), said)
    memory = network.encode(**batch())
    logits = network(**memory, decoder_input_ids=said[:, :-1]).logits
    logits[:, :, IDS["eos_token_id"]] = -torch.inf
    assert torch.equal(logits.argmax(-1), said[:, 1:])


def test_as_many_beams_as_words_find_the_likeliest_two_words(network: Model) -> None:
    options: dict[str, Any] = {"min_new_tokens": 2, "max_new_tokens": 2, "num_beams": VOCABULARY}
    memory = network.encode(**batch())
    start = network.generate(**memory, max_new_tokens=1)[:, :1]
    first = network(**memory, decoder_input_ids=start).logits.log_softmax(-1)[:, 0]
    scores = []
    for word in range(VOCABULARY):
        both = torch.cat([start, torch.full_like(start, word)], dim=1)
        second = network(**memory, decoder_input_ids=both).logits.log_softmax(-1)[:, 1]
        scores.append(first[:, word, None] + second)
    likelihood = torch.stack(scores, dim=1)  # (B, first word, second word)
    end = IDS["eos_token_id"]
    likelihood[:, end] = likelihood[:, :, end] = -torch.inf
    best = likelihood.flatten(1).argmax(dim=1)
    expected = torch.stack([start[:, 0], best // VOCABULARY, best % VOCABULARY], dim=1)
    assert torch.equal(network.generate(**memory, **options), expected)
    assert len(memory["encoder_outputs"][0]) == 3  # beams do not repeat what was given in place


def test_sampling_gives_as_many_texts_as_asked_and_repeats_with_the_seed(network: Model) -> None:
    options = {"do_sample": True, "num_return_sequences": 2, "min_new_tokens": 4, "max_new_tokens": 4, **batch()}
    texts = []
    for _ in range(2):
        torch.manual_seed(3)
        texts.append(network.generate(**options))
    assert texts[0].shape == (6, 5)
    assert torch.equal(*texts)
    assert len({tuple(text) for text in texts[0].tolist()}) > 3


def test_a_batch_says_what_its_samples_say_without_padding(network: Model) -> None:
    given = batch()
    said = network.generate(**given, num_beams=3, min_new_tokens=5, max_new_tokens=5)
    for sample in range(3):
        inputs = {n: v[sample : sample + 1, given["mask"][n][sample]] for n, v in given["inputs"].items()}
        inputs = {name: values for name, values in inputs.items() if values.shape[1]}
        alone = network.generate(inputs, num_beams=3, min_new_tokens=5, max_new_tokens=5)
        assert torch.equal(alone[0], said[sample])


def test_a_saved_model_is_loaded_with_its_tied_weights_and_by_the_auto_class(network: Model, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    loaded, report = Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected = network(**batch(), labels=labels())
    assert torch.equal(loaded(**batch(), labels=labels()).logits, expected.logits)
    assert loaded.get_output_embeddings().weight is loaded.decoder.get_input_embeddings().weight
    options = {"min_new_tokens": 4, "max_new_tokens": 4, **batch()}
    assert torch.equal(AutoModelForSeq2SeqLM.from_pretrained(tmp_path).generate(**options), network.generate(**options))


def test_a_sample_without_any_modality_is_finite() -> None:
    given = batch()
    empty = {name: torch.zeros_like(real) for name, real in given["mask"].items()}
    assert model()(given["inputs"], empty, labels=labels()).logits.isfinite().all()


def test_a_memory_of_its_own_width_needs_no_projection() -> None:
    assert isinstance(model(T5).projection, nn.Identity)
    assert isinstance(model(BART).projection, nn.Linear)


def test_pretrained_weights_are_loaded_from_safetensors_only(tmp_path: Path) -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(**{key: value for key, value in GPT2.items() if key != "model_type"}))
    bart = BartForConditionalGeneration(BartConfig(**{key: v for key, v in BART.items() if key != "model_type"}))
    for name, pretrained in (("gpt2", gpt2), ("bart", bart)):
        folder = tmp_path / name
        pretrained.save_pretrained(folder)
        network = Model(config(CLCRConfig.decoder_config(str(folder))))
        network.load_decoder(str(folder))
        wanted = pretrained.state_dict()
        weights = network.decoder.state_dict()
        shared = [key for key in weights if key in wanted]
        assert len(shared) > 10
        assert all(torch.equal(weights[key], wanted[key]) for key in shared)
        (folder / "model.safetensors").unlink()
        torch.save(wanted, folder / "pytorch_model.bin")
        with pytest.raises(OSError, match="safetensors"):
            network.load_decoder(str(folder))


def test_a_large_vocabulary_that_is_tied_is_counted_once_when_a_folder_is_checked(tmp_path: Path) -> None:
    network = Model(config({**BART, "vocab_size": 80_000}))
    network.save_pretrained(tmp_path)
    assert Model.from_pretrained(tmp_path).config.decoder.vocab_size == 80_000
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "decoder": {**saved["decoder"], "vocab_size": 2**40}}))
    with pytest.raises(SavedModelError, match=r"config.json declares .* weights"):
        Model.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (None, "config.decoder must be the config of a decoder, got None"),
        ({"n_embd": 8}, "decoder must be a transformers config's dict with 'model_type', got {'n_embd': 8}"),
        ({"model_type": "gpt3"}, "decoder must be a transformers model with a decoder, got 'gpt3'"),
        ({"model_type": "resnet"}, "decoder must be a transformers model with a decoder, got 'resnet'"),
        ({"model_type": "clcr"}, "decoder must be a transformers model with a decoder, got 'clcr'"),
        (
            {
                "model_type": "llama",
                "hidden_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "vocab_size": 9,
            },
            "decoder must have cross-attention, LlamaForCausalLM has none",
        ),
        ({**GPT2, "attn_implementation": "someone/kernel"}, "not code from the Hub, got 'someone/kernel'"),
        ({**GPT2, "bos_token_id": None}, "config.decoder must have a decoder_start_token_id or a bos_token_id"),
    ],
)
def test_a_decoder_that_cannot_be_used_is_named(decoder: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Model(config(decoder))(**batch(), labels=labels())


def test_labels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels must be class indices from 0 to 29, .* got 30"):
        model()(**batch(), labels=torch.full((3, 2), VOCABULARY))
    with pytest.raises(ValueError, match=r"integers of shape \(3, 4\), got torch.int64 \(3, 5\)"):
        model()(**batch(), labels=labels(), decoder_input_ids=labels()[:, 1:].abs() % VOCABULARY)
    with pytest.raises(ValueError, match=r"decoder_input_ids must be from 0 to 29, .* got 30 at sample 0, token 0"):
        model()(**batch(), decoder_input_ids=torch.full((3, 2), VOCABULARY))
    with pytest.raises(ValueError, match="labels or decoder_input_ids must be given"):
        model()(**batch())
    for call in (model(), model().generate):
        with pytest.raises(ValueError, match="inputs or encoder_outputs must be given"):
            call()


def test_the_trainer_of_transformers_trains_and_generates(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [
        Sample({"audio": torch.randn(2 + kind, 3, generator=generator) + 3 * kind}, [5 + kind] * (2 + kind) + [2])
        for kind in (0, 1) * 8
    ]
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        max_steps=50,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        predict_with_generate=True,
        generation_max_length=8,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    torch.manual_seed(0)
    network = Model(config(GPT2, dropout=0.0))
    trainer = Seq2SeqTrainer(network, arguments, data_collator=MultimodalCollator(), train_dataset=samples)
    trainer.train()
    predicted = trainer.predict(samples)
    said = [[token for token in row if token not in (-100, 0, 1)] for row in predicted.predictions.tolist()]
    assert said == [sample.label for sample in samples]
    assert predicted.metrics["test_loss"] < 1


def test_arguments_that_would_be_ignored_are_refused() -> None:
    network, given = model(), batch()
    memory = network.encode(**given)
    with pytest.raises(ValueError, match="inputs and mask must not be given beside encoder_outputs"):
        network.generate(**given, **memory)
    with pytest.raises(ValueError, match="attention_mask is that of encoder_outputs, which are not given"):
        network.generate(given["inputs"], attention_mask=memory["attention_mask"])
    with pytest.raises(ValueError, match=r"labels must have shape \(batch, tokens\) with tokens"):
        network(**given, labels=torch.empty(len(memory["attention_mask"]), 0, dtype=torch.long))


def test_an_offloaded_model_and_one_that_returns_tuples_generate_the_same(tmp_path: Path) -> None:
    network, given = model().eval(), batch()
    network.save_pretrained(tmp_path)
    expected = network.generate(**given, num_beams=2, max_new_tokens=4)
    for options in ({"device_map": {"": "disk"}, "offload_folder": tmp_path / "disk"}, {"return_dict": False}):
        loaded = CLCRForConditionalGeneration.from_pretrained(tmp_path, **options).eval()
        assert torch.equal(loaded.generate(**given, num_beams=2, max_new_tokens=4), expected)
    assert isinstance(loaded(**given, labels=labels()), tuple)


def test_the_decoder_reads_every_label_that_counts_and_none_that_is_ignored(
    network: CLCRForConditionalGeneration,
) -> None:
    """An ignored label in the middle is hidden from what follows it, and the last real one is not."""
    given = labels()
    given[0, 2] = -100
    logits = network(**batch(), labels=given).logits
    read = network.prepare_decoder_input_ids_from_labels(given)
    mask = torch.ones_like(read, dtype=torch.bool)
    mask[:, 1:] = given[:, :-1] != -100
    ignored = read.clone()
    ignored[~mask] = VOCABULARY - 1
    expected = network(**batch(), decoder_input_ids=ignored, decoder_attention_mask=mask).logits
    counted = given != -100
    # The position that reads an ignored label predicts from the ones before it; what it reads itself is not compared.
    torch.testing.assert_close(logits[counted & mask], expected[counted & mask])
    other = given.clone()
    other[1, 2] = (given[1, 2] + 1) % VOCABULARY  # the last real label of the second sample: it is read one later
    changed = network(**batch(), labels=other).logits
    assert not torch.allclose(changed[1, 3], logits[1, 3], atol=1e-4)
