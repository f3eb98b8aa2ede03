"""Scores, the interleaving metric and the comparison. Reads run folders through `dcgan.record.folder`."""
