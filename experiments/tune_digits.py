"""The digits sweep under Ray Tune, into a folder: python -m experiments.tune_digits [FOLDER] [TRIALS]"""

import sys
from pathlib import Path

from experiments.opened import open_sweep
from nas.tune import searcher, trainable, tune


def main(folder: str = "runs/tune-digits", trials: str = "8") -> None:
    sweep, path = open_sweep("digits"), Path(folder).resolve()
    tuner = tune.Tuner(
        tune.with_resources(trainable(sweep), {"cpu": 1}),
        tune_config=tune.TuneConfig(search_alg=searcher(sweep), num_samples=int(trials), reuse_actors=True),
        run_config=tune.RunConfig(name=path.name, storage_path=str(path.parent)),
    )
    for result in tuner.fit():
        print(result.error or f"{result.metrics['accuracy']:.3f}  {result.metrics['flops']:>9,.0f} FLOPs")
    print(f"put them on a front: nas import {folder} --into runs/digits-tune --sweep digits")


if __name__ == "__main__":
    main(*sys.argv[1:])
