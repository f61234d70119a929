"""Reserved keys and values against what transformers' own layer holds."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen3NextConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from nashtune.samplers.batching import compacted
from nashtune.samplers.kv_cache import ReservedLayer, RowCache


def states(rows, length, generator):
    return (torch.randn(rows, 2, length, 4, generator=generator) for _ in range(2))


def test_a_layer_holds_what_transformers_own_layer_holds_and_copies_no_row_that_stays():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ReservedLayer(), DynamicLayer()

    def both(call, *arguments):
        found, expected = (getattr(layer, call)(*arguments) for layer in (ours, theirs))
        if found is not None:
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)

    both("update", *states(3, 5, generator))
    rows = torch.tensor([0, 0, 1, 2, 2, 2])
    ours.spread(rows, 9)
    theirs.batch_select_indices(rows)
    place = ours.keys.data_ptr()
    both("update", *states(6, 1, generator))
    for alive in ([0, 2, 3, 5], [1, 3]):
        order = compacted(alive)
        ours.keep(order)
        theirs.batch_select_indices(torch.tensor(order))
        both("update", *states(len(alive), 1, generator))
    assert ours.keys.data_ptr() == place
    assert ours.keys.shape == (2, 2, 8, 4)


@pytest.mark.parametrize("alive", [[0], [5], [0, 1, 2], [3, 4, 5], [0, 2, 4], [1, 3, 5], [0, 1, 2, 3, 4, 5]])
def test_compaction_moves_the_fewest_rows(alive):
    order = compacted(alive)
    assert sorted(order) == alive
    moved = [(to, source) for to, source in enumerate(order) if to != source]
    assert len(moved) == sum(slot >= len(alive) for slot in alive)
    assert not {to for to, _ in moved} & {source for _, source in moved}


def test_layers_with_a_window_keep_transformers_own_and_a_recurrent_state_is_refused():
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    assert [type(layer) for layer in RowCache(LlamaConfig(**shape)).layers] == [ReservedLayer] * 2
    windowed = RowCache(MistralConfig(sliding_window=4, **shape))
    assert [type(layer) for layer in windowed.layers] == [DynamicSlidingWindowLayer] * 2
    with pytest.raises(TypeError, match="layer 0 keeps a LinearAttentionLayer"):
        RowCache(Qwen3NextConfig(**shape))


def test_under_autocast_states_are_kept_as_attention_reads_them():
    generator = torch.Generator().manual_seed(0)
    keys, values = states(2, 3, generator)
    layer = ReservedLayer()
    with torch.autocast("cpu", torch.bfloat16):
        layer.update(keys, values)
        assert torch.equal(layer.keys, keys.bfloat16())
        with torch.autocast("cpu", enabled=False):
            assert ReservedLayer().update(keys, values)[0] is keys
