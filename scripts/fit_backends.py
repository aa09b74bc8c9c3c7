"""Fit the twin's constants of each serving backend to measured end-to-end rows, and write them into its data.

    python scripts/fit_backends.py TABLE... [--out FILE]

TABLE is a Parquet file in the columns of aiconfigurator's silicon table; the bundled constants were fitted to that of
commit 095f58a51c4ca8e61b66ec108d86f223f8d559ce. All rows that `flyball twin validate` compares count; how they are
fitted stands in `flyball_twin.validation.fitting`. Run it again on the same rows and the file is the same.
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from flyball_twin.physics.fitted import FITTED_FILE
from flyball_twin.validation.fitting import SPREADS
from flyball_twin.validation.silicon import errors, in_sample, trial_of
from flyball_twin.validation.silicon_rows import read_rows

SCHEMA = "flyball.fitted/1"
SOURCE = (
    "ai-dynamo/aiconfigurator, aic-core/src/aiconfigurator_core/systems/silicon_sample.csv, "
    "commit 095f58a51c4ca8e61b66ec108d86f223f8d559ce, Apache-2.0"
)
METHOD = (
    "scripts/fit_backends.py: closed loops of the twin's engine, taken apart by the parts of their steps; Cauchy loss "
    "of log(predicted / measured), shrunk towards priors; nothing depends on a row, a model, a GPU or a load"
)
DIGITS = 4


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    parser.add_argument("--out", type=Path, default=FITTED_FILE)
    options = parser.parse_args()
    trials = [trial_of(row) for row in read_rows(options.tables).rows]
    predictions, constants = in_sample(trials)
    rows = Counter(trial.row.setting.group for trial in trials)
    tpot, ttft, _ = errors(predictions)
    document = {
        "schema": SCHEMA,
        "source": SOURCE,
        "method": METHOD,
        "fitted": list(SPREADS),
        "rows": [
            {"model": model, "backend": backend, "rows": count} for (model, backend), count in sorted(rows.items())
        ],
        "backends": {
            backend: {name: float(f"{value:.{DIGITS}g}") for name, value in asdict(fitted).items()}
            for backend, fitted in constants.items()
        },
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{options.out}: {tpot.rows} rows, in sample TPOT {tpot.p50_ape:.1%}, TTFT {ttft.p50_ape:.1%} at half")


if __name__ == "__main__":
    main()
