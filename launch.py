"""Trains, evaluates and predicts with imgclf: `python launch.py --help`."""

import sys

from imgclf.app import main

if __name__ == "__main__":
  sys.exit(main())
