import json
import struct
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.checkpoints.safetensors import Tensor, read_shard
from mflux_api.errors import ModelCorrupt

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_a_header_tells_names_shapes_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"x": mx.zeros((2, 3), dtype=mx.bfloat16)}, {"made": "here"})
    shard = read_shard(path)
    (offset,) = (tensor.offset for tensor in shard.tensors.values())
    assert shard.tensors == {"x": Tensor((2, 3), "BF16", 12, offset=offset)}
    assert path.stat().st_size == offset + 12
    assert shard.metadata == {"made": "here"}


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_its_header_says_is_refused(tmp_path: Path, change: int) -> None:
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(str(path), {"x": mx.zeros((2, 3))})
    data = path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"\0")
    with pytest.raises(ModelCorrupt, match="Download it again"):
        read_shard(path)


def expect_refusal_or_shard(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        shard = read_shard(path)
    except ModelCorrupt:
        return
    assert shard.path == path


@given(data=st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    expect_refusal_or_shard(tmp_path_factory.getbasetemp() / "bytes.safetensors", data)


@given(
    header=st.dictionaries(
        st.text(max_size=8),
        json_values | st.fixed_dictionaries({"dtype": json_values, "shape": json_values, "data_offsets": json_values}),
        max_size=3,
    )
)
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: object) -> None:
    text = json.dumps(header).encode()
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    expect_refusal_or_shard(path, struct.pack("<Q", len(text)) + text)
