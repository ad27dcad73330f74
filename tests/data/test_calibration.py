"""Images for other tools' quantizers: the same pixels in each form, normalized as a teacher sees them."""

import numpy as np
import onnxruntime.quantization
import pytest
import torch

from raydream.data.calibration import CalibrationImages
from raydream.data.image_set import ImageSet
from raydream.errors import InputError
from raydream.teachers.normalization import Normalization
from tests.tiny import finished_images

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.25)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 3, 4, 5), dtype=np.uint8)


def test_batches_are_what_a_teacher_sees_to_the_bit(pixels):
    batches = list(CalibrationImages(pixels, MEAN, STD, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert torch.equal(torch.cat(batches), Normalization(MEAN, STD)(torch.from_numpy(pixels)))


def test_onnx_runtime_takes_it_as_a_reader_and_can_begin_again(pixels):
    reader = CalibrationImages(pixels, MEAN, STD, batch_size=4, input_name="x")
    assert isinstance(reader, onnxruntime.quantization.CalibrationDataReader)
    for _ in range(2):
        fed = list(iter(reader.get_next, None))
        assert reader.get_next() is None
        assert np.array_equal(np.concatenate([each["x"] for each in fed]), torch.cat(list(reader)).numpy())
        reader.rewind()


def test_files_hold_the_batches(pixels, tmp_path):
    images = CalibrationImages(pixels, MEAN, STD, batch_size=4)
    paths = images.save(tmp_path / "a" / "b")
    assert [path.name for path in paths] == ["00000.npy", "00001.npy", "00002.npy"]
    assert sorted(paths) == sorted((tmp_path / "a" / "b").iterdir())
    assert np.array_equal(np.concatenate([np.load(path) for path in paths]), torch.cat(list(images)).numpy())
    with pytest.raises(InputError, match="new or empty"):
        images.save(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"mean": (0.3,)}, "mean"),
        ({"std": (0.3, 0.3)}, "std"),
        ({"std": (0.3, 0.0, 0.3)}, "std"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(given, field, pixels):
    with pytest.raises(InputError) as error:
        CalibrationImages(pixels, **{"mean": MEAN, "std": STD, **given})
    assert error.value.field == field


def test_a_run_gives_images_from_all_of_its_batches(tmp_path):
    images = ImageSet(finished_images(tmp_path / "run"))
    everything = list(images.calibration((0.3,), (0.35,), count=100, batch_size=7))
    assert sum(map(len, everything)) == 40
    assert torch.equal(torch.cat(everything), Normalization((0.3,), (0.35,))(torch.from_numpy(images.images)))
    some = torch.cat(list(images.calibration((0.3,), (0.35,), count=5)))
    whole = torch.cat(everything)
    assert torch.equal(some, whole[[0, 10, 20, 29, 39]])
    assert len(torch.cat(list(images.calibration((0.3,), (0.35,), count=1)))) == 1
    with pytest.raises(InputError, match="count"):
        images.calibration((0.3,), (0.35,), count=0)


def test_nncf_takes_it_as_a_data_set(pixels):
    nncf = pytest.importorskip("nncf")
    images = CalibrationImages(pixels, MEAN, STD, batch_size=4)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(24, 5))
    count = torch.export.Dim("count", min=1)
    program = torch.export.export(network.eval(), (torch.zeros(4, 3, 4, 5),), dynamic_shapes=({0: count},)).module()
    made = nncf.quantize(program, nncf.Dataset(images), subset_size=len(images))
    x = torch.cat(list(images))
    with torch.no_grad():
        assert float((made(x) - network(x)).norm() / network(x).norm()) < 0.3
