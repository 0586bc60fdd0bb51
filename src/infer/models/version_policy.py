"""Which versions of a model shall be served. Pure; any thread."""

from __future__ import annotations

from collections.abc import Collection

from infer.models.settings import VersionPolicy


def aspired(policy: VersionPolicy, available: Collection[int]) -> frozenset[int]:
    """The versions that the policy picks among those that are there."""
    if policy.kind == "all":
        return frozenset(available)
    if policy.kind == "specific":
        return frozenset(policy.versions) & frozenset(available)
    return frozenset(sorted(available, reverse=True)[:max(0, policy.count)])


def described(policy: VersionPolicy) -> str:
    """As messages name it."""
    if policy.kind == "all":
        return "all versions"
    if policy.kind == "specific":
        return f"version{'s' * (len(policy.versions) != 1)} {', '.join(map(str, policy.versions))}"
    return "the latest version" if policy.count == 1 else f"the latest {policy.count} versions"
