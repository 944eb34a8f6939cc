"""Images that can't be decoded: listed once, never seen as another picture, and too many end the
run."""

import errno
import json
import os
import pathlib
import threading

import numpy as np
import pytest

import imgclf
from imgclf.data import bad_images as module
from imgclf.data import datasets, images, loader
from imgclf.data.bad_images import BadImages
from imgclf.data.images import ImageError
from imgclf.data.sources import Record
from imgclf.errors import UserError


def error(name, reason="cut short"):
  return ImageError(f"{name}: cannot be decoded as an image ({reason}); replace it", reason)


def listed(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path):
  return tmp_path / "bad_images.jsonl"


def test_an_image_is_listed_once_with_its_reason(path):
  bad = BadImages(path, total=10, max_share=1)
  for name in ("cat/a.png", "cat/b.png", "cat/a.png"):
    bad.add(error(name), name)
  assert listed(path) == [
    {"name": "cat/a.png", "reason": "cut short"},
    {"name": "cat/b.png", "reason": "cut short"},
  ]


def test_what_an_earlier_part_of_the_run_listed_is_not_listed_again_and_counts(path):
  BadImages(path, total=10, max_share=0.2).add(error("a"), "a")
  again = BadImages(path, total=10, max_share=0.2)
  again.add(error("a"), "a")
  again.add(error("b"), "b")
  assert [row["name"] for row in listed(path)] == ["a", "b"]
  with pytest.raises(UserError, match="3 of 10 training images"):
    again.add(error("c"), "c")


@pytest.mark.parametrize("cut", [1, 9, 12, 20, 35])
def test_a_last_line_that_a_kill_cut_short_spoils_no_other(path, cut):
  BadImages(path, total=10, max_share=1).add(error("a"), "a")
  whole = path.read_bytes()
  assert len(whole) == 37  # with its brace and its end
  second = whole.replace(b'"a"', b'"b"')
  path.write_bytes(whole + second[:cut])
  BadImages(path, total=10, max_share=1).add(error("c"), "c")
  rows = path.read_bytes().split(b"\n")
  assert rows[0] + b"\n" == whole and rows[1] == second[:cut]
  assert json.loads(rows[2])["name"] == "c"
  assert BadImages(path, total=10, max_share=1).names == {"a", "c"}


def test_a_last_line_that_lacks_only_its_end_counts(path):
  path.write_text('{"name": "a", "reason": "x"}')
  bad = BadImages(path, total=10, max_share=1)
  for name in ("a", "b"):
    bad.add(error(name), name)
  assert [row["name"] for row in listed(path)] == ["a", "b"]


@pytest.mark.parametrize("line", ["7", "[]", '{"reason": "x"}', '{"name": []}', "\x00", "\xff"])
def test_lines_that_are_none_are_passed_over(path, line):
  path.write_text(line + '\n{"name": "a", "reason": "x"}\n')
  assert BadImages(path, total=10, max_share=1).names == {"a"}


def test_names_that_need_it_are_escaped_and_read_again(path):
  name = 'ordner/日本\n"zitat"\x1b[2J\udc80.png'
  BadImages(path, total=10, max_share=1).add(error(name), name)
  assert path.read_bytes().count(b"\n") == 1 and b"\x1b" not in path.read_bytes()
  assert BadImages(path, total=10, max_share=1).names == {name}


@pytest.mark.parametrize(
  ("total", "share", "allowed"),
  # 0.29 * 100 is 28.999999999999996 and 0.07 * 100 is 7.000000000000001 in floats.
  [(10, 0.2, 2), (10, 0.25, 2), (100, 0.29, 29), (100, 0.07, 7), (3, 0, 0), (3, 1, 3)],
)
def test_the_share_that_is_allowed_is_and_one_more_is_not(path, total, share, allowed):
  bad = BadImages(path, total=total, max_share=share)
  for k in range(allowed):
    bad.add(error(str(k)), str(k))
  if allowed < total:
    with pytest.raises(UserError) as caught:
      bad.add(error("more"), "more")
    told = str(caught.value)
    assert told.startswith(f"{allowed + 1} of {total} training images can't be decoded")
    assert f"config.dataset.max_bad_share={share:g}" in told and str(path) in told


