"""Trains, evaluates and predicts with imgclf: `python launch.py --help`."""

from imgclf.app import command

if __name__ == "__main__":
  command()
