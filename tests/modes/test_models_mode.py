import pathlib

from imgclf import app, models

README = pathlib.Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")


def test_the_lines_are_those_of_the_readme(monkeypatch, capsys):
  monkeypatch.setattr(models, "names", lambda: ["resnet50", "convnext_tiny"])
  assert app.main(["--mode=models"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert max(map(len, lines)) < 80
  assert len(lines) == 3
  (block,) = [
    text for text in README.split("```") if text.startswith("\nmodel               parameters")
  ]
  assert [line for line in block.strip().splitlines() if line != "..."] == lines


def test_every_name_has_room():
  assert max(map(len, models.names())) <= 18
