import mlx.core as mx

from mflux_api.engine.flux2.prompt_encoder import EmbeddingCache
from mflux_api.engine.model import Model


def entry(size: int = 100) -> mx.array:
    return mx.zeros((size,), dtype=mx.uint8)


def test_the_least_recently_used_prompt_goes_first() -> None:
    cache = EmbeddingCache(250)
    cache.put("a", entry())
    cache.put("b", entry())
    assert cache.get("a") is not None
    cache.put("c", entry())
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.size == 200


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = EmbeddingCache(99)
    cache.put("a", entry())
    assert (cache.get("a"), cache.size) == (None, 0)


def test_a_prompt_is_padded_and_cut_to_the_models_length(tiny: Model) -> None:
    length = tiny.pipeline.checkpoint.max_sequence_length
    for prompt in ("", "a red circle", "word " * 500):
        ids, mask = tiny.pipeline.prompt_encoder.tokenize(prompt)
        assert ids.shape == mask.shape == (1, length)


def test_an_embedding_stacks_the_states_the_checkpoint_names(tiny: Model) -> None:
    checkpoint = tiny.pipeline.checkpoint
    embedding = tiny.pipeline.prompt_encoder.encode("a red circle")
    hidden = checkpoint.text_encoder.config["hidden_size"]
    assert embedding.shape == (1, checkpoint.max_sequence_length, len(checkpoint.out_layers) * hidden)
