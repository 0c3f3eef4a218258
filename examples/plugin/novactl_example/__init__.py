"""A filter and a weigher for novactl, by two labels of nodes: `retire` (a date) and `price` (a number).

    novactl node set n4 --label retire=2031-03-31 --label price=0.7

Both look at nothing but their arguments: the time is `request.now`, and the same question gets the same answer.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from novactl.scheduler.request import NodeView, Reject, Request


class Retiring:
    """A node takes no servers from the day on that its label `retire` names."""

    name = "retiring"

    def applies(self, request: Request) -> bool:
        return bool(request.now)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        text = node.facts.labels.get("retire", "")
        if not text:
            return None
        try:
            day = date.fromisoformat(text)
        except ValueError:
            return Reject(self.name, f"retiring: its label retire={text} is no date; write it as 2031-03-31")
        if datetime.fromtimestamp(request.now, UTC).date() < day:
            return None
        return Reject(self.name, f"retiring: takes no servers since {day}")


class Price:
    """What the node costs, by its label `price`; a negative multiplier prefers the cheap ones."""

    name = "price"
    minval = 0.0
    maxval = None
    multiplier_key = "price_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        try:
            return float(node.facts.labels.get("price", "1"))
        except ValueError:
            return 1.0


retiring, price = Retiring(), Price()
