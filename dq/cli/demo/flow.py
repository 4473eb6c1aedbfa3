"""The demo's workflow: list the files, measure each, merge in two stages, write a report."""

from __future__ import annotations

import dq
from dq.cli.demo import measure, report
from dq.cli.demo.bodylog import logged, told
from dq.cli.demo.measure import Facts, Survey

# Whatever the killer hits, however often, it is no fault of the step: none is ever to be quarantined.
step = dq.step(max_crashes=1_000_000)


@step
def list_sources(folder: str, log: str) -> list[str]:
    return logged(log, "list", measure.list_sources, folder)


@step
def measure_file(folder: str, path: str, passes: int, log: str) -> Facts:
    return logged(log, f"file:{path}", measure.measure, folder, path, passes)


@step
def merge_files(number: int, facts: list[Facts], log: str) -> Survey:
    return logged(log, f"part:{number}", measure.merge_files, facts)


@step
def merge_parts(parts: list[Survey], log: str) -> Survey:
    return logged(log, "total", measure.merge_surveys, parts)


@step
def write_report(survey: Survey, folder: str, stem: str, log: str) -> list[str]:
    return logged(log, "report", report.write, survey, folder, stem)


@dq.workflow
def survey(folder: str, passes: int, stem: str, log: str) -> Survey:
    """Measures all `.py` files of a folder.

    Args:
        folder: An absolute path.
        passes: How many times each file is measured.
        stem: The report's path without its suffix.
        log: Where bodies write what they begin and end, and the workflow what it is told.
    """
    paths = told(log, "list", list_sources(folder, log))
    files = [measure_file.submit(folder, path, passes, log) for path in paths]
    facts = [told(log, f"file:{path}", file.result()) for path, file in zip(paths, files, strict=True)]
    merges = [merge_files.submit(number, list(chunk), log) for number, chunk in enumerate(measure.chunks(facts))]
    parts = [told(log, f"part:{number}", merge.result()) for number, merge in enumerate(merges)]
    total = told(log, "total", merge_parts(parts, log))
    told(log, "report", write_report(total, folder, stem, log))
    return total
