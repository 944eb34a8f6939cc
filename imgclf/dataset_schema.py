"""The fields of the section `dataset`: a part of the schema, which is imgclf/schema.py, with a file
of its own.

Which images, in what size and order, and what makes batches of them.
"""

from imgclf.fields import Field, choice, number, numbers

DATASET: dict[str, Field] = {
  "name": Field(
    str,
    "digits",
    "`digits`, a TFDS name (`cifar10`, `cifar10:3.0.2`), `folder:PATH` or `csv:PATH`.",
  ),
  "data_dir": Field(
    str,
    None,
    "Where prepared TFDS sets are; none: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
    may_change=True,
  ),
  "train_split": Field(
    str,
    None,
    "TFDS split expression to train on; none: the set's `train`, less what validation takes.",
  ),
  "validation_split": Field(
    str,
    None,
    "Split that chooses the best checkpoint; none: the set's own, else the last 10% of `train`.",
  ),
  "test_split": Field(
    str, None, "Split that only `--mode=eval` reads; none: the set's `test`, where it has one."
  ),
  "label_separator": Field(
    str,
    "",
    "csv: several classes an image: a cell of the column label holds names with this between two, and an empty one "
    "none; '': a cell is one class.",
  ),
  "image_key": Field(str, "image", "Name of the TFDS feature that holds the image."),
  "label_key": Field(str, "label", "Name of the TFDS feature that holds the class."),
  "image_size": number(int, 224, "Height and width of the model's input, in pixels.", 1, 4096),
  "crop_fraction": number(
    float,
    0.875,
    "Evaluation resizes the short side to image_size / crop_fraction, then crops the centre.",
    0.1,
    1,
  ),
  "interpolation": choice(
    "bilinear", "Filter of every resize (antialiased).", "bilinear", "bicubic", "lanczos"
  ),
  "background": numbers(
    (255, 255, 255),
    "Red, green, blue (0 to 255) behind transparent pixels.",
    "three integers from 0 to 255",
    lambda v: len(v) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in v),
  ),
  "max_pixels": number(
    int,
    100_000_000,
    "An image whose header declares more pixels is refused undecoded.",
    1,
    may_change=True,
  ),
  "bad_images": choice(
    "error",
    "Training: an image that can't be decoded is an `error`, or is left out (`skip`) and listed.",
    "error",
    "skip",
    may_change=True,
  ),
  "max_bad_share": number(
    float,
    0.01,
    "skip: the run stops when more than this share of the train split is bad.",
    0,
    1,
    may_change=True,
  ),
  "sampling": choice(
    "shuffled",
    "Training examples: each once an epoch (`shuffled`), or of each class equally many (`balanced`), small "
    "classes then repeating.",
    "shuffled",
    "balanced",
  ),
  "threads": number(
    int,
    None,
    "Threads that decode images; none: one per CPU core, 16 at most, and 4 of images below 96 px.",
    0,
    256,
    may_change=True,
  ),
  "workers": number(
    int,
    None,
    "Processes that make training batches, 0: threads; none: 0 up to 8 cores, else a core each, 16 at most.",
    0,
    256,
    may_change=True,
  ),
  "prefetch": number(
    int, 4, "Batches that are kept ready ahead of the step.", 1, 1024, may_change=True
  ),
  "resident": Field(
    bool,
    None,
    "The train split is decoded once and lives in device memory; none: on GPUs and TPUs, where it takes "
    "a quarter of it or less and the crop is not random_resized.",
    may_change=True,
  ),
}
