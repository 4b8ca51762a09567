"""Lay the columns of one decision beside each other: the one function of training and of serving.

The same code turns a Feast join's row into a training row and an online row into a request's vector, so that the two
cannot drift apart. Values are float64: NaN is missing, categories are codes of the bundle's dictionary, moments become
ages in days.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.columns import pairs
from features.columns.catalogue import Catalogue
from features.columns.contract import Column, Contract
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.columns.shared_layout import SharedLayout, limit_of
from features.common.moments import BEGINNING, Seconds

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class _Matched:
    """Where a matched column finds its values."""

    column: Column
    family: int
    measure: int
    view: int
    everyone: bool


class Matched(NamedTuple):
    """The columns of `Layout.personal` for every offer of the catalogue, as `Layout.matched_together` gives them.

    Attributes:
        rows: shape (columns, offers), with others among them.
        places: which rows are those of `personal`, shape (personal,).
    """

    rows: Floats
    places: Integers


class Layout(SharedLayout):
    """Columns of one contract, for one catalogue and one engine's words. Not thread-safe: one for each worker.

    Args:
        contract: the columns in model order.
        plan, everyone: slots of rows of one customer and of everyone.
        catalogue: offers in the order of all arrays that have one value an offer.
        categories: texts of each category column, by column name; the code of a text is its position.
        words: the engine's word ids; they may grow.

    Attributes:
        personal: names of the matched columns of a customer's row of which pair columns are made.
    """

    def __init__(
        self,
        contract: Contract,
        plan: RowSchema,
        everyone: RowSchema,
        catalogue: Catalogue,
        categories: dict[str, list[str]],
        words: Dictionary,
    ) -> None:
        super().__init__(contract, plan, categories, words)
        self.catalogue, self.everyone_plan = catalogue, everyone
        self.offer = contract.of_kind("offer")
        self.pair = contract.of_kind("pair")
        self._matched = {c.name: self._place(c) for c in (*contract.columns, *contract.auxiliary) if c.match}
        self._everybody = np.arange(len(catalogue), dtype=np.int32)
        self._places = np.full(len(catalogue), -1, np.int32)
        self._offer_at = {column.name: at for at, column in enumerate(self.offer)}
        self._pair_at = {column.name: at for at, column in enumerate(self.pair)}
        self._plan_pairs()

    def _place(self, column: Column) -> _Matched:
        view, family, measure = column.source.split(".")
        everyone = f"{view}.{family}" in self.everyone_plan.families
        plan = self.everyone_plan if everyone else self.plan
        at = next(i for i, v in enumerate(plan.views) if v.name == view)
        names = next([m.name for m in f.measures] for f in plan.views[at].families if f.name == family)
        return _Matched(column, plan.families[f"{view}.{family}"], names.index(measure), at, everyone)

    def _plan_pairs(self) -> None:
        """Lay down once what every decision needs: the base columns in groups, and what each pair column is made of.

        Bases are pair columns, what relative ones compare, and moments of offers. Those of everyone and of offers are
        the same until the row of everyone changes, so they are computed for all offers then; the others for each
        decision.
        """
        known = {c.name: c for c in (*self.contract.columns, *self.contract.auxiliary)}
        bases = list(dict.fromkeys(column.relative_to or column.name for column in self.pair))
        self._base_of = np.array([bases.index(column.relative_to or column.name) for column in self.pair], np.int32)
        self._how = np.array([pairs.RELATIVE[column.relative] for column in self.pair], np.int32)
        self._fixed = [
            (row, known[name])
            for row, name in enumerate(bases)
            if name in self._offer_at or self._is_fixed(known[name])
        ]
        fixed = {row for row, _ in self._fixed}
        # Offer columns of the contract are laid at the load, ages and limits included; the others change with the
        # clock.
        laid = [(row, column) for row, column in self._fixed if column.name not in self._offer_at]
        self._aging = [(row, column) for row, column in laid if column.dtype == "age" or limit_of(column) < np.inf]
        self._fixed_rows = np.array([row for row, _ in self._fixed], np.int32)
        self._fixed_places = np.arange(len(self._fixed), dtype=np.int32)
        self._fixed_values = np.empty((len(self._fixed), len(self.catalogue)))
        self._fixed_for: OnlineRow | None = None
        self._bases = len(bases)
        personal = [(row, known[name]) for row, name in enumerate(bases) if row not in fixed]
        self.personal = tuple(column.name for _, column in personal)
        self._personal_rows = np.array([row for row, _ in personal], np.int32)
        self._groups = self._grouped(personal)
        self._alone = {name: self._grouped([(0, place.column)])[0] for name, place in self._matched.items()}

    def _is_fixed(self, column: Column) -> bool:
        return column.source.startswith("offer.") or (
            column.name in self._matched and self._matched[column.name].everyone
        )

    def _grouped(self, wanted: list[tuple[int, Column]]) -> list[pairs.MeasureGroup]:
        together: dict[tuple[bool, int, str], list[tuple[int, Column]]] = {}
        for row, column in wanted:
            place = self._matched[column.name]
            together.setdefault((place.everyone, place.family, column.match), []).append((row, column))
        return [
            pairs.MeasureGroup(
                everyone,
                family,
                self._matched[columns[0][1].name].view,
                self.catalogue.keys(match),
                np.array([self._matched[column.name].measure for _, column in columns], np.int32),
                np.array([row for row, _ in columns], np.int32),
                np.array([pairs.COMBINE[column.combine] for _, column in columns], np.int32),
                np.array([column.dtype == "age" for _, column in columns], np.int32),
                np.array([0.0 if column.empty == "zero" else np.nan for _, column in columns]),
                np.array([limit_of(column) for _, column in columns]),
            )
            for (everyone, family, match), columns in together.items()
        ]

    def offer_values(self, everyone: OnlineRow, now: Seconds) -> Floats:
        """Return the offer columns, shape (offers, offer columns); called once a catalogue load."""
        out = np.empty((len(self.catalogue), len(self.offer)))
        for at, column in enumerate(self.offer):
            if column.match:
                out[:, at] = self.matched(column.name, everyone, now)
            elif column.dtype == "category":
                out[:, at] = self.catalogue.codes(column.source, self.categories[column.name])
            else:
                out[:, at] = self.catalogue.numbers(column.source)
                if column.empty == "zero":
                    np.nan_to_num(out[:, at], copy=False)
        return out

    def matched(self, name: str, row: OnlineRow, now: Seconds) -> Floats:
        """Return one matched column for every offer of the catalogue, shape (offers,)."""
        return self._filled(self._alone[name], row, now)

    def groups_of(self, names: list[str]) -> list[pairs.MeasureGroup]:
        """Return matched columns that are filled together by `matched_together`, in the order of its rows."""
        return self._grouped([(row, self._matched[name].column) for row, name in enumerate(names)])

    def matched_together(
        self, groups: list[pairs.MeasureGroup], row: OnlineRow, everyone: OnlineRow, now: Seconds, out: Floats
    ) -> None:
        """Fill `out`, shape (columns, offers), with what `matched` gives for each column; a family's keys are walked
        once.
        """
        for group in groups:
            self._fill(group, everyone if group.everyone else row, now, out)

    def _refresh_fixed(self, everyone: OnlineRow, offers: Floats) -> None:
        """Lay what does not change from decision to decision, for all offers; an age as its moment, as time goes on."""
        for at, (_, column) in enumerate(self._fixed):
            if column.name in self._offer_at:
                self._fixed_values[at] = offers[:, self._offer_at[column.name]]
            elif column.source.startswith("offer."):
                self._fixed_values[at] = self.catalogue.numbers(column.source.removeprefix("offer."))
            else:
                group = self._alone[column.name]
                raw = replace(group, ages=np.zeros_like(group.ages), limits=np.full_like(group.limits, np.inf))
                self._fixed_values[at] = self._filled(raw, everyone, BEGINNING)
        self._fixed_for = everyone

    def _filled(self, group: pairs.MeasureGroup, row: OnlineRow, now: Seconds) -> Floats:
        """Return the one column of a group, for every offer of the catalogue."""
        out = np.empty((1, len(self.catalogue)))
        self._fill(group, row, now, out)
        found: Floats = out[0]
        return found

    def _fill(self, group: pairs.MeasureGroup, row: OnlineRow, now: Seconds, out: Floats) -> None:
        """Fill the rows of a group in `out`, for every offer of the catalogue."""
        age = now - float(row.event_times[group.view])
        group.fill(row.families[group.family], age, group.index.of_word(self.words), self._everybody, now, out)

    def _lay_fixed(self, everyone: OnlineRow, chosen: Integers, now: Seconds, bases: Floats) -> None:
        """Fill the rows of `bases` that were laid for all offers, with ages and limits as of now."""
        pairs.pick(self._fixed_values, self._fixed_places, chosen, self._fixed_rows, bases)
        for row, column in self._aging:
            if column.dtype == "age":
                bases[row] = (now - bases[row]) / DAY_SECONDS
            if column.match and not now - everyone.event_times[self._matched[column.name].view] <= limit_of(column):
                bases[row] = np.nan

    def pair_values(
        self,
        row: OnlineRow,
        everyone: OnlineRow,
        offers: Floats,
        chosen: Integers,
        now: Seconds,
        matched: Matched | None = None,
    ) -> Floats:
        """Return the pair columns of the offers considered, shape (chosen, pair columns).

        Args:
            offers: what `offer_values` gave.
            chosen: positions in the catalogue of the offers considered, ascending: the order in which shares are
                summed.
            matched: what was matched already, of the same row at the same moment.
        """
        if not self.pair:
            return np.empty((len(chosen), 0))
        bases = np.empty((self._bases, len(chosen)))
        if self._fixed:
            if self._fixed_for is not everyone:
                self._refresh_fixed(everyone, offers)
            self._lay_fixed(everyone, chosen, now, bases)
        if matched is not None:
            pairs.pick(matched.rows, matched.places, chosen, self._personal_rows, bases)
        elif self._groups:
            pairs.mark(chosen, self._places, True)
            for group in self._groups:
                age = now - float(row.event_times[group.view])
                group.fill(row.families[group.family], age, group.index.of_word(self.words), self._places, now, bases)
            pairs.mark(chosen, self._places, False)
        out = np.empty((len(chosen), len(self.pair)))
        pairs.relate(bases, self._base_of, self._how, out)
        return out

    def is_everyone(self, name: str) -> bool:
        """Return whether a matched column is computed from the events of everyone."""
        return self._matched[name].everyone

    def column(
        self,
        name: str,
        row: OnlineRow,
        everyone: OnlineRow,
        offers: Floats,
        pairs: Floats,
        chosen: Integers,
        now: Seconds,
    ) -> Floats:
        """Return one offer, pair or auxiliary column of the offers considered, shape (chosen,).

        Args:
            offers, pairs: what `offer_values` and `pair_values` gave.
        """
        if name in self._offer_at:
            found: Floats = offers[chosen, self._offer_at[name]]
            return found
        if name in self._pair_at:
            return pairs[:, self._pair_at[name]]
        return self.matched(name, everyone if self.is_everyone(name) else row, now)[chosen]

    def shown(self, column: Column, value: float) -> float | str | None:
        """Return a laid value for people: the text of a category, None for a missing one."""
        if np.isnan(value):
            return None
        return self.categories[column.name][int(value)] if column.dtype == "category" else float(value)
