import numpy as np
import pytest
import safetensors.numpy

from raydream.store.safetensors_file import metadata_of


@pytest.mark.parametrize("metadata", [{"digest": "ab", "ü": '{"a": 1}'}, {}, None])
def test_the_header_has_what_was_written_beside_the_tensors(metadata):
    content = safetensors.numpy.save({"weights": np.arange(300)}, metadata)
    assert metadata_of(content) == (metadata or {})
