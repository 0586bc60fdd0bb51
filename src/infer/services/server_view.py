"""What services see of the server. Loop thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from infer.services.views import AuditView, OutcomesView, RoutesView

if TYPE_CHECKING:
    from infer.services.call import Changes
    from infer.services.control import Repository


class ServerView(Protocol):
    """The server's state, read on the loop thread."""

    @property
    def live(self) -> bool: ...

    @property
    def ready(self) -> bool: ...

    @property
    def stopping(self) -> bool:
        """Whether calls under way are waited for; a stream that would never end is to end now."""

    @property
    def routes(self) -> RoutesView: ...

    def answers(self, name: str, version: str) -> bool:
        """Whether a call of the model, and of the version where one is named, would be answered with a prediction, as
        far as breakers go. Raises what `routes.lookup` does."""

    @property
    def repository(self) -> Repository:
        """What changes the models, and says which there are."""

    @property
    def outcomes(self) -> OutcomesView:
        """Where what clients report of replies is counted."""

    @property
    def audit(self) -> AuditView: ...

    @property
    def changes(self) -> Changes:
        """Notified when any of the above, or a model, changes."""
