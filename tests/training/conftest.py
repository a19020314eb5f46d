"""What several tests of training share."""

from collections.abc import Callable

import pytest

from segkd.foundation import late


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From `far()` on nothing is at hand: on a CPU, what is decided is decided as on an accelerator."""
    return lambda: monkeypatch.setattr(late, "at_hand", lambda value: False)
