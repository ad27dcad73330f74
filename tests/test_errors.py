import pickle

import pytest

from raydream.errors import DiskFullError, InputError, RaydreamError, ShardError, StallError, SynthesisError


def test_an_input_error_is_one_sentence_with_field_value_range_and_remedy():
    error = InputError("student.workers", 3, "a divisor of 256", "change one of the two")
    assert str(error) == "student.workers = 3: must be a divisor of 256; change one of the two."
    assert isinstance(error, RaydreamError) and isinstance(error, ValueError)


@pytest.mark.parametrize("value", [3, "text", None, (0.1, 0.2), float("inf")])
def test_an_input_error_survives_pickling(value):
    error = InputError("a.b", value, "something else", "change it")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InputError and str(copy) == str(error)
    assert (copy.field, copy.value, copy.allowed, copy.remedy) == ("a.b", value, "something else", "change it")


@pytest.mark.parametrize("kind", [RaydreamError, SynthesisError, ShardError, DiskFullError, StallError])
def test_other_errors_survive_pickling(kind):
    copy = pickle.loads(pickle.dumps(kind("what happened")))
    assert type(copy) is kind and str(copy) == "what happened" and isinstance(copy, RaydreamError)


def test_a_stall_is_a_timeout():
    assert issubclass(StallError, TimeoutError)
