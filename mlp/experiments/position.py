"""How far a run has come."""

from dataclasses import asdict, dataclass, field
from typing import Any

from mlp.optimisers import Scores


@dataclass
class Position:
    """How far a run has come: whole epochs, steps of the next one, and that one's sums so far."""

    epoch: int = 0
    step: int = 0
    scores: Scores = field(default_factory=Scores)
    seconds: float = 0.0

    def __str__(self) -> str:
        return f", going on after epoch {self.epoch}, step {self.step}" if self.epoch or self.step else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the position as JSON values, but for the seconds, which are not part of the result."""
        content = asdict(self)
        del content["seconds"]
        return {**content, "scores": list(self.scores)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Position":
        """Return the position of `to_dict`."""
        return cls(content["epoch"], content["step"], Scores(*content["scores"]))
