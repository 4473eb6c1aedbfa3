"""Each guard of the supervisor is needed, and the judge sees when it is not there.

Every story is told twice: with a sound supervisor, which comes through without a finding, and with one that lacks the
guard that the story is about.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.judge import mutant, scenarios
from tests.judge.checker import Finding
from tests.judge.scenarios import Scene

TELLINGS = 4
Story = Callable[[Scene], list[Finding]]

STORIES: dict[str, tuple[Story, str]] = {  # what is lacking -> the story, and what the judge finds then
    "reschedules_the_living": (scenarios.stopped_worker, "overlap"),
    "frees_what_it_has_not_read": (scenarios.dead_with_a_result, "unaccounted"),
    "results_of_any_claim": (scenarios.late_result, "repeated"),
    "writes_of_any_boot": (scenarios.succeeded, "repeated"),
    "no_sync": (scenarios.power_cut, "lost"),
    "answers_before_the_sync": (scenarios.power_cut, "lost"),
}


@pytest.mark.parametrize("story", dict.fromkeys(story for story, _ in STORIES.values()))
def test_a_sound_supervisor_comes_through(tmp_path: Path, story: Story) -> None:
    assert story(Scene(tmp_path, "nothing")) == []


@pytest.mark.parametrize("lacks", STORIES)
def test_a_supervisor_that_lacks_a_guard_is_found_out(tmp_path: Path, lacks: str) -> None:
    """Some misfortunes are a matter of which event the kernel tells first, so a story may be told again."""
    story, kind = STORIES[lacks]
    found: set[str] = set()
    for telling in range(TELLINGS):
        folder = tmp_path / str(telling)
        folder.mkdir()
        found |= {finding.kind for finding in story(Scene(folder, lacks))}
        if kind in found:
            return
    pytest.fail(f"told {TELLINGS} times, and all that was found is: {found}")


def test_every_guard_has_a_story() -> None:
    assert set(STORIES) == set(mutant.MUTATIONS)