def test_threads_that_meet_the_same_image_list_it_once(path):
  bad = BadImages(path, total=100, max_share=1)
  start = threading.Barrier(8)

  def meet():
    start.wait()
    for k in range(20):
      bad.add(error(str(k)), str(k))

  threads = [threading.Thread(target=meet) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(int(row["name"]) for row in listed(path)) == list(range(20))


def test_a_list_that_can_not_be_written_or_read_is_the_users_to_mend(path, monkeypatch):
  bad = BadImages(path, total=10, max_share=1)

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(module, "open", full, raising=False)
  with pytest.raises(UserError, match=r"bad_images\.jsonl: can't be written \(No space left"):
    bad.add(error("a"), "a")
  path.mkdir()
  with pytest.raises(UserError, match=r"bad_images\.jsonl: can't be read \(Is a directory\)"):
    BadImages(path, total=10, max_share=1)


# In the batches


class Pictures:
  """Twelve pictures whose pixels are their number + 1; some of them are broken."""

  def __init__(self, broken=()):
    self.broken = broken

  def __len__(self):
    return 12

  def __getitems__(self, indices):
    return [self._record(i) for i in indices]

  def _record(self, i):
    data = images.encode_png(np.full((8, 8, 3), i + 1, np.uint8))
    return Record(data[:-20] if i in self.broken else data, i % 3, f"picture {i}")


@pytest.mark.parametrize("crop", ["center", "padded", "random_resized"])
def test_in_the_place_of_a_bad_image_is_nothing_and_all_others_are_as_they_were(crop):
  config = imgclf.default_config()
  config.dataset.image_size = 8
  config.augment.crop = crop
  config.train.batch_size = 5
  met = []
  whole = loader.train_batches(Pictures(), config)
  some = loader.train_batches(
    Pictures(broken=(3, 7)), config, on_error=lambda error, name: met.append((name, error.reason))
  )
  masked = 0
  for k in range(12):  # five epochs
    a, b = whole[k], some[k]
    assert "mask" not in a
    assert b["label"].tolist() == a["label"].tolist()
    np.testing.assert_array_equal(b["image"][b["mask"]], a["image"][b["mask"]])
    assert not b["image"][~b["mask"]].any()
    # What was there was one of the two, by its pixels.
    assert {int(image.max()) - 1 for image in a["image"][~b["mask"]]} <= {3, 7}
    masked += np.count_nonzero(~b["mask"])
  assert masked == len(met) == 10  # each of the two once an epoch
  assert {name for name, _ in met} == {"picture 3", "picture 7"}
  assert all(reason and "picture" not in reason for _, reason in met)


# Whole runs


@pytest.fixture
def pictures(tmp_path):
  """Folders of 30 training and 10 validation pictures of two classes; breaks some."""
  rng = np.random.default_rng(0)
  root = tmp_path / "set"
  for split, count in (("train", 15), ("validation", 5)):
    for label, name in enumerate(("dark", "light")):
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        pixels = rng.integers(128 * label, 128 * label + 127, (8, 8, 3), np.uint8)
        (root / split / name / f"{i}.png").write_bytes(images.encode_png(pixels))

  def breaking(*names):
    for name in names:
      file = root / name
      file.write_bytes(file.read_bytes()[:-20])
    return root

  return breaking


@pytest.fixture
def config(small_config):
  config = imgclf.ConfigDict(small_config)
  config.train.batch_size = 10
  config.eval.batch_size = 10
  config.dataset.max_bad_share = 0.1
  config.schedule.name = "constant"  # so that runs of another length are compiled alike
  return config


BROKEN = ("train/dark/3.png", "train/light/0.png", "train/light/9.png")


def test_training_goes_on_without_the_bad_images_and_lists_them_once(pictures, config, tmp_path):
  root = pictures(*BROKEN)
  config.dataset.name, config.dataset.bad_images = f"folder:{root}", "skip"
  assert imgclf.train(config, tmp_path / "run", quiet=True)["step"] == 6  # two epochs
  path = tmp_path / "run" / "bad_images.jsonl"
  rows = listed(path)
  assert sorted(row["name"] for row in rows) == sorted(str(root / name) for name in BROKEN)
  assert all(row["reason"] for row in rows)
  # Resumed for two epochs more, after a kill in the middle of a line.
  kept = path.read_bytes().split(b"\n")
  path.write_bytes(b"\n".join(kept[:2]) + b"\n" + kept[2][:20])
  config.train.total_steps = 12
  assert imgclf.train(config, tmp_path / "run", quiet=True)["step"] == 12
  assert path.read_bytes().split(b"\n")[2] == kept[2][:20]
  del kept[-1]
  again = [json.loads(line)["name"] for line in path.read_text().splitlines() if line.endswith("}")]
  assert sorted(again) == sorted(str(root / name) for name in BROKEN)


def test_more_bad_images_than_the_share_stop_the_run(pictures, config, tmp_path):
  root = pictures(*BROKEN, "train/dark/7.png")
  config.dataset.name, config.dataset.bad_images = f"folder:{root}", "skip"
  with pytest.raises(UserError, match=r"^4 of 30 training images can't be decoded"):
    imgclf.train(config, tmp_path / "run", quiet=True)


def test_a_run_that_is_begun_anew_begins_a_new_list(pictures, config, tmp_path):
  """Too many were bad before the first checkpoint; told to mend some, the user did."""
  root = pictures(*BROKEN, "train/dark/7.png")
  config.dataset.name, config.dataset.bad_images = f"folder:{root}", "skip"
  config.dataset.max_bad_share = 0.05
  with pytest.raises(UserError, match="training images can't be decoded"):
    imgclf.train(config, tmp_path / "run", quiet=True)
  good = (root / "train" / "dark" / "0.png").read_bytes()
  for name in (*BROKEN[1:], "train/dark/7.png"):
    (root / name).write_bytes(good)
  assert imgclf.train(config, tmp_path / "run", quiet=True)["step"] == 6
  rows = listed(tmp_path / "run" / "bad_images.jsonl")
  assert [row["name"] for row in rows] == [str(root / BROKEN[0])]


def test_unless_told_to_skip_it_training_stops_at_a_bad_image_by_name(pictures, config, tmp_path):
  root = pictures("train/light/9.png")
  config.dataset.name = f"folder:{root}"
  with pytest.raises(UserError, match=r"train/light/9\.png: cannot be decoded"):
    imgclf.train(config, tmp_path / "run", quiet=True)
  assert not (tmp_path / "run" / "bad_images.jsonl").exists()


def test_an_unreadable_image_counts_as_a_wrong_answer_where_evaluation_is_told_so(
  pictures, config, tmp_path
):
  root = pictures("validation/dark/1.png", "validation/light/4.png", "validation/light/2.png")
  config.dataset.name, config.eval.bad_images = f"folder:{root}", "wrong"
  told = imgclf.train(config, tmp_path / "run", quiet=True)["validation"]
  assert (told["n"], told["unreadable"]) == (10, 3)
  # The seven that can be read, judged one by one.
  right = 0
  run = imgclf.load(tmp_path / "run")
  records = datasets.open(run.config["dataset"]).records("validation")
  readable = 0
  for place in range(10):
    record = records[place]
    try:
      image = loader.eval_crop(run.config)(record)
    except ImageError:
      continue
    readable += 1
    logits = run.model.apply(
      run.variables, ((image / np.float32(255) - MEAN) / STD)[None].astype(np.float32)
    )
    right += int(np.argmax(logits)) == record.label
  assert readable == 7
  assert told["accuracy"] == right / 10
  assert np.sum(told["confusion_matrix"]) == 7
  # And `--mode=eval` says the same.
  again = imgclf.evaluate(tmp_path / "run", split="validation", quiet=True)
  assert (again["n"], again["unreadable"], again["accuracy"]) == (10, 3, right / 10)


MEAN, STD = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def test_unless_told_so_evaluation_refuses_an_unreadable_image_by_name(pictures, config, tmp_path):
  root = pictures("validation/light/4.png")
  config.dataset.name = f"folder:{root}"
  with pytest.raises(UserError, match=r"validation/light/4\.png: cannot be decoded"):
    imgclf.train(config, tmp_path / "run", quiet=True)
  assert not list(pathlib.Path(tmp_path / "run").glob("eval/*"))
