import base64
import dataclasses
import functools
import hashlib
import html.parser
import itertools
import math
import pathlib
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import samples

from imgclf.reporting import heat, page
from imgclf.reporting.contents import Curve, Figure, Series

ROOT = pathlib.Path(__file__).parents[2]
TEMPLATES = ROOT / "imgclf" / "reporting" / "templates"
VOID = {"meta", "br"}

HOSTILE = [
  "</script><img src=x onerror=alert(1)>",
  "</style><script>alert(1)</script>",
  '" onmouseover="alert(1)" x="',
  "' autofocus onfocus='alert(1)",
  "{{ 7 * 7 }}{% raw %}",
  "--><!--",
  "javascript:alert(1)",
  "\u202egnp.exe",
  "bell\x07 nul\x00 newline\n tab\t",
  "line\u2028paragraph\u2029",
  "\udcff\udc80.jpg",
  "",
  "   ",
  "\u2800\u3164",
  "\u05e9\u05dc\u05d5\u05dd",
  "z\u0300" * 300,
  "long" * 2000,
  "&lt;b&gt;&amp;",
]


class Parsed(html.parser.HTMLParser):
  """A page as elements with their attributes and text; fails for tags that do not nest."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.texts, self._open = [], [], []
    self.feed(text)
    self.close()
    assert self._open == []

  def handle_starttag(self, tag, attributes):
    assert len(dict(attributes)) == len(attributes), "an attribute stands twice"
    self.elements.append((tag, dict(attributes)))
    if tag not in VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.elements.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.texts.append((self._open[-1] if self._open else "", data))

  def all(self, tag, **attributes):
    return [
      found
      for name, found in self.elements
      if name == tag and all(found.get(key) == value for key, value in attributes.items())
    ]

  def text(self):
    return " ".join(data for tag, data in self.texts if tag not in ("style", "script"))


def everywhere(text, others=()):
  """A report that has a text wherever a text may stand, and `others` as further names of
  classes."""
  report = samples.report([text, *others, "plain", "other"], pictures=12)
  changed = {
    number: dataclasses.replace(each, name=text, truth=text, predicted=text)
    for number, each in report.examples.items()
  }
  return dataclasses.replace(
    report,
    **dict.fromkeys(("title", "workdir", "split", "made", "command", "report_command"), text),
    versions={text: text},
    facts=[(text, text)],
    config={text: {text: text}, "list": [text]},
    # What follows the last space is the figure's name.
    curves={
      f"x{text} loss": Series([1, 2], [0.5, 0.25]),
      f"_{text.replace(' ', '')}": Series([1], [1.0]),
    },
    summary=[Figure(text, 0.5, 0.4, 0.6), *report.summary],
    calibration=dataclasses.replace(report.calibration, fitted_on=text),
    precision_recall=[Curve(text, [0, 1], [1, 0], 0.5)],
    roc=[Curve(text, [0, 1], [0, 1], 0.5)],
    examples=changed,
    comparison=dataclasses.replace(
      report.comparison, other=text, figures=[(Figure(text, 0.5, 0.4, 0.6),) * 2]
    ),
    notes=[text],
  )


REPORTS = {
  "ten classes": samples.report,
  "bare": samples.bare,
  "two classes, no pictures": lambda: samples.report(["a", "b"], pictures=0, with_other=False),
  "21 classes": lambda: samples.report([f"class {i}" for i in range(21)]),
  "60 classes": lambda: samples.report([f"class {i}" for i in range(60)]),
  "61 classes": lambda: samples.report([f"class {i}" for i in range(61)]),
  "hostile": lambda: everywhere(HOSTILE[0], HOSTILE[1:]),
}


@pytest.fixture(scope="module", params=REPORTS)
def rendered(request):
  report = REPORTS[request.param]()
  return report, page.render(report)


def test_ids_are_unique_and_every_link_and_label_has_its_target(rendered):
  parsed = Parsed(rendered[1])
  ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
  assert len(ids) == len(set(ids)) > 10
  for tag, attributes in parsed.elements:
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", attributes.get("id", "none"))
    if tag in ("a", "use"):
      assert attributes["href"].startswith("#") and attributes["href"][1:] in ids
    for reference in attributes.get("aria-labelledby", "").split():
      assert reference in ids


def test_only_known_elements_and_attributes_are_on_a_page(rendered):
  parsed = Parsed(rendered[1])
  ours = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
  tags = set(re.findall(r"<([a-z]\w*)", ours))
  attributes = set(re.findall(r'\s([a-z][\w-]*)="', ours)) | {"data-sortable"}
  for tag, found in parsed.elements:
    assert tag in tags, tag
    # html.parser makes names small: viewBox is one.
    assert set(found) <= {name.lower() for name in attributes}, (tag, found)
    assert not any(name.startswith("on") or name in ("style", "src") for name in found)
  assert len(parsed.all("script")) == len(parsed.all("style")) == 1


def test_no_number_that_is_none_gets_into_a_drawing(rendered):
  parsed = Parsed(rendered[1])
  for tag, attributes in parsed.elements:
    if tag in ("svg", "path", "rect", "circle", "text"):
      for name in ("d", "x", "y", "width", "height", "cx", "cy", "viewbox"):
        assert re.fullmatch(r"[MLHVv0-9 .-]*", attributes.get(name, "")), attributes
    if tag == "rect":
      assert float(attributes["width"]) > 0 and float(attributes["height"]) >= 0
  assert not re.search(r"\b(nan|inf|None|undefined)\b", parsed.text())


def test_tables_have_heads_with_a_scope_and_drawings_have_titles_and_descriptions(rendered):
  parsed = Parsed(rendered[1])
  assert all(each["scope"] in ("row", "col") for each in parsed.all("th"))
  images = parsed.all("svg", role="img")
  for each in images:
    assert each.get("aria-label") or len(each["aria-labelledby"].split()) == 2
  assert all(each.get("aria-hidden") == "true" for each in parsed.all("svg") if each not in images)
  assert parsed.all("html", lang="en") and len(parsed.all("h1")) == len(parsed.all("main")) == 1


def test_the_policy_allows_the_style_and_the_script_of_the_page_by_hash_and_nothing_else(rendered):
  parsed = Parsed(rendered[1])
  (policy,) = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
  directives = dict(each.split(" ", 1) for each in policy["content"].split("; "))
  for tag in ("style", "script"):
    # As a browser does: of all between the tags.
    (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", rendered[1], re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert directives.pop(f"{tag}-src") == f"'sha256-{digest}'"
  assert directives == {
    "default-src": "'none'",
    "img-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
  }


def test_the_script_and_the_style_are_the_same_on_every_page():
  pages = [page.render(samples.bare()), page.render(everywhere(HOSTILE[0]))]
  for tag in ("style", "script"):
    first, second = (re.search(f"<{tag}>.*?</{tag}>", text, re.DOTALL).group() for text in pages)
    assert first == second
  unescaped = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
  assert re.findall(r"{{[^}]*\bsafe\b[^}]*}}|autoescape", unescaped) == [
    "{{ style | safe }}",
    "{{ script | safe }}",
  ]


def shape(parsed):
  return [(tag, sorted(attributes)) for tag, attributes in parsed.elements]


@functools.cache
def tame_shape():
  return shape(Parsed(page.render(everywhere("tame"))))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_adds_no_element_and_no_attribute_and_shows_itself(text):
  rendered = page.render(everywhere(text))
  rendered.encode("utf-8")  # fails for bytes of a file's name that are no text
  hostile = Parsed(rendered)
  assert shape(hostile) == tame_shape()
  shown = hostile.text()
  assert not re.search("[\x00-\x08\x0b-\x1f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
  if text.strip(" \u2800\u3164") and text.isprintable() and len(text) <= 18:
    assert shown.count(text) > 20
  elif not text.strip(" \u2800\u3164"):
    assert shown.count("(blank)") > 20


def test_a_long_name_is_cut_in_the_middle_and_costs_no_more_than_its_length():
  short = page.render(samples.report(["x" * 60, "b"], pictures=4))
  long = page.render(samples.report(["x" * 100_000 + "end", "b"], pictures=4))
  assert len(long) < len(short) + 2000
  assert "…" in long and "xend" in long


def test_each_picture_is_on_the_page_once_however_often_it_is_shown():
  report = samples.report(pictures=20)
  number = report.mistakes[0]
  report = dataclasses.replace(report, uncertain=[number], label_errors=[number])
  text = page.render(report)
  assert text.count(report.examples[number].picture) == 1
  assert text.count(report.examples[number].heatmap) == 1
  assert len(Parsed(text).all("use", href=f"#picture-{number}")) >= 3


def test_an_example_without_picture_or_heat_map_says_so_or_leaves_it_out():
  report = samples.report(pictures=8, heat=False)
  number = report.mistakes[0]
  examples = {
    **report.examples,
    number: dataclasses.replace(report.examples[number], picture=None),
  }
  parsed = Parsed(page.render(dataclasses.replace(report, examples=examples)))
  assert "no picture" in parsed.text()
  assert not [each for each in parsed.all("use") if each["href"].startswith("#heatmap")]


def test_galleries_are_closer_and_tell_nothing_of_grad_cam_where_there_are_no_heat_maps():
  with_heat, without = (
    page.render(samples.report(pictures=8, heat=heat)) for heat in (True, False)
  )
  assert "Grad-CAM" in with_heat and 'class="gallery"' in with_heat
  assert "Grad-CAM" not in without and 'class="gallery"' not in without
  assert 'class="gallery single"' in without


def test_calibration_that_changes_nothing_is_shown_once():
  report = samples.report(pictures=4)
  assert "After temperature scaling" in page.render(report)
  for changed in ({"temperature": 1.0}, {"fitted_on": None, "fitted_n": 0}):
    calibration = dataclasses.replace(report.calibration, **changed)
    text = page.render(dataclasses.replace(report, calibration=calibration))
    assert "As trained" in text and "Calibrated" not in text and "temperature scaling" not in text
    assert len(re.findall('<svg[^>]*"reliability-', text)) == 1


@pytest.mark.parametrize(
  "address",
  ["https://example.org/a.jpg", "data:image/svg+xml;base64,AAAA", "data:text/html,x", "", "x"],
)
def test_what_is_no_picture_within_the_page_is_refused(address):
  report = samples.report(pictures=8)
  number = report.mistakes[0]
  changed = dataclasses.replace(report.examples[number], heatmap=address)
  with pytest.raises(ValueError, match=f"heatmap of example {number} is no picture"):
    page.render(dataclasses.replace(report, examples={**report.examples, number: changed}))


def test_webp_and_png_pictures_are_taken():
  report = samples.report(pictures=8)
  number = report.mistakes[0]
  changed = dataclasses.replace(
    report.examples[number],
    picture=samples.picture(kind="WEBP"),
    heatmap=samples.picture(kind="PNG"),
  )
  text = page.render(dataclasses.replace(report, examples={**report.examples, number: changed}))
  assert changed.picture in text and changed.heatmap in text


def test_an_example_that_is_named_and_missing_is_no_page_with_a_hole():
  with pytest.raises(KeyError):
    page.render(dataclasses.replace(samples.report(pictures=8), mistakes=[999_999]))


def test_sections_with_nothing_in_them_are_left_out_of_the_page_and_of_its_list():
  parsed = Parsed(page.render(samples.bare()))
  sections = [each["id"] for each in parsed.all("section")]
  assert {"comparison", "training", "ranking", "facts"}.isdisjoint(sections)
  listed = [each["href"][1:] for each in parsed.all("a") if each["href"][1:] in sections]
  assert listed == sections
  assert "No image was taken for one of another class." in parsed.text()
  assert "There are none: every answer is right." in parsed.text()
  assert "No temperature was fitted" in parsed.text()
  assert "95% interval" not in parsed.text()


def test_notes_and_unreadable_images_are_told_in_the_head():
  report = dataclasses.replace(samples.report(pictures=8), unreadable=1234, notes=["no heat maps"])
  head = page.render(report).partition("<main")[0]
  assert "1,234 of the images could not be read" in head and "no heat maps" in head
  assert "class=notes" not in page.render(samples.report(pictures=8)).replace('"', "")


def test_a_cell_leads_to_its_pictures_and_is_described():
  report = samples.report()
  parsed = Parsed(page.render(report))
  found = next(each for each in report.confusions if each.examples)
  (panel,) = parsed.all("section", id=f"pair-{found.truth}-{found.predicted}")
  assert panel["tabindex"] == "-1"
  names = (report.classes[found.truth], report.classes[found.predicted])
  said = (
    f"{names[0]} taken for {names[1]}: {found.n}, {100 * found.share:.2f}% of {names[0]}: pictures"
  )
  assert parsed.all("a", href=f"#{panel['id']}", **{"aria-label": said})


def test_more_classes_than_a_matrix_has_get_a_list_of_all_pairs():
  few, many = (samples.report([f"class {i}" for i in range(n)]) for n in (60, 61))
  assert Parsed(page.render(few)).all("table", **{"class": "matrix coloured"})
  parsed = Parsed(page.render(many))
  assert not parsed.all("table", **{"class": "matrix coloured"})
  assert len(many.confusions) > 100
  rows = parsed.text().partition("Most frequent confusions")[2].partition("Calibration")[0]
  assert rows.count("Pictures of") == 0 and rows.count("%") >= len(many.confusions)


def test_a_page_of_a_thousand_classes_and_three_hundred_pictures_is_small_and_a_larger_one_is_cut():
  names = [f"n{i:08} {'name ' * 6}" for i in range(1000)]
  report = samples.report(names, pictures=300)
  pictures = sum(len(e.picture) + len(e.heatmap) for e in report.examples.values())
  thousand = page.render(report)
  assert len(thousand) - pictures < 1_500_000
  # Twenty times the classes: rows of the worst thousand, and a line that says so.
  rows = [
    dataclasses.replace(report.class_rows[i % 1000], name=f"class {i}", f1=i / 20_000)
    for i in range(20_000)
  ]
  larger = page.render(
    dataclasses.replace(report, classes=[row.name for row in rows], class_rows=rows)
  )
  assert len(larger) < len(thousand) + 100_000
  assert "1,000 classes with the lowest F1 of 20,000" in larger
  assert ">class 999<" in larger and ">class 1000<" not in larger


def test_a_log_of_many_points_makes_lines_of_hundreds():
  steps = list(range(200_000))
  series = Series(steps, [math.sin(step / 2e3) for step in steps])
  small = page.render(samples.bare())
  text = page.render(dataclasses.replace(samples.bare(), curves={"train loss": series}))
  assert len(text) < len(small) + 8_000


def test_commands_and_config_are_on_the_page_as_they_are_typed():
  text = Parsed(page.render(samples.report(pictures=8))).text()
  assert "--workdir=runs/cifar10 \\\n  --config.dataset.data_dir='/data/tfds sets'" in text
  assert 'dataset.name = "cifar10"\n' in text and "train.total_steps = null" in text
  assert "augment.mean = [0.4914, 0.4822, 0.4465]" in text


def luminance(colour):
  """Relative luminance of `#rrggbb`, WCAG 2.2."""
  shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
  low, high = sorted((luminance(first), luminance(second)))
  return (high + 0.05) / (low + 0.05)


def palettes():
  style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
  light, dark = re.findall(r":root \{(.*?)\}", style.partition("@media print")[0], re.DOTALL)
  return {
    name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for name, block in (("light", light), ("dark", dark))
  }


def test_contrast_is_that_of_the_standard():
  # WCAG 2.2, 1.4.3, note: white on #767676 is the grey that just passes.
  assert contrast("#ffffff", "#000000") == pytest.approx(21)
  assert contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_what_they_are_on(scheme):
  colours = palettes()[scheme]
  assert len(colours) == len(palettes()["light"]) == 34
  texts = ["text", "quiet", "link", "right", "wrong", *(f"s{i}" for i in range(6))]
  for ground in ("page", "paper"):
    for name in texts:
      assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("focus", "bar", "strong-rule"):
      assert contrast(colours[name], colours[ground]) >= 3, (name, ground)
  assert contrast(colours["text"], colours["mark"]) >= 4.5
  assert contrast(colours["text"], colours["bar"]) >= 3  # the diagonal over the bars
  assert contrast(colours["text"], colours["rule"]) >= 4.5  # where a picture is missing
  for kind in ("right", "wrong"):
    ramp = [colours[f"{kind}{step}"] for step in range(1, 8)]
    for step, colour in enumerate(ramp, 1):
      ink = colours["on-faint" if step < 5 else "on-full"]
      assert contrast(ink, colour) >= 4.5, (kind, step)
    # Ever farther from the page, so that the order shows without the hue.
    away = [contrast(colour, colours["page"]) for colour in ramp]
    assert away == sorted(away)


# Linear RGB as seen without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1.
SEEN = {
  "all cones": np.eye(3),
  "protanopia": [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  "deuteranopia": [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ],
  "tritanopia": [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.303900],
  ],
}
# sRGB (IEC 61966-2-1) to CIE XYZ, each divided by that of its white.
TO_XYZ = [
  [0.4339, 0.3762, 0.1899],
  [0.2126, 0.7152, 0.0722],
  [0.0178, 0.1095, 0.8727],
]


def lab(colour, cones):
  """CIE L*a*b* of `#rrggbb` as seen with these cones."""
  shares = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
  linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
  x, y, z = TO_XYZ @ np.clip(cones @ linear, 0, 1)
  x, y, z = (
    v ** (1 / 3) if v > (6 / 29) ** 3 else v * (29 / 6) ** 2 / 3 + 4 / 29 for v in (x, y, z)
  )
  return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("cones", SEEN)
def test_lines_and_cells_differ_in_colour_for_every_kind_of_colour_vision(cones, scheme):
  colours = palettes()[scheme]
  seen = {name: lab(colour, np.array(SEEN[cones])) for name, colour in colours.items()}
  # A distance of 2.3 is just noticeable side by side (Mahy et al. 1994); thin lines apart need far
  # more.
  for first, second in itertools.combinations([f"s{i}" for i in range(6)], 2):
    assert np.linalg.norm(seen[first] - seen[second]) >= 15, (first, second)
  for step in range(3, 8):
    assert np.linalg.norm(seen[f"right{step}"] - seen[f"wrong{step}"]) >= 15, step
  assert np.linalg.norm(seen["right"] - seen["wrong"]) >= 15


def test_every_colour_and_class_that_the_templates_use_is_in_the_style():
  style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
  used = set(re.findall(r"var\(--([\w-]+)\)", style))
  assert used <= set(palettes()["light"]) | {"share"} and used >= set(palettes()["light"]) - {
    "mark"
  }
  text = page.render(samples.report()) + page.render(REPORTS["21 classes"]())
  classes = {name for _, found in Parsed(text).elements for name in found.get("class", "").split()}
  for name in classes - {f"b{share}" for share in range(101)} - {"d0", "picture"}:
    assert re.search(rf"\.{name}\b", style), name


def test_the_wheel_holds_the_templates_and_renders_from_them(tmp_path):
  wheels = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
  path = next(wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
  with zipfile.ZipFile(path) as wheel:
    packed = {name.rpartition("/")[2] for name in wheel.namelist() if "/templates/" in name}
    assert packed == {path.name for path in TEMPLATES.iterdir()}
    wheel.extractall(tmp_path / "unpacked")
  code = (
    "import samples, imgclf.reporting.page as page; print(page.__file__);"
    "print(len(page.render(samples.bare())))"
  )
  path = f"{tmp_path / 'unpacked'}:{pathlib.Path(__file__).parent}"
  done = subprocess.run(
    [sys.executable, "-c", code],
    **{"env": {"PYTHONPATH": path}, "cwd": tmp_path, "capture_output": True, "text": True},
  )
  assert done.returncode == 0, done.stderr
  file, size = done.stdout.split()
  assert file.startswith(str(tmp_path)) and int(size) == len(page.render(samples.bare()))


def test_a_matrix_with_numbers_shows_them_all():
  report = samples.report()
  assert len(report.classes) <= heat.MOST_WITH_NUMBERS
  text = page.render(report)
  (table,) = re.findall(r'<table class="matrix numbered">(.*?)</table>', text, re.DOTALL)
  body = re.sub(r"<th.*?</th>|<thead>.*?</thead>|<caption.*?</caption>", "", table, flags=re.DOTALL)
  cells = [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", body, re.DOTALL)]
  counts = [n for row in report.matrix for n in row]
  assert [0 if cell == "·" else int(cell) for cell in cells] == counts
