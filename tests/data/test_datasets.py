import sys

import ml_collections
import numpy as np
from PIL import Image
import pytest

from imgclf.data import datasets
from imgclf.data.datasets import Dataset
from imgclf.errors import UserError


class Counted:
  """A source of nothing but a size."""

  def __init__(self, size):
    self.shard_lengths = [size]

  def read(self, indices):
    return [datasets.Record(b"", 0, str(i)) for i in indices]


def section(**changes):
  fields = {
    "name": "digits",
    "data_dir": None,
    "train_split": None,
    "validation_split": None,
    "test_split": None,
    "max_pixels": 1000,
    "image_key": "image",
    "label_key": "label",
    "label_separator": "",
  }
  return ml_collections.ConfigDict({**fields, **changes})


def some_set(**sizes):
  return Dataset("some", ("a", "b"), {split: Counted(size) for split, size in sizes.items()})


def roles(dataset, **changes):
  return tuple(datasets.roles(section(**changes), dataset).values())


@pytest.fixture
def pets(tmp_path):
  """Twelve pictures in class folders under train and test."""
  for i in range(12):
    path = tmp_path / "pets" / ("test" if i < 4 else "train") / ("cat", "dog")[i % 2] / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (i, i, i)).save(path)
  return tmp_path / "pets"


def test_a_folder_and_a_table_of_it_open_as_the_same_records(pets):
  lines = [
    f"{path.relative_to(pets.parent)},{path.parent.name},{path.parent.parent.name}"
    for path in pets.rglob("*.png")
  ]
  table = pets.parent / "pets.csv"
  table.write_text("\n".join(["path,label,split", *lines]))
  opened = [datasets.open(section(name=name)) for name in (f"folder:{pets}", f"csv:{table}")]
  for dataset in opened:
    assert dataset.classes == ("cat", "dog")
    assert dataset.splits == {"train": 8, "test": 4}
  one, two = ({(r.name, r.label, r.data) for r in d.records("train+test")} for d in opened)
  assert one == two
  assert len(one) == 12


def test_notes_come_with_the_set(pets):
  (pets / "train" / "cat" / "notes.txt").touch()
  notes = datasets.open(section(name=f"folder:{pets}")).notes
  assert notes == ("files without an image ending that were ignored: 1, e.g. train/cat/notes.txt",)


@pytest.mark.parametrize("name", ["digits", "digits:1.0.0"])
def test_digits_are_prepared_on_first_use(digits_dir, name):
  dataset = datasets.open(section(name=name, data_dir=str(digits_dir)))
  assert dataset.classes == tuple("0123456789")
  assert dataset.splits == {"train": 1437, "test": 360}
  assert [r.name for r in dataset.records("train[10:12]+test[-1:]")] == [
    "digits/train[10]",
    "digits/train[11]",
    "digits/test[359]",
  ]


