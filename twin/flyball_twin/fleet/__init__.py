"""Pools of engines behind one front on one clock, and what becomes of each request. It governs nothing."""
