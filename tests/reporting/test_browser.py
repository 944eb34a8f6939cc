"""The report's page in a real browser: what it shows, obeys and allows; skipped where there is
none."""

import itertools
import json

import browser
import pytest
import samples
import test_page

from imgclf.reporting import page

pytestmark = pytest.mark.skipif(
  browser.executable() is None, reason="no Chromium: apt-get install chromium"
)

REPORTS = {
  "ten": lambda: samples.report(pictures=24),
  "bare": samples.bare,
  "hostile": lambda: test_page.everywhere(test_page.HOSTILE[0], test_page.HOSTILE[1:]),
  "forty": lambda: samples.report([f"class {i}" for i in range(40)]),
  "thousand": lambda: samples.report([f"class {i}" for i in range(1000)], pictures=300),
}


@pytest.fixture(scope="module")
def window(tmp_path_factory):
  with browser.started(tmp_path_factory.mktemp("browser")) as window:
    yield window


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pages")
  for name, make in REPORTS.items():
    (folder / f"{name}.html").write_text(page.render(make()), encoding="utf-8")
  return folder


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_loads_nothing_and_breaks_no_rule_of_its_policy(window, pages, name):
  window.open(pages / f"{name}.html")
  assert window.complaints() == []
  assert window.requests() == [(pages / f"{name}.html").as_uri()]
  # What is looked at here does find something: the policy refuses a script and a picture that are
  # not its own.
  window.evaluate(
    "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}),"
    "Object.assign(new Image(), {src: 'https://example.org/a.png'}))"
  )
  refused = json.dumps(window.complaints())
  assert "script-src" in refused and "img-src" in refused
  assert window.evaluate("window.ran === undefined")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", REPORTS)
def test_no_page_scrolls_sideways_and_nothing_sticks_out(window, pages, name, width):
  window.open(pages / f"{name}.html", width=width)
  assert window.evaluate("document.documentElement.scrollWidth") == width
  outside = window.evaluate(
    "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .skip, .hidden') &&"
    f" e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 200))"
  )
  assert outside == []


def test_the_pictures_are_drawn(window, pages):
  window.open(pages / "ten.html")
  sizes = window.evaluate(
    "[...document.querySelectorAll('.pictures svg')].filter(e => e.checkVisibility())"
    ".map(e => e.querySelector('use').getBoundingClientRect().width)"
  )
  assert len(sizes) > 20 and min(sizes) > 60


def test_the_first_tab_leads_past_the_list_of_sections(window, pages):
  window.open(pages / "ten.html")
  window.press("Tab")
  assert window.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
  window.press("Enter", "\r")
  assert window.evaluate("document.activeElement.id") == "main"


def column(window, number):
  return window.evaluate(
    f"[...document.querySelectorAll('#classes tbody tr')].map(r => r.cells[{number}].textContent.trim())"
  )


def test_the_classes_sort_by_number_and_by_name_up_and_down(window, pages):
  window.open(pages / "ten.html")
  head = "document.querySelectorAll('#classes thead th')"
  kept = sorted(zip(column(window, 1), column(window, 5), strict=True))
  for number, key in ((1, str), (4, lambda text: float(text.rstrip("%")))):
    for direction in ("ascending", "descending"):
      window.evaluate(f"{head}[{number}].querySelector('button').click()")
      values = [key(text) for text in column(window, number)]
      assert values == sorted(values, reverse=direction == "descending")
      sorts = window.evaluate(f"[...{head}].map(h => h.getAttribute('aria-sort'))")
      assert sorts == [direction if i == number else None for i in range(9)]
  assert sorted(zip(column(window, 1), column(window, 5), strict=True)) == kept


def test_pairs_sort_too_and_their_pictures_do_not(window, pages):
  window.open(pages / "thousand.html")
  heads = "document.querySelectorAll('#pairs thead th')"
  assert window.evaluate(f"[...{heads}].map(h => !!h.querySelector('button'))") == [True] * 4 + [
    False
  ]
  counts = "[...document.querySelectorAll('#pairs tbody tr')].map(r => +r.cells[2].textContent)"
  found = window.evaluate(counts)
  assert found == sorted(found, reverse=True) and len(found) == 200
  window.evaluate(f"{heads}[2].querySelector('button').click()")
  assert window.evaluate(counts) == sorted(found)


