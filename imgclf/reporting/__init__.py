"""The report of a run: what is in it, and the page that shows it."""
