"""The one schema: every field of a run's config, its default, its meaning, its check.

A table and nothing else; imgclf/config.py is what is done with it. Knows no model, data set or
device: what depends on those is checked where they are known.
"""

from imgclf.augment_schema import AUGMENT
from imgclf.dataset_schema import DATASET
from imgclf.fields import Field, choice, duration, number, numbers
from imgclf.optimizer_schema import OPTIMIZER

SCHEMA: dict[str, dict[str, Field]] = {
  "": {
    "seed": number(
      int, 0, "Seed of everything random: initial weights, order, augmentation.", 0, 2**31 - 1
    ),
  },
  "dataset": DATASET,
  "augment": AUGMENT,
  "model": {
    "name": Field(str, "cnn", "The network: see imgclf.models.names()."),
    "dtype": choice(
      "float32",
      "Type of the computation; parameters stay float32. float64 is for tests.",
      "float32",
      "bfloat16",
      "float64",
    ),
    "weights": Field(
      str,
      None,
      "What training starts from: `file:PATH.safetensors`, `run:DIR`, `timm:NAME` or `timm:NAME@REVISION`; none: "
      "random weights.",
      "file:PATH, run:DIR or timm:NAME",
      lambda value: value.partition(":")[0] in ("file", "run", "timm") and value[-1] != ":",
    ),
    "head": choice(
      "auto",
      "weights: the classifier's are kept where they are for the same classes or, with unknown names, as many "
      "(`auto`), or must be (`keep`), or it starts at zero (`new`).",
      "auto",
      "keep",
      "new",
    ),
    "preprocessing": choice(
      "weights",
      "weights: augment.mean and std, dataset.crop_fraction and interpolation are those that they were trained with, "
      "where that is known (`weights`), or as they stand here (`config`).",
      "weights",
      "config",
    ),
    "dropout_rate": number(
      float,
      None,
      "Share of units dropped before the head; none: the model's own.",
      0,
      1,
      below=True,
    ),
    "drop_path_rate": number(
      float,
      None,
      "Stochastic depth: share of examples that skip the last residual block, rising evenly to it from 0 at the "
      "first; none: 0.",
      0,
      1,
      below=True,
    ),
    "stem": Field(
      str,
      None,
      "resnet: `imagenet` (7x7 stride 2, max-pool) or `cifar` (3x3, none); none: imagenet.",
      "imagenet or cifar",
      lambda value: value in ("imagenet", "cifar"),
    ),
    "remat": choice(
      "none",
      "What is computed anew for the gradient, to save memory: `elementwise` (all but convolutions and "
      "matrix products) or, for networks of blocks, `blocks` (all but what goes from block to block).",
      "none",
      "elementwise",
      "blocks",
      may_change=True,
    ),
    "batch_norm_epsilon": number(
      float,
      None,
      "Added to the variance; none: what the model was published with, or what its weights were trained with.",
      above=True,
    ),
    "sync_batch_norm": Field(
      bool, True, "Batch norm uses the statistics of the whole global batch, not one device's."
    ),
    "frozen_batch_norm": choice(
      "none",
      "Layers whose running statistics stay as they are and normalise in training too: those that optimizer.rules "
      "freezes (`rules`), or `all`.",
      "none",
      "rules",
      "all",
    ),
  },
  "optimizer": OPTIMIZER,
  "schedule": {
    "name": choice(
      "cosine", "Learning rate after warm-up.", "cosine", "linear", "step", "constant"
    ),
    **duration("warmup", "Linear warm-up from 0 to the peak", above=False, may_change=False),
    "end_factor": number(
      float, 0.0, "cosine, linear: the last learning rate as a share of the peak.", 0, 1
    ),
    "step_factor": number(
      float,
      0.1,
      "step: the learning rate is multiplied by this at each boundary.",
      0,
      1,
      above=True,
    ),
    "step_boundaries": numbers(
      (1 / 3, 2 / 3, 8 / 9),
      "step: boundaries as shares of the whole run (30, 60, 80 of 90 epochs).",
      "rising numbers between 0 and 1",
      lambda v: all(0 < a < 1 for a in v) and list(v) == sorted(set(v)),
    ),
  },
  "train": {
    "batch_size": number(int, 128, "Examples of one step, over all devices and processes.", 1),
    **duration("total", "Length of the run"),
    **duration(
      "patience",
      "The run ends at an evaluation that is this long after the best one by checkpoint.best_metric",
    ),
    "steps_per_call": number(
      int,
      None,
      "resident: steps that one call of the compiled program makes at most; none: 16, on CPUs 1.",
      1,
      10_000,
      may_change=True,
    ),
    "max_bad_steps": number(
      int,
      0,
      "Steps whose loss or gradient is NaN or infinite that are left out; one more ends the run.",
      0,
      may_change=True,
    ),
    "label_smoothing": number(
      float,
      0.0,
      "Share of the target spread evenly over all classes; of several classes an image, of each class's target that "
      "goes to 1/2.",
      0,
      1,
      below=True,
    ),
    "loss": choice(
      "softmax",
      "Of training: `softmax` cross-entropy, `focal` (less of what is known already), or `binary` cross-entropy, "
      "each class for itself, its mean over classes. Of several classes an image `focal` is of each for itself too, and "
      "evaluation tells `binary`; else it tells `softmax`.",
      "softmax",
      "focal",
      "binary",
    ),
    "focal_gamma": number(
      float, 2.0, "focal: power of 1 - p that a label of probability p counts with.", 0
    ),
    "class_weights": choice(
      "none",
      "softmax, focal: an example's loss is multiplied by what goes with 1 / n, n being the images of its class "
      "(`balanced`), or with 1 / (1 - class_weights_beta^n), less far apart (`effective`); by 1 in the mean.",
      "none",
      "balanced",
      "effective",
    ),
    "class_weights_beta": number(
      float, 0.999, "class_weights=effective: see there; at 0 all count alike.", 0, 1, below=True
    ),
    "binary_threshold": number(
      float,
      None,
      "binary: targets above this are 1, others 0; none: as they are.",
      0,
      1,
      below=True,
    ),
  },
  "distill": {
    "teacher": Field(
      str,
      None,
      "Another run whose answers are learnt beside the labels, `run:DIR`: its best checkpoint; none: labels alone.",
      "run:DIR",
      lambda value: value.startswith("run:") and value != "run:",
    ),
    "weight": number(
      float, 0.5, "teacher: its share of the loss; the labels have the rest.", 0, 1, above=True
    ),
    "temperature": number(
      # For a LeNet-5 on 500 images better than 4, by 2.8 points, see benchmarks/README.md.
      float,
      1.0,
      "teacher: what both logits are divided by before the softmax.",
      above=True,
    ),
  },
  "eval": {
    "batch_size": number(
      int,
      None,
      "Examples of one evaluation step, over all devices; none: train.batch_size.",
      1,
      may_change=True,
    ),
    **duration("every", "Interval between evaluations of the validation split"),
    "tta": choice(
      "none",
      "Test-time augmentation: logits are means over views of an image, `flip` (2) or `flip_translate` (6), in "
      "evaluation, on the way as well, and in prediction.",
      "none",
      "flip",
      "flip_translate",
    ),
    "bad_images": choice(
      "error",
      "An image that can't be decoded is an `error`, or counts as a `wrong` answer.",
      "error",
      "wrong",
      may_change=True,
    ),
  },
  "checkpoint": {
    **duration("every", "Interval between checkpoints"),
    "keep_latest": number(int, 2, "Newest checkpoints that are kept.", 1, may_change=True),
    "keep_best": number(
      int, 1, "Best checkpoints by best_metric on validation that are kept.", 1, may_change=True
    ),
    **duration("keep_every", "Interval of checkpoints that are kept for good"),
    "best_metric": choice(
      "accuracy",
      "Validation figure that makes a checkpoint the best; mAP, f1_micro and exact_match are of several classes an "
      "image.",
      "accuracy",
      "loss",
      "top5_accuracy",
      "precision_macro",
      "recall_macro",
      "recall_worst",
      "f1_macro",
      "ece",
      *("mAP", "f1_micro", "exact_match"),
      may_change=True,
    ),
  },
  "log": {
    **duration("every", "Interval between lines of metrics"),
    "tensorboard": Field(bool, True, "Write TensorBoard event files.", may_change=True),
  },
}

FIELDS: dict[str, Field] = {
  (f"{section}.{name}" if section else name): field
  for section, fields in SCHEMA.items()
  for name, field in fields.items()
}
