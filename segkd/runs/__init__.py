"""A recipe from its first line to its summary: what `segkd distill` and `segkd teach` do."""

from segkd.runs.distill import distill, planned
from segkd.runs.labelled import unmeasured
from segkd.runs.options import Options
from segkd.runs.teach import teach

__all__ = ["Options", "distill", "planned", "teach", "unmeasured"]
