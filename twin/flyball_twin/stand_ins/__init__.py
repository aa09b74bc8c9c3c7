"""What stands in for a GPU's driver and for a large engine's metrics page, where there is neither.

They are put at the outermost boundary that Flyball reads at, so that everything of ours above it is the real thing.
"""
