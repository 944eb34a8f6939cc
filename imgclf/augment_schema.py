"""The fields of the section `augment`: a part of the schema, which is imgclf/schema.py, with a file
of its own.

Every default is to do nothing, so that the config of an older run, which lacks newer fields, keeps
its meaning.
"""

import math

from imgclf.fields import Field, choice, number, numbers


def _is_rgb(values: tuple) -> bool:
  return len(values) == 3 and all(math.isfinite(v) for v in values)


def _is_range(values: tuple) -> bool:
  return len(values) == 2 and 0 < values[0] <= values[1] < math.inf


AUGMENT: dict[str, Field] = {
  "crop": choice(
    "random_resized",
    "Training crop: `random_resized` (Inception's), `padded` (shifted by padding) or `center` "
    "(as in evaluation).",
    "random_resized",
    "padded",
    "center",
  ),
  "crop_scale": numbers(
    (0.08, 1.0),
    "random_resized: least and greatest share of the image's area.",
    "two numbers, 0 < low <= high <= 1",
    lambda v: _is_range(v) and v[1] <= 1,
  ),
  "crop_ratio": numbers(
    (3 / 4, 4 / 3),
    "random_resized: least and greatest width / height.",
    "two numbers, 0 < low <= high",
    _is_range,
  ),
  "crop_padding": number(
    int, 4, "padded: pixels of padding on each side before a random crop.", 0, 1024
  ),
  "repeats": number(
    int,
    1,
    "Times that each example stands in a batch, augmented anew (Hoffer 2019); durations in epochs "
    "and examples go on counting images shown, so that an epoch sees 1 / this of the split.",
    1,
  ),
  "flip": Field(bool, True, "Mirror left and right with probability 1/2."),
  "flip_alternate": Field(
    bool,
    False,
    "flip: mirror each example every other time that it is shown, not by chance (Jordan 2024).",
  ),
  "rotation": number(
    float, 0.0, "Rotate by a uniform angle of up to this many degrees either way.", 0, 180
  ),
  "translate": number(
    float, 0.0, "Shift along each axis by up to this share of the side, either way.", 0, 1
  ),
  "scale": numbers(
    (1.0, 1.0),
    "Least and greatest factor that the image is enlarged by.",
    "two numbers, 0 < low <= high",
    _is_range,
  ),
  "shear": number(
    float, 0.0, "Shear along the width by up to this many degrees either way.", 0, 90, below=True
  ),
  "policy": choice(
    "none",
    "`randaugment` (timm's, rand-mM-nN-mstdS-inc1), `trivialaugment` (wide) or `autoaugment` "
    "(ImageNet's policy).",
    "none",
    "randaugment",
    "trivialaugment",
    "autoaugment",
  ),
  "policy_ops": number(int, 2, "randaugment: operations on each image.", 1, 16),
  "policy_probability": number(
    float, 0.5, "randaugment: probability of each of them (timm 0.5, the paper 1).", 0, 1
  ),
  "policy_magnitude": number(float, 9.0, "randaugment: mean strength.", 0, 10),
  "policy_magnitude_std": number(
    float, 0.5, "randaugment: standard deviation of the strength, which stays in 0 to 10."
  ),
  "brightness": number(float, 0.0, "Colour jitter: factor uniform in 1 - this to 1 + this."),
  "contrast": number(float, 0.0, "Colour jitter: factor uniform in 1 - this to 1 + this."),
  "saturation": number(float, 0.0, "Colour jitter: factor uniform in 1 - this to 1 + this."),
  "hue": number(
    float, 0.0, "Colour jitter: turns of the colour wheel, uniform up to this either way.", 0, 0.5
  ),
  "greyscale": number(float, 0.0, "Probability that an image loses its colour.", 0, 1),
  "blur": number(float, 0.0, "Probability that an image is blurred by a Gaussian.", 0, 1),
  "blur_sigma": numbers(
    (0.1, 2.0),
    "blur: least and greatest standard deviation, in pixels.",
    "two numbers, 0 < low <= high <= 16",
    lambda v: _is_range(v) and v[1] <= 16,
  ),
  "erasing": number(
    float, 0.0, "Probability that a rectangle of an image is erased (Zhong 2017).", 0, 1
  ),
  "erasing_mode": choice(
    "pixel",
    "erasing: with normal noise (`pixel`) or the mean colour (`constant`).",
    "pixel",
    "constant",
  ),
  "erasing_area": numbers(
    (0.02, 1 / 3),
    "erasing: least and greatest share of the image's area.",
    "two numbers, 0 < low <= high <= 1",
    lambda v: _is_range(v) and v[1] <= 1,
  ),
  "erasing_ratio": numbers(
    (0.3, 1 / 0.3),
    "erasing: least and greatest height / width.",
    "two numbers, 0 < low <= high",
    _is_range,
  ),
  "cutout": number(
    int, 0, "Side in pixels of a square that takes the mean colour; 0: none (DeVries 2017).", 0
  ),
  "mixup": number(float, 0.0, "Alpha of mixup, which adds two images up (Zhang 2017); 0: none.", 0),
  "cutmix": number(
    float, 0.0, "Alpha of cutmix, which pastes a part of another in (Yun 2019); 0: none.", 0
  ),
  "mix_probability": number(float, 1.0, "mixup, cutmix: probability that there is one.", 0, 1),
  "mix_switch": number(
    float, 0.5, "mixup, cutmix, where both are on: probability that it is cutmix.", 0, 1
  ),
  "mix_per_example": Field(
    bool, False, "mixup, cutmix: draw for each example, not once for the whole batch."
  ),
  "mean": numbers(
    (0.485, 0.456, 0.406),
    "Subtracted from red, green, blue (scaled to 0..1); ImageNet's by default.",
    "three numbers",
    _is_rgb,
  ),
  "std": numbers(
    (0.229, 0.224, 0.225),
    "Red, green, blue are divided by this, after mean.",
    "three numbers > 0",
    lambda v: _is_rgb(v) and all(c > 0 for c in v),
  ),
}
