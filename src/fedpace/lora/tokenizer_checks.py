"""A tokenizer beside its model: whether it knows words, and whether the model knows its tokens."""

from typing import Any

from fedpace.core.errors import InputError

_MANY = 1000
"""A tokenizer of more tokens than this knows words."""


def check_vocabulary(name: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that knows no words.

    transformers makes an empty one where the tokenizer's files are missing.

    Raises:
        InputError: its vocabulary is special tokens alone.
    """
    if len(tokenizer) > _MANY:
        return
    words = {w.strip("▁Ġ ") for w in tokenizer.get_vocab()} - set(tokenizer.all_special_tokens)
    if len({word for word in words if word and not word.startswith("<extra_id_")}) < 2:
        raise InputError(
            f'the tokenizer of model "{name}" knows no words ({len(tokenizer)} special tokens '
            "alone); its files are missing or empty: save the tokenizer beside the model "
            "(tokenizer.save_pretrained), or copy tokenizer.json there"
        )


def check_padding(name: str, model: Any, tokenizer: Any) -> None:
    """Give models without a padding token (GPT-2, Llama) the end-of-text token for it.

    Padding is masked out of attention and of the loss, so any token of the embedding serves; so it
    does for a padding token that was added to the tokenizer and not to the model.

    Raises:
        InputError: there is neither, or other tokens lie beyond the embedding.
    """
    known = model.get_input_embeddings().weight.shape[0]
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    beyond = sorted({i for i in tokenizer.get_vocab().values() if i >= known} - {pad})
    if beyond:
        raise InputError(
            f'the tokenizer of model "{name}" has {len(tokenizer)} tokens and the model only '
            f"{known}; they do not belong together, or the embedding was not resized"
        )
    if pad is not None and pad < known:
        model.config.pad_token_id = pad
        return
    if end is None or end >= known:
        if pad is None:
            raise InputError(
                f'the tokenizer of model "{name}" has neither a padding nor an end-of-text '
                "token; set one of them in its tokenizer_config.json"
            )
        raise InputError(
            f'the tokenizer of model "{name}" has a padding token {tokenizer.pad_token} ({pad}) '
            f"beyond the embedding of {known}; resize the embedding, or remove pad_token from "
            "tokenizer_config.json and name a token of the model there"
        )
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = end