def test_the_environment_says_where_sets_are(digits_dir, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
  assert datasets.open(section()).splits == {"train": 1437, "test": 360}


def test_another_version_of_the_digits_is_refused(digits_dir):
  with pytest.raises(UserError, match=r"has only version 1\.0\.0; leave :VERSION out$"):
    datasets.open(section(name="digits:9.9.9", data_dir=str(digits_dir)))


@pytest.mark.parametrize(
  ("name", "hint"),
  [
    ("Folder:/pets", r"did you mean folder:/pets\?"),
    ("cvs:pets.csv", r"did you mean csv:pets\.csv\?"),
    ("./pets", r"did you mean folder:\./pets\?"),
    ("./pets.csv", r"did you mean csv:\./pets\.csv\?"),
    (
      "../nowhere",
      r"write digits, a TFDS name \(cifar10, cifar10:3\.0\.2\), folder:PATH or csv:PATH",
    ),
    ("cifar10:new", "write digits, a TFDS name"),
    ("", "write digits, a TFDS name"),
    ("folder:", "gives no path; write folder:PATH"),
    ("csv:", "gives no path; write csv:PATH"),
  ],
)
def test_a_name_that_is_none_gets_a_hint(pets, monkeypatch, name, hint):
  (pets.parent / "pets.csv").touch()
  monkeypatch.chdir(pets.parent)
  with pytest.raises(UserError, match=hint):
    datasets.open(section(name=name))


def test_no_mode_of_reading_imports_tensorflow(run_python, digits_dir, pets):
  code = """if True:
    import sys, ml_collections
    from imgclf.data import datasets
    for name in ("digits", f"folder:{sys.argv[2]}"):
      section = dict(name=name, data_dir=sys.argv[1], max_pixels=1000, image_key="image", label_key="label")
      len(datasets.open(section).records("train[:3]").__getitems__([2, 0]))
    print([m for m in ("tensorflow", "jax") if m in sys.modules])
  """
  assert run_python(code, digits_dir, pets) == "[]\n"


def test_the_sets_own_splits_play_their_roles():
  dataset = some_set(train=100, validation=10, test=20)
  assert roles(dataset) == ("train", "validation", "test")


def test_without_a_validation_split_the_last_tenth_of_train_is_held_out():
  assert roles(some_set(train=100, test=20)) == ("train[:90%]", "train[90%:]", "test")
  assert roles(some_set(train=100)) == ("train[:90%]", "train[90%:]", None)


def test_train_is_what_a_given_validation_split_leaves():
  dataset = some_set(train=100, test=20)
  given = {"validation_split": "train[:10%]"}
  assert roles(dataset, **given) == ("train[10:]", "train[:10%]", "test")
  given = {"validation_split": "train[20:30]"}
  assert roles(dataset, **given) == ("train[:20]+train[30:]", "train[20:30]", "test")
  dataset = some_set(train=100, validation=10, extra=5)
  assert roles(dataset, validation_split="extra") == ("train", "extra", None)


def test_what_the_config_gives_counts():
  dataset = some_set(train=100, validation=10, test=20)
  given = {"train_split": "train[:50%]+validation", "validation_split": "train[50%:]"}
  assert roles(dataset, **given, test_split="test[:5]") == (*given.values(), "test[:5]")
  assert roles(dataset, train_split="train[:10]") == ("train[:10]", "validation", "test")


def test_a_set_of_a_test_split_alone_has_no_other_role():
  dataset = some_set(test=20)
  assert roles(dataset) == (None, None, "test")
  with pytest.raises(UserError, match=r"some: has no split for this, only test \(20\); set config"):
    dataset.records("")


@pytest.mark.parametrize(
  ("sizes", "given", "message"),
  [
    (
      {"train": 100, "test": 20},
      {"train_split": "train[:50]"},
      r"train_split=train\[:50\]: some has no validation split, .* set config.dataset.validation_split",
    ),
    (
      {"train": 100},
      {"train_split": "train", "validation_split": "train[95:]"},
      r"train=train and validation=train\[95:\] share 5 examples of some; "
      r"set config.dataset.train_split=train\[:95\], or",
    ),
    (
      {"train": 100, "validation": 10},
      {"train_split": "train+validation"},
      "train=train.validation and validation=validation share 10 .* set config.dataset.train_split=train,",
    ),
    (
      {"train": 100, "test": 20},
      {"validation_split": "test[:50%]"},
      r"validation=test\[:50%\] and test=test share 10 .* set config.dataset.test_split=test\[10:\], or",
    ),
    (
      {"train": 100, "test": 20},
      {"validation_split": "test"},
      "validation=test and test=test share 20 examples of some; "
      "set config.dataset.validation_split and config.dataset.test_split so that they are disjoint$",
    ),
    (
      {"train": 100, "test": 20},
      {"train_split": "train[:90]+test[:3]", "validation_split": "train[90:]"},
      r"train=train\[:90\]\+test\[:3\] and test=test share 3 .* set config.dataset.train_split=train\[:90\], or",
    ),
    ({"train": 100}, {"validation_split": "train"}, "validation_split=train: takes all of train"),
    ({"train": 4}, {}, r"validation_split=train\[90%:\]: selects no examples"),
    ({"train": 9}, {"test_split": "train[9:]"}, r"test_split=train\[9:\]: selects no examples"),
    (
      {"train": 9},
      {"validation_split": "tests"},
      "validation_split=tests: no split is called 'tests'",
    ),
  ],
)
def test_roles_that_can_not_be_are_refused(sizes, given, message):
  with pytest.raises(UserError, match=message) as caught:
    roles(some_set(**sizes), **given)
  assert "\n" not in str(caught.value)


def test_classes_are_matched_by_name_and_never_by_position():
  found = datasets.match_classes(["cat", "dog", "e\u0301lan"], ["\u00e9lan", "cat"], "other")
  np.testing.assert_array_equal(found, [2, 0])
  assert found.dtype == np.int32


def test_a_class_that_the_run_does_not_know_is_named_with_near_ones():
  with pytest.raises(
    UserError, match=r"other: the run does not know the class 'Dog'.*did you mean dog\?"
  ):
    datasets.match_classes(["cat", "dog"], ["cat", "Dog"], "other")
  with pytest.raises(UserError, match=r"'x' \(nor 1 others\); it knows cat, dog"):
    datasets.match_classes(["cat", "dog"], ["x", "y"], "other")


@pytest.mark.parametrize(
  ("name", "version", "splits", "classes"),
  [("fashion_mnist", "3.0.1", {"train": 6000, "test": 10000}, ("0", "1"))],
)
def test_a_real_prepared_set_opens(
  shared_data, tmp_path, run_python, name, version, splits, classes
):
  # A tenth of the pictures to train on: writing all takes half a minute.
  code = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("make_tfds", sys.argv[1])
make_tfds = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_tfds)
arrays = make_tfds.FashionMnist.arrays
make_tfds.FashionMnist.arrays = lambda self, split: [x[: 6000 if split == "train" else None] for x in arrays(self, split)]
make_tfds.main(sys.argv[1:])
"""
  run_python(code, shared_data / "make_tfds.py", tmp_path, name)
  dataset = datasets.open(section(name=f"{name}:{version}", data_dir=str(tmp_path)))
  assert dataset.splits == splits
  assert dataset.classes[:2] == classes
  labels = [record.label for record in dataset.records("test")]
  assert np.bincount(labels).tolist() == [1000] * 10
  assert "tensorflow" not in sys.modules
