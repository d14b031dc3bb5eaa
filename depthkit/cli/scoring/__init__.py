"""Commands that score: networks and stored maps, motions, decoders, two reports, a paper's whole table."""