def test_labels_sort_as_numbers_and_what_is_not_defined_comes_last(window, pages):
  window.open(pages / "thousand.html")
  for expected in (list(range(999, -1, -1)), list(range(1000))):
    window.evaluate("document.querySelector('#classes thead button').click()")
    assert [int(text) for text in column(window, 0)] == expected
  window.open(pages / "bare.html")
  # Neither class has a ROC area; a first row is made to have one.
  window.evaluate(
    "document.querySelector('#classes tbody tr:last-child').cells[7].textContent = '0.5'"
  )
  for _ in range(2):
    window.evaluate("document.querySelectorAll('#classes thead button')[7].click()")
    assert column(window, 7) == ["0.5", "\N{EN DASH}"]


def test_the_keyboard_reaches_the_heads_sorts_and_leaves_the_table_again(window, pages):
  window.open(pages / "ten.html")
  reached = []
  for _ in range(60):
    window.press("Tab")
    reached.append(
      window.evaluate(
        "(e => (e.closest('section') || e).id + ' ' + e.tagName)(document.activeElement)"
      )
    )
    if reached[-1] == "classes BUTTON" and reached.count(reached[-1]) == 6:
      assert window.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
      window.press("Enter", "\r")
  f1 = [float(text.rstrip("%")) for text in column(window, 5)]
  assert f1 == sorted(f1) and len(set(f1)) > 1
  assert reached[0] == " A"  # the way past the sections
  runs = [key for key, _ in itertools.groupby(reached)]
  assert runs.count("classes BUTTON") == 1 and runs.index("classes BUTTON") < runs.index(
    "confusions A"
  )


@pytest.mark.parametrize("scripts", [True, False])
def test_a_cell_shows_its_pictures_by_keyboard_with_and_without_scripts(window, pages, scripts):
  window.open(pages / "ten.html", scripts=scripts)
  visible = (
    "[...document.querySelectorAll('.panel')].filter(e => e.checkVisibility()).map(e => e.id)"
  )
  assert window.evaluate(visible) == []
  window.evaluate("document.querySelector('.matrix td a').focus()")
  target = window.evaluate("document.querySelector('.matrix td a').hash.slice(1)")
  window.press("Enter", "\r")
  assert window.evaluate(visible) == [target]
  assert window.evaluate("document.activeElement.id") == target
  inside = f"document.getElementById('{target}')"
  assert window.evaluate(f"{inside}.querySelectorAll('.pictures use').length") >= 2
  top = window.evaluate(f"{inside}.getBoundingClientRect().top")
  assert 0 <= top < 900
  window.evaluate(f"{inside}.querySelector('a').click()")
  assert window.evaluate(visible) == []


def test_without_scripts_all_is_there_but_the_sorting(window, pages):
  texts = []
  for scripts in (True, False):
    window.open(pages / "ten.html", scripts=scripts)
    assert window.evaluate("document.querySelectorAll('th button').length") == (
      13 if scripts else 0
    )
    assert ("sorts by" in window.evaluate("document.body.innerText")) == scripts
    texts.append(window.evaluate("document.querySelector('#classes tbody').innerText"))
  assert texts[0] == texts[1] and "airplane" in texts[0]


def test_dark_and_light_differ_and_the_ground_is_that_of_the_palette(window, pages):
  grounds = []
  for dark, scheme in ((False, "light"), (True, "dark")):
    window.open(pages / "ten.html", dark=dark)
    colour = test_page.palettes()[scheme]["page"]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    grounds.append(window.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[-1] == f"rgb({red}, {green}, {blue})"
  assert grounds[0] != grounds[1]


def test_a_thousand_classes_are_laid_out_before_a_reader_gets_impatient(window, pages):
  window.open(pages / "thousand.html")
  timing = "performance.getEntriesByType('navigation')[0]"
  assert window.evaluate(f"{timing}.domComplete - {timing}.responseEnd") < 15_000
  assert window.evaluate("document.querySelectorAll('#classes tbody tr').length") == 1000


def test_a_name_shows_as_it_is_written(window, pages):
  window.open(pages / "hostile.html")
  shown = column(window, 1)
  assert shown[0] == test_page.HOSTILE[0]
  assert "{{ 7 * 7 }}{% raw %}" in shown and "\\u202egnp.exe" in shown and "(blank)" in shown
