"""Learns to say in a sentence what happens in synthetic clips of features: CLCR in front of a small GPT-2.

    python examples/caption_clips.py --seed 0

In every clip a tone sounds and a square moves, which the caption names: "a loud tone rises before a red square moves
left". Which of them comes first can be read from neither modality alone. All weights start fresh, and no files are
needed. Sentences for new clips are compared with the captions word for word, and the share of those that are right is
printed beside that of the sentence that is most frequent in training, and of the same decoder behind the encoders
alone, without exchange, weights and regularisers.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Seq2SeqTrainer, Seq2SeqTrainingArguments

from multifuse import CLCRConfig, CLCRForConditionalGeneration, MultimodalCollator, Sample

LOUDNESS = {"quiet": 1.0, "loud": 2.0}
CONTOURS = {"rises": (-1.0, 1.0), "falls": (1.0, -1.0), "holds": (0.0, 0.0)}
COLOURS = ("red", "green", "blue", "white")
MOVES = {"left": (0, -1.0), "right": (0, 1.0), "up": (1, 1.0), "down": (1, -1.0)}
ORDERS = {"before": (0.0, 0.6), "while": (0.3, 0.3), "after": (0.6, 0.0)}
"""When the tone and the square begin, as shares of the clip."""
SPECIAL = ("<pad>", "<start>", "<end>")
FRAMES = {"audio": 24, "vision": 16}
WIDTH = 8
NO_FUSION = {"use_intra_ced": False, "use_inter_cad": False, "lambda_intra": 0.0, "lambda_inter": 0.0}


def clip(generator: torch.Generator) -> tuple[dict[str, torch.Tensor], str]:
    """Draws a clip of features (T, D) by modality, of a length of its own, and its caption."""

    def drawn(names: Collection[str]) -> str:
        return list(names)[int(torch.randint(len(names), (), generator=generator))]

    loudness, contour, colour = drawn(LOUDNESS), drawn(CONTOURS), drawn(COLOURS)
    move, order = drawn(MOVES), drawn(ORDERS)
    length = 0.8 + 0.2 * float(torch.rand((), generator=generator))  # the events stay whole
    inputs = {
        name: 0.3 * torch.randn(int(frames * length), WIDTH, generator=generator) for name, frames in FRAMES.items()
    }
    for (name, values), start in zip(inputs.items(), ORDERS[order], strict=True):
        jitter = 0.05 * float(torch.rand((), generator=generator))
        first, count = int((start + jitter) * len(values)), int(0.3 * len(values))
        event = values[first : first + count]
        if name == "audio":
            event[:, 0] += LOUDNESS[loudness]
            event[:, 1] += 1.5 * torch.linspace(*CONTOURS[contour], count)
        else:
            event[:, COLOURS.index(colour)] += 1.5
            axis, direction = MOVES[move]
            event[:, len(COLOURS) + axis] += 1.5 * torch.linspace(-direction, direction, count)
    return inputs, f"a {loudness} tone {contour} {order} a {colour} square moves {move}"


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer that knows the words of all captions."""
    words = [*SPECIAL, "a", "tone", "square", "moves", *LOUDNESS, *CONTOURS, *COLOURS, *MOVES, *ORDERS]
    model = WordLevel({word: index for index, word in enumerate(words)})
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    pad, start, end = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=start, eos_token=end)


def samples(count: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> tuple[list[Sample], list[str]]:
    """Returns clips whose labels are the token ids of their captions, and the captions."""
    generator = torch.Generator().manual_seed(seed)
    inputs, captions = zip(*(clip(generator) for _ in range(count)), strict=True)
    labels = tokenizer([f"{caption} {tokenizer.eos_token}" for caption in captions])["input_ids"]
    return [Sample(given, label) for given, label in zip(inputs, labels, strict=True)], list(captions)


def captioner(tokenizer: PreTrainedTokenizerFast, size: int, **switches: Any) -> CLCRForConditionalGeneration:
    decoder = {
        "model_type": "gpt2",
        "vocab_size": len(tokenizer),
        "n_embd": size,
        "n_layer": 1,
        "n_head": 4,
        "n_positions": 32,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    modalities = {name: {"encoder": "temporal_conv", "input_size": WIDTH} for name in FRAMES}
    sizes = {"hidden_size": size, "shared_rank": size // 2, "private_rank": size // 4, "dropout": 0.0}
    return CLCRForConditionalGeneration(CLCRConfig(modalities=modalities, decoder=decoder, **sizes, **switches))


def trained(model: CLCRForConditionalGeneration, data: list[Sample], args: argparse.Namespace, folder: str) -> Any:
    """Trains a model, and returns the trainer, which also generates."""
    arguments = Seq2SeqTrainingArguments(
        folder,
        num_train_epochs=args.epochs,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=256,
        learning_rate=3e-3,
        warmup_steps=0.1,
        max_grad_norm=1.0,
        predict_with_generate=True,
        generation_max_length=16,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="epoch",
        disable_tqdm=True,
        seed=args.seed,
    )
    trainer = Seq2SeqTrainer(model, arguments, data_collator=MultimodalCollator(), train_dataset=data)
    trainer.train()
    return trainer


def sentences(trainer: Any, data: list[Sample], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    tokens = trainer.predict(data).predictions
    tokens[tokens < 0] = tokenizer.pad_token_id
    return [str(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def exact_match(said: list[str], captions: list[str]) -> float:
    """Returns the share in % of sentences that are the caption, word for word."""
    return 100 * sum(map(str.__eq__, said, captions)) / len(captions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train-samples", type=int, default=2048)
    parser.add_argument("--test-samples", type=int, default=1024)
    parser.add_argument("--size", type=int, default=64, help="width of the tokens and of the decoder")
    args = parser.parse_args()
    tokenizer = word_tokenizer()
    data, captions = samples(args.train_samples, args.seed, tokenizer)
    test, expected = samples(args.test_samples, args.seed + 1_000_000, tokenizer)
    frequent = Counter(captions).most_common(1)[0][0]
    said: dict[str, list[str]] = {"the most frequent caption": [frequent] * len(test)}
    for name, switches in {"CLCR": {}, "without fusion": NO_FUSION}.items():
        torch.manual_seed(args.seed)
        with tempfile.TemporaryDirectory() as folder:
            trainer = trained(captioner(tokenizer, args.size, **switches), data, args, folder)
            said[name] = sentences(trainer, test, tokenizer)
    print(f"| model | exact match in %, {len(test)} new clips |\n|---|---|")
    for name, texts in said.items():
        print(f"| {name} | {exact_match(texts, expected):.1f} |")
    for caption, text in list(zip(expected, said["CLCR"], strict=True))[:3]:
        print(f"\ncaption:  {caption}\nsentence: {text}")


if __name__ == "__main__":
    main()
