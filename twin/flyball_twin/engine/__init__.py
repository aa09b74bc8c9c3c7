"""One simulated engine: who is in a step, when it ends, and what is counted. It knows nothing of routes and lanes."""
