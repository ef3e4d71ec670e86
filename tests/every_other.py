"""A constraint of a user's own, as the guide to rules shows it: help for every n-th word only."""

from kdtw_jax.constraints import Constraint, Wording


def make_every_other() -> Constraint:
    def may(history, budget):
        return (history.length_B + 1) % budget == 0

    return Constraint(
        name="every_other",
        cost=lambda history, asked_B, budget: (asked_B & ~may(history, budget)).astype("float32"),
        limit=lambda budget, history: 0.0 * history.length_B,
        allowed=may,
        low=2,
        high=5,
        wording=Wording(("help with one word in {}",), (), "{:.0f}".format, float, {}),
    )
