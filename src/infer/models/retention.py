"""Which version directories may be deleted. Pure; the deletion itself is its caller's.

A version stays that one of the rules keeps, that is protected (aspired, labelled or loaded), or that is the highest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from infer.models.settings import ModelSettings


def removable(settings: ModelSettings, ages_s: Mapping[int, float], protected: Collection[int]) -> tuple[int, ...]:
    """The versions that may go, lowest first. `ages_s`: of every whole version directory, since it last changed."""
    if settings.keep_versions is None and settings.keep_age_s is None:
        return ()
    kept = set(sorted(ages_s, reverse=True)[:max(1, settings.keep_versions or 0)])
    if settings.keep_age_s is not None:
        kept |= {version for version, age in ages_s.items() if age < settings.keep_age_s}
    return tuple(sorted(ages_s.keys() - kept - set(protected)))
