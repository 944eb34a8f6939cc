"""Text that is safe to print, whatever a name in it contains. Knows no terminal."""


def printable(text: object, encoding: str = "utf-8") -> str:
  r"""Returns the text with control characters, and what `encoding` lacks, as escapes such as
  \x1b.
  """
  safe = "".join(
    c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
  )
  return safe.encode(encoding, "backslashreplace").decode(encoding)
