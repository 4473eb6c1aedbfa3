"""The plain computation that the demo's result is held against: no dq, the standard library's process pool.

    python plain.py FOLDER WORKERS

It prints one JSON object: the survey, its digest, and whether any of dq was imported.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from types import ModuleType


def load_measure() -> ModuleType:
    """The module beside this one, by its path: its import by name would import dq."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "measure.py")
    spec = importlib.util.spec_from_file_location("measure", place)
    if spec is None or spec.loader is None:
        raise ImportError(place)
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module  # where the pool's processes find what they are handed
    spec.loader.exec_module(module)
    return module


def main() -> int:
    folder, workers = sys.argv[1], int(sys.argv[2])
    measure = load_measure()
    paths = measure.list_sources(folder)
    # Forked, the pool has the module that was loaded by its path.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        work = functools.partial(measure.measure, folder)
        survey = measure.survey_all(pool.map(work, paths, chunksize=8))
    told = {"survey": survey, "digest": measure.digest(survey), "dq": "dq" in sys.modules}
    json.dump(told, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
