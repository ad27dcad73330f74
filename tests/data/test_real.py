"""Real data by their configuration, and what is refused of them."""

import contextlib
import fcntl
import gzip
import hashlib
import http.server
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST

from raydream.config import DataConfig, TeacherConfig
from raydream.config.conversion import validate
from raydream.data import check_data, load_data
from raydream.data.torchvision_sets import LOCK
from raydream.errors import InputError
from raydream.store.shards import ShardStore
from tests.tiny import some_batch
from tests.web import served, without_proxies

NETWORK = TeacherConfig(input_shape=(1, 4, 6), classes=5)
CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


def numbered(path: Path, first: int, count: int, classes: int = 5) -> Path:
    """Images each of which holds its number."""
    images = np.zeros((count, 4, 6, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(first, first + count)
    np.savez(path, x=images, y=np.arange(first, first + count) % classes)
    return path


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    made = {name: numbered(tmp_path / f"{name}.npz", first, 40) for name, first in (("train", 0), ("test", 100))}
    made["validation"] = numbered(tmp_path / "validation.npz", 200, 10)
    return {name: str(path) for name, path in made.items()}


def numbers(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_each_split_has_its_own_file(files):
    real = load_data(DataConfig(name="files", **files), NETWORK)
    assert numbers(real.train) == list(range(40)) and numbers(real.test) == list(range(100, 140))
    assert numbers(real.validation) == list(range(200, 210))
    assert real.test.labels.tolist() == [number % 5 for number in numbers(real.test)]
    assert real.test.images.dtype == np.uint8 and real.test.labels.dtype == np.int64


@pytest.mark.parametrize("of", ["train", "test"])
def test_a_validation_split_that_is_a_share_leaves_its_set(files, of):
    config = DataConfig(name="files", train=files["train"], test=files["test"], validation_of=of, validation_share=0.25)
    real = load_data(config, NETWORK)
    other = "test" if of == "train" else "train"
    assert len(numbers(real.validation)) == 10 and len(numbers(getattr(real, other))) == 40
    rest = numbers(getattr(real, of))
    first = 0 if of == "train" else 100
    assert len(rest) == 30 and sorted(rest + numbers(real.validation)) == list(range(first, first + 40))
    for split in (real.train, real.validation, real.test):
        assert split.labels.tolist() == [number % 5 for number in numbers(split)]
    assert numbers(load_data(config, NETWORK).validation) == numbers(real.validation)


def test_train_is_read_only_where_it_is_needed(files):
    config = DataConfig(name="files", train="/none.npz", test=files["test"], validation=files["validation"])
    check_data(config, NETWORK)
    with pytest.raises(InputError, match=r"data.train = '/none.npz'"):
        check_data(config, NETWORK, train=True)


RULES = [
    ({"name": "files"}, "data.test", "a file or a folder where data.name is files"),
    ({"name": "files", "test": "t"}, "data.validation", "set data.validation_of to test"),
    ({"name": "files", "train": "t"}, "data.test", "name what to report on"),
    ({"name": "digits", "test": "t"}, "data.test", "null where data.name is digits"),
    ({"name": "none", "train": "t"}, "data.train", "null where data.name is none"),
    ({"name": "torchvision:MNIST"}, "data.folder", "the folder where torchvision's data set lies"),
    ({"name": "torchvision:MNIST", "folder": "f", "test": "t"}, "data.test", "null where data.name is torchvision"),
    ({"name": "files", "test": "t", "train": "t", "folder": "f"}, "data.folder", "say torchvision:NAME"),
    ({"name": "imagenet"}, "data.name", "put other data into files"),
]


@pytest.mark.parametrize(("settings", "field", "says"), RULES, ids=[str(rule[0])[:60] for rule in RULES])
def test_settings_that_belong_together(settings, field, says):
    with pytest.raises(InputError) as refused:
        validate(DataConfig, settings)
    assert refused.value.field == field and says in str(refused.value)


def test_settings_at_the_boundary_are_taken():
    validate(DataConfig, {"name": "files", "test": "t", "validation_of": "test"})
    validate(DataConfig, {"name": "files", "test": "t", "train": "u"})
    validate(DataConfig, {"name": "files", "test": "t", "validation": "v"})


def test_labels_beyond_the_classes_are_refused(files, tmp_path):
    six = str(numbered(tmp_path / "six.npz", 0, 40, classes=6))
    with pytest.raises(InputError) as refused:
        check_data(DataConfig(name="files", test=six, validation=files["validation"]), NETWORK)
    assert refused.value.field == "data.test"
    assert "labeled by classes from 0 to 4, as teacher.classes says; its labels go from 0 to 5" in str(refused.value)


def test_a_validation_share_may_lack_a_class_and_the_rest_may_not(files, tmp_path):
    few = str(numbered(tmp_path / "few.npz", 0, 12, classes=5))
    config = DataConfig(name="files", train=few, test=few, validation_share=0.1, classes=(0, 1, 2, 3, 4))
    real = check_data(config, NETWORK, train=True)
    assert len(set(real.validation.labels.tolist())) < 5 == len(set(real.train.labels.tolist()))
    one = str(numbered(tmp_path / "one.npz", 0, 12, classes=4))
    with pytest.raises(InputError, match="images in the train split; there is none of class 4"):
        check_data(DataConfig(name="files", train=one, test=few, classes=(0, 1, 2, 3, 4)), NETWORK, train=True)


def test_labels_of_a_share_are_told_of_the_set_that_it_is_of(tmp_path):
    six = str(numbered(tmp_path / "six.npz", 0, 40, classes=6))
    with pytest.raises(InputError, match=r"data.test = '.*six.npz': must be labeled by classes from 0 to 4"):
        check_data(DataConfig(name="files", test=six, validation_of="test", validation_share=0.9), NETWORK)


def test_negative_labels_are_refused(files, tmp_path):
    np.savez(tmp_path / "minus.npz", x=np.zeros((3, 4, 6), np.uint8), y=np.array([0, -1, 2]))
    with pytest.raises(InputError, match="its labels go from -1 to 2"):
        check_data(DataConfig(name="files", test=str(tmp_path / "minus.npz"), validation=files["validation"]), NETWORK)


def test_a_share_that_leaves_nothing_is_refused(tmp_path):
    one = str(numbered(tmp_path / "one.npz", 0, 1))
    with pytest.raises(InputError, match="none are left for the test split"):
        check_data(DataConfig(name="files", test=one, validation_of="test"), NETWORK)


def test_a_teacher_cannot_be_trained_without_a_training_split(files):
    config = DataConfig(name="files", test=files["test"], validation=files["validation"])
    with pytest.raises(InputError, match=r"data.train = None: must be a file or a folder"):
        check_data(config, NETWORK, train=True)


def test_digits_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"data.name = 'digits'.*its images are \(1, 8, 8\)"):
        check_data(DataConfig(), NETWORK)


def mnist(folder: Path) -> None:
    """A tiny MNIST as torchvision finds it: raw IDX files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 30), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(count)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


def test_a_data_set_of_torchvisions_is_read_from_its_folder(tmp_path):
    mnist(tmp_path)
    network = TeacherConfig(input_shape=(1, 28, 28), classes=10)
    real = load_data(DataConfig(name="torchvision:MNIST", folder=str(tmp_path)), network)
    assert real.test.images.shape == (20, 1, 28, 28) and numbers(real.test) == list(range(20))
    assert real.test.labels.tolist() == [number % 10 for number in range(20)]
    assert len(real.validation.labels) == 3
    assert sorted(numbers(real.validation) + numbers(real.train)) == list(range(30))
    with pytest.raises(InputError, match=r"a data set of images \(1, 8, 8\); row \d+ is \(1, 28, 28\)"):
        check_data(DataConfig(name="torchvision:MNIST", folder=str(tmp_path)), TeacherConfig())


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"data.folder = .*a folder in which torchvision finds CIFAR10; it says"):
        check_data(DataConfig(name="torchvision:CIFAR10", folder=str(tmp_path)), TeacherConfig())
    assert not list(tmp_path.iterdir())


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def published_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a server from which torchvision downloads a tiny MNIST."""
    mnist(tmp_path / "owners")
    folder = tmp_path / "owners" / "MNIST" / "raw"
    sums = []
    for path in sorted(folder.iterdir()):
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        sums.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    without_proxies(monkeypatch)
    monkeypatch.setattr(MNIST, "resources", sums)
    with served(partial(Files, directory=str(folder))) as url:
        monkeypatch.setattr(MNIST, "mirrors", [f"{url}/"])
        yield folder


def test_a_data_set_is_downloaded_once_into_the_cache_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYDREAM_HOME", str(tmp_path / "cache"))
    network = TeacherConfig(input_shape=(1, 28, 28), classes=10)
    asked = DataConfig(name="torchvision:MNIST", download=True)
    with published_mnist(tmp_path, monkeypatch):
        with pytest.raises(InputError, match=r"finds MNIST; it says"):
            check_data(DataConfig(name="torchvision:MNIST", folder=str(tmp_path / "cache" / "data")), network)
        assert not (tmp_path / "cache").exists()
        assert numbers(check_data(asked, network).test) == list(range(20))
    assert numbers(check_data(asked, network).test) == list(range(20)), "without the server"
    in_place = DataConfig(name="torchvision:MNIST", folder=str(tmp_path / "cache" / "data"))
    assert numbers(check_data(in_place, network).test) == list(range(20))


def test_only_one_process_downloads_into_a_folder_at_a_time(tmp_path, monkeypatch):
    asked = DataConfig(name="torchvision:MNIST", folder=str(tmp_path / "here"), download=True)
    (tmp_path / "here").mkdir()
    with published_mnist(tmp_path, monkeypatch), (tmp_path / "here" / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = Thread(target=check_data, args=(asked, TeacherConfig(input_shape=(1, 28, 28))))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and [path.name for path in (tmp_path / "here").iterdir()] == [LOCK]
        lock.close()
        waiting.join(20)
    assert (tmp_path / "here" / "MNIST").is_dir()


def test_a_download_that_fails_says_what_belongs_where(tmp_path, monkeypatch):
    with published_mnist(tmp_path, monkeypatch) as folder:
        (folder / "t10k-labels-idx1-ubyte.gz").unlink()
        asked = DataConfig(name="torchvision:MNIST", folder=str(tmp_path / "here"), download=True)
        with pytest.raises(
            InputError, match=r"can download MNIST; it says: .*get its files on another machine"
        ) as caught:
            check_data(asked, TeacherConfig(input_shape=(1, 28, 28)))
    assert caught.value.value == str(tmp_path / "here")


def test_a_data_set_that_torchvision_does_not_download_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data.download = True: must be false for ImageNet"):
        load_data(DataConfig(name="torchvision:ImageNet", download=True), TeacherConfig())


@pytest.mark.parametrize("name", ["NoSuchSet", "CocoDetection", "__all__", "vision"])
def test_torchvision_sets_that_are_not_there_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"one of .*CIFAR10.*MNIST"):
        load_data(DataConfig(name=f"torchvision:{name}", folder=str(tmp_path)), TeacherConfig())


@pytest.mark.long
@pytest.mark.skipif(not CIFAR10.exists(), reason="needs ../shared/data/cifar10")
def test_cifar10_as_it_lies_here():
    network = TeacherConfig(input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, classes=10)
    config = DataConfig(name="files", test=str(CIFAR10 / "test.parquet"), validation=str(CIFAR10 / "lossless4k.npz"))
    real = check_data(config, network)
    assert real.test.images.shape == (10_000, 3, 32, 32) and np.bincount(real.test.labels).tolist() == [1000] * 10
    assert real.validation.images.shape == (4000, 3, 32, 32)
    assert real.validation.labels[:5].tolist() == [6, 9, 9, 4, 1]


def test_classes_are_taken_and_numbered_in_their_order(files):
    config = DataConfig(name="files", classes=(4, 1), **files)
    real = load_data(config, TeacherConfig(input_shape=(1, 4, 6), classes=2))
    assert numbers(real.test) == [number for number in range(100, 140) if number % 5 in (1, 4)]
    assert real.test.labels.tolist() == [0 if number % 5 == 4 else 1 for number in numbers(real.test)]


@pytest.mark.parametrize(
    ("classes", "network", "says"),
    [
        ((4, 1), NETWORK, "5 classes, as teacher.classes says"),
        ((0, 1, 2, 3, 7), NETWORK, "there is none of class 7"),
    ],
)
def test_classes_that_do_not_fit_are_refused(files, classes, network, says):
    with pytest.raises(InputError, match=r"data.classes") as caught:
        _ = load_data(DataConfig(name="files", classes=classes, **files), network).train
    assert says in str(caught.value)


def test_a_class_named_twice_is_refused():
    with pytest.raises(InputError, match="1 is named twice"):
        validate(DataConfig, {"classes": [1, 2, 1]})


def test_digits_become_what_another_network_sees():
    colored = TeacherConfig(input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match="its images are"):
        _ = load_data(DataConfig(), colored).test
    made, original = (load_data(DataConfig(resize=True), each).test for each in (colored, TeacherConfig()))
    assert made.images.shape == (500, 3, 32, 32) and made.images.dtype == np.uint8
    assert (made.labels == original.labels).all() and (
        original.images == load_data(DataConfig(), TeacherConfig()).test.images
    ).all()
    assert (made.images[:, 0] == made.images[:, 1]).all() and (made.images[:, 0] == made.images[:, 2]).all()
    shrunk = made.images[:, 0].reshape(500, 8, 4, 8, 4).mean((2, 4))
    assert np.corrcoef(shrunk.ravel(), original.images.ravel())[0, 1] > 0.9


def test_pixels_of_another_size_are_scaled_where_that_is_asked_for(tmp_path):
    for index in range(2):
        ShardStore(tmp_path / "images").write(some_batch(f"r0000-b000{index}", count=20, shape=(1, 8, 8)))
    shards, wide = str(tmp_path / "images"), TeacherConfig(input_shape=(3, 16, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    named = {"name": "files", "test": shards, "validation": shards}
    with pytest.raises(InputError, match=r"images \(3, 16, 8\); those in .* are \(1, 8, 8\)"):
        _ = load_data(DataConfig(**named), wide).test
    small, made = (load_data(DataConfig(resize=True, **named), each).test for each in (TeacherConfig(), wide))
    assert made.images.shape == (40, 3, 16, 8) and (made.images[:, 0] == made.images[:, 1]).all()
    assert np.corrcoef(made.images[:, 0, ::2].ravel(), small.images.ravel())[0, 1] > 0.8


def test_files_of_another_size_are_scaled_where_that_is_asked_for(files, tmp_path):
    wide = TeacherConfig(input_shape=(3, 8, 12), mean=(0.5,) * 3, std=(0.5,) * 3, classes=5)
    config = DataConfig(name="files", resize=True, **files)
    assert load_data(config, wide).test.images.shape == (40, 3, 8, 12)
    for label in range(5):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        for side in (5, 20):
            picture = Image.fromarray(np.full((side, side, 3), 40 * label, np.uint8))
            picture.save(tmp_path / "pictures" / str(label) / f"{side}.png")
    pictures = str(tmp_path / "pictures")
    for network in (wide, NETWORK):
        config = DataConfig(name="files", test=pictures, validation=pictures, resize=True)
        test = load_data(config, network).test
        assert test.images.shape == (10, *network.input_shape)
        assert [int(image.max()) for image in test.images] == [40 * label for label in test.labels]
    with pytest.raises(InputError):
        _ = load_data(DataConfig(name="files", test=pictures, validation=pictures), wide).test
