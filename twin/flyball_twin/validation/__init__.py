"""The twin held against what others measured on real GPUs."""
