"""From a data set's name to host batches: sets, splits, codecs, crops, order."""
