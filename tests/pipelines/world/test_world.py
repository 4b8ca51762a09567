"""Simulated worlds: seeds reproduce, and what is called the truth is how often things happen."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.config.documents import BadWorkspace
from features.validation.load import load
from pipelines.world.customers import NEVER
from pipelines.world.history import draw_history, draw_purchases
from pipelines.world.outcomes import AT_ONCE, follow
from pipelines.world.settings import CATEGORIES, DAY, HOUR, LIVE, NOW, SLATE_OFFERS, WINDOW_DAYS, WorldSettings
from pipelines.world.visits import LUCK, Visits, draw_visits
from pipelines.world.workspace import WORLD_FILE, write_workspace
from pipelines.world.world import BASE, EXAMINED, HOURS_WEIGHT, World, hour_of, weekend
from pipelines.world_run.steps import world_in

SMALL = WorldSettings(customers=120, offers=12, seed=3)
DRAWS = 1_000_000


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


def digests(folder: Path) -> dict[str, str]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_seed_makes_the_same_files_to_the_byte(tmp_path: Path) -> None:
    """The same settings write the same bytes, another seed other tables; all of them are valid workspaces."""
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        write_workspace(World(msgspec.structs.replace(SMALL, seed=seed)), tmp_path / name)
        assert load(tmp_path / name).settings.name == "simulated-world"
    one, again, other = (digests(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again and len(one) == 13
    assert all(one[name] != other[name] for name in one if name.endswith(".parquet"))


def test_folder_is_used_again_only_for_the_same_world(tmp_path: Path) -> None:
    """A folder with a world gives it back; another seed, or a folder with something else in it, is refused with the way
    out.
    """
    folder = tmp_path / "world"
    made = world_in(folder, customers=60, offers=None, seed=5)
    assert (
        made.settings
        == WorldSettings(customers=60, seed=5)
        == world_in(folder, seed=5).settings
        == world_in(folder).settings
    )
    with pytest.raises(BadWorkspace, match=r"seed.*expected 6, got 5.*--seed") as refused:
        world_in(folder, seed=6)
    assert WORLD_FILE in str(refused.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(BadWorkspace, match="not a world"):
        world_in(tmp_path / "other")


def plain_relevance(world: World, who: int, at: int, channel: int, what: int) -> float:
    """The formula of the docstring, in plain numbers."""
    people, offers, seasons = world.customers, world.offers, world.seasons
    category = int(offers.category[what])
    odds = BASE + people.taste[who, category] + (at - NOW) / (30 * DAY) * seasons.drift[people.segment[who], category]
    odds += offers.quality[what] - people.thrift[who] * offers.dearness[what] + seasons.channel[channel, category]
    odds += HOURS_WEIGHT * math.cos(2 * math.pi * ((at % DAY) / HOUR - seasons.peak_hour[category]) / 24)
    odds += seasons.weekend[category] if (at // DAY + 3) % 7 in (5, 6) else 0.0
    if people.complaint[who] <= at:
        odds -= 1.5 * math.exp(-(at - int(people.complaint[who])) / (10 * DAY))
    return 0.0 if people.bot[who] else 1 / (1 + math.exp(-odds))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_truth_is_the_formula(data: st.DataObject) -> None:
    """Probabilities of many at once are those of the formula one by one, before and after complaints, for bots, at any
    rank.
    """
    world = World(SMALL)
    count = data.draw(st.integers(1, 5))
    who = np.array(data.draw(st.lists(st.integers(0, 119), min_size=count, max_size=count)))
    at = np.array(data.draw(st.lists(st.integers(SMALL.begin, SMALL.end), min_size=count, max_size=count)))
    channel = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    slates = np.array(
        data.draw(st.lists(st.lists(st.integers(-1, 11), min_size=4, max_size=4), min_size=count, max_size=count))
    )
    found = world.probability(who, at, channel, slates)
    for row in range(count):
        for rank, offer in enumerate(slates[row]):
            expected = 0.0
            if offer >= 0:
                expected = (rank + 1) ** -0.4 * plain_relevance(world, who[row], int(at[row]), channel[row], offer)
            assert found[row, rank] == pytest.approx(expected, rel=1e-12)


def test_things_happen_as_often_as_the_truth_says(world: World) -> None:
    """Of a million draws of one visit, each rank is seen and accepted as often as stated, within five standard
    errors.
    """
    who, at, rows = 5, NOW + 3 * DAY + 9 * HOUR, DRAWS // SLATE_OFFERS
    slate = np.array([[0, 3, 7, 9]])
    luck = np.random.default_rng(1).random((rows, SLATE_OFFERS, LUCK))
    visits = Visits(np.full(rows, who), np.full(rows, at), np.zeros(rows, np.int64), np.zeros(rows, bool), luck)
    came = follow(world, visits, np.repeat(slate, rows, 0))
    stated = world.probability(np.array([who]), np.array([at]), np.array([0]), slate)[0]
    for happened, probability in ((came.accepted, stated), (came.seen, EXAMINED)):
        error = np.sqrt(probability * (1 - probability) / rows)
        assert (np.abs(happened.mean(0) - probability) <= 5 * error + 1e-12).all() and (probability > 0).all()
    assert (came.seen | ~came.accepted).all() and not (came.accepted & came.dismissed).any()
    assert came.delay.min() >= 2 * AT_ONCE and came.delay.max() < WINDOW_DAYS * DAY and came.delay.std() > DAY / 2


def test_history_is_what_a_random_policy_shows(world: World) -> None:
    """Offers stand at each rank as often as others, nothing invalid is shown, nothing is imported from later, bots
    never accept.
    """
    history = draw_history(world)
    there = world.offers.valid(history.visits.at)
    assert all((there[np.arange(len(there)), history.slates[:, rank]]).all() for rank in range(SLATE_OFFERS))
    assert (np.sort(history.slates, 1)[:, 1:] > np.sort(history.slates, 1)[:, :-1]).all() and (
        history.visits.at < NOW
    ).all()
    counts = np.stack([np.bincount(history.slates[:, rank], minlength=12) for rank in range(SLATE_OFFERS)])
    old = ~world.offers.new
    expected = len(there) / old.sum()
    assert (np.abs(counts[:, old] - expected) < 5 * math.sqrt(expected)).all() and not counts[:, ~old].any()
    assert not history.outcomes.accepted[world.customers.bot[history.visits.who]].any()
    assert (history.eligible == old.sum()).all()


def test_run_has_strangers_bots_logins_and_offers_that_come_and_go(world: World) -> None:
    """Everything that a run promises occurs: new customers and offers, ends, bots, anonymous visits before a log-in,
    drift, complaints.
    """
    visits, people, offers = draw_visits(world, LIVE, 4_000, NOW, SMALL.live_days), world.customers, world.offers
    assert (np.diff(visits.at) >= 0).all() and visits.at.min() >= NOW and visits.at.max() < SMALL.end
    assert (people.joined[visits.who] <= visits.at).all() and people.new[visits.who].any()
    assert 0.04 < people.bot[visits.who].mean() < 0.12 and people.bot.sum() >= 1
    assert visits.anonymous.any() and (visits.at[visits.anonymous] < people.login[visits.who[visits.anonymous]]).all()
    assert (~visits.anonymous & (people.login[visits.who] > 0)).any() and not people.consents.all()
    assert offers.new.any() and ((offers.ends > NOW) & (offers.ends < SMALL.end)).any()
    assert len(np.unique(offers.category)) == len(CATEGORIES) and offers.valid(visits.at).sum(1).min() >= SLATE_OFFERS
    assert (
        (people.complaint != NEVER).any() and not weekend(np.array([NOW]))[0] and weekend(np.array([NOW + 5 * DAY]))[0]
    )
    busy = np.bincount(hour_of(visits.at).astype(int), minlength=24)
    assert busy[:7].max() < busy[7:].min()
    someone = np.flatnonzero(~people.bot)[:1]
    first, last = (world.taste(someone, np.array([at])) for at in (NOW, SMALL.end))
    assert not np.allclose(first, last)


def test_purchases_tell_tastes(world: World) -> None:
    """Customers buy more of what they like, from when they joined, in the order of time; bots buy nothing."""
    bought, people = draw_purchases(world), world.customers
    assert (
        (np.diff(bought.at) >= 0).all()
        and (bought.at >= people.joined[bought.who]).all()
        and not people.bot[bought.who].any()
    )
    counts = np.zeros((len(people), len(CATEGORIES)))
    np.add.at(counts, (bought.who, bought.category), 1)
    rows = counts.sum(1) >= 10
    shares = counts[rows] / counts[rows].sum(1, keepdims=True)
    assert np.corrcoef(shares.ravel(), people.taste[rows].ravel())[0, 1] > 0.5
    first = bought.between(SMALL.begin, NOW)
    assert len(first) + len(bought.between(NOW, SMALL.end)) == len(bought) and (first.at < NOW).all()


def test_tables_hold_nothing_of_the_truth(tmp_path: Path, world: World) -> None:
    """The tables name no stranger, no bot's facts, nothing from after the end of history, and action probabilities are
    those of the draw.
    """
    write_workspace(world, tmp_path / "world")
    tables = {file.stem: pyarrow.parquet.read_table(file) for file in (tmp_path / "world" / "data").iterdir()}
    assert len(tables) == 7
    people = world.customers
    known = set(tables["customers"]["customer_id"].to_pylist())
    assert known == {people.ids[at] for at in np.flatnonzero(~people.new & ~people.bot)}
    strangers = {people.ids[at] for at in np.flatnonzero(people.new)}
    for name in ("decisions", "impressions", "outcomes", "purchases", "complaints"):
        moments = tables[name]["time"].cast("int64").to_numpy()
        assert len(moments) and moments.max() < NOW and not strangers & set(tables[name]["customer_id"].to_pylist())
    assert np.allclose(tables["decisions"]["action_probability"].to_numpy(), SLATE_OFFERS / (~world.offers.new).sum())
    assert set(tables["outcomes"]["type"].to_pylist()) == {"click", "acceptance", "dismissal"}
    assert "quality" not in tables["offers"].column_names
