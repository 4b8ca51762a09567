"""Checks of what comes in: impressions, outcomes, dead letters, clocks of clients, and the way into the lake."""

from __future__ import annotations

from features.common.timestamps import MICROSECONDS, rfc3339
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts

DECISIONS_MIN = 20
"""Fewer decisions or events say nothing."""
IMPRESSIONS_SHARE_MIN = 0.05
UNKNOWN_SHARE_MAX = 0.02
DEAD_SHARE_MAX, DEAD_SHARE_ERROR = 0.01, 0.10
DUPLICATES_SHARE_MAX = 0.20
LATE_SHARE_MAX = 0.20
FUTURE_SHARE_MAX = 0.02
LAG_SECONDS_MAX = 300.0


def no_impressions(facts: Facts) -> Seen:
    """Decisions are answered with offers, and next to no impressions come back."""
    traffic = facts.traffic
    if traffic.decisions < DECISIONS_MIN:
        raise CannotSay(
            f"{traffic.decisions} decisions with offers in {traffic.hours} h, expected at least {DECISIONS_MIN}"
        )
    if traffic.impressions >= IMPRESSIONS_SHARE_MIN * traffic.shown:
        return Seen(f"{traffic.decisions:,} decisions with offers of the last {traffic.hours} h")
    return Seen(
        f"{traffic.decisions:,} decisions with offers of the last {traffic.hours} h",
        [
            Finding(
                "no_impressions",
                "error",
                "decisions are served, and hardly any impressions arrive: limits, popularity and training do not learn"
                " what was seen",
                {
                    "hours": traffic.hours,
                    "decisions": traffic.decisions,
                    "offers_shown": traffic.shown,
                    "impressions": traffic.impressions,
                },
                "Send an `impression` to POST /v1/events for each offer that was seen, with its decision_id.",
                rfc3339(traffic.decided_first) if traffic.decided_first and not traffic.impressions else "",
            )
        ],
    )


def outcomes_without_decisions(facts: Facts) -> Seen:
    """Outcomes name decisions that nobody recorded."""
    traffic = facts.traffic
    if traffic.outcomes_tied < DECISIONS_MIN:
        raise CannotSay(
            f"{traffic.outcomes_tied} outcomes with a decision_id in {traffic.hours} h, expected at least"
            f" {DECISIONS_MIN}"
        )
    share = traffic.outcomes_unknown / traffic.outcomes_tied
    if share <= UNKNOWN_SHARE_MAX:
        return Seen(f"{traffic.outcomes_tied:,} outcomes that name a decision, of the last {traffic.hours} h")
    return Seen(
        f"{traffic.outcomes_tied:,} outcomes that name a decision, of the last {traffic.hours} h",
        [
            Finding(
                "outcomes_without_decisions",
                "error",
                "outcomes name decisions that nobody recorded: they teach the model nothing",
                {
                    "hours": traffic.hours,
                    "outcomes": traffic.outcomes_tied,
                    "unknown": traffic.outcomes_unknown,
                    "share": share,
                },
                "Send the decision_id of the answer as it came; when several workspaces serve, send events to the one"
                " that decided.",
            )
        ],
    )


def outcomes_before_decisions(facts: Facts) -> Seen:
    """Impressions and outcomes happened, as they say, before the decision that they followed from, by more than a clock
    explains.
    """
    traffic = facts.traffic
    tied = traffic.outcomes_tied - traffic.outcomes_unknown + traffic.impressions_tied
    if tied < DECISIONS_MIN:
        raise CannotSay(f"{tied} events of recorded decisions in {traffic.hours} h, expected at least {DECISIONS_MIN}")
    looked = f"{tied:,} events of recorded decisions, of the last {traffic.hours} h"
    share = (traffic.outcomes_early + traffic.impressions_early) / tied
    if share <= UNKNOWN_SHARE_MAX:
        return Seen(looked)
    evidence: dict[str, float | str] = {
        "events": tied,
        "impressions_before": traffic.impressions_early,
        "outcomes_before": traffic.outcomes_early,
        "share": share,
        "a_little_before_and_taken_as_at_its_moment": traffic.clamped,
    }
    what = "events happened long before the decision that they name: nothing learns from them"
    todo = "Look at the clocks of whoever sets `occurred_at`, and at whether decision ids are mixed up."
    return Seen(looked, [Finding("outcomes_before_decisions", "warning", what, evidence, todo)])


def dead_letters(facts: Facts) -> Seen:
    """Events are refused for good, by reason."""
    log = facts.log
    if log.accepted < DECISIONS_MIN:
        raise CannotSay(f"{log.accepted} events were accepted so far, expected at least {DECISIONS_MIN}")
    share = log.dead / log.accepted
    if share <= DEAD_SHARE_MAX:
        return Seen(f"{log.accepted:,} accepted events")
    most = dict(sorted(log.reasons.items(), key=lambda reason: -reason[1])[:5])
    return Seen(
        f"{log.accepted:,} accepted events",
        [
            Finding(
                "dead_letters",
                "error" if share > DEAD_SHARE_ERROR else "warning",
                "events are dead letters: they were accepted and can be of no use as they are",
                {
                    "accepted": log.accepted,
                    "dead": log.dead,
                    "share": share,
                    **{f"of_{name}": count for name, count in most.items()},
                },
                "`opportune events list` says why. Mend what the clients send, or the files of the workspace; then"
                " `opportune events resend` sends again what fits by now.",
            )
        ],
    )


def duplicates(facts: Facts) -> Seen:
    """A large part of the events was sent more than once."""
    log = facts.log
    if log.accepted < DECISIONS_MIN:
        raise CannotSay(f"{log.accepted} events were accepted so far, expected at least {DECISIONS_MIN}")
    share = log.duplicates / log.accepted
    if share <= DUPLICATES_SHARE_MAX:
        return Seen(f"{log.accepted:,} accepted events")
    return Seen(
        f"{log.accepted:,} accepted events",
        [
            Finding(
                "duplicates",
                "warning",
                "many events are sent again although they were taken",
                {"accepted": log.accepted, "duplicates": log.duplicates, "share": share},
                "Look whether clients wait for the 202 for long enough, and send again only what was not answered.",
            )
        ],
    )


def clocks_of_clients(facts: Facts) -> Seen:
    """Events come from the future, or a day late."""
    traffic = facts.traffic
    if traffic.events < DECISIONS_MIN:
        raise CannotSay(f"{traffic.events} events in {traffic.hours} h, expected at least {DECISIONS_MIN}")
    found = []
    for count, most, which, todo in (
        (
            traffic.future,
            FUTURE_SHARE_MAX,
            "from the future",
            "Set the clocks of the clients, or let the server that forwards events set the time.",
        ),
        (
            traffic.late,
            LATE_SHARE_MAX,
            "more than a day late",
            "Look at what holds events back: they come too late for limits and windows.",
        ),
    ):
        if count > most * traffic.events:
            evidence: dict[str, float | str] = {
                "hours": traffic.hours,
                "events": traffic.events,
                "such": count,
                "share": count / traffic.events,
            }
            found.append(Finding("clocks_of_clients", "warning", f"events come {which}", evidence, todo))
    return Seen(f"{traffic.events:,} events of the last {traffic.hours} h", found)


def shipper(facts: Facts) -> Seen:
    """Decisions and events wait to be brought into the lake, or were lost on the way."""
    loop = facts.loop
    found = []
    behind = 0.0 if loop.oldest is None else (facts.now - loop.oldest) / MICROSECONDS
    if loop.waiting and behind > LAG_SECONDS_MAX:
        ran = "never" if loop.ran_at is None else rfc3339(loop.ran_at)
        evidence: dict[str, float | str] = {"waiting": loop.waiting, "oldest_seconds": behind, "last_run": ran}
        found.append(
            Finding(
                "shipper",
                "error",
                "decisions and events wait to be brought into the lake: windows and training do not see them",
                evidence,
                "Run the background worker (`opportune up` does); its log says what keeps it.",
                "" if loop.oldest is None else rfc3339(loop.oldest),
            )
        )
    if loop.lost_bytes:
        found.append(
            Finding(
                "shipper",
                "error",
                "journal files were deleted before they were shipped: decisions are lost to training",
                {"bytes": loop.lost_bytes},
                "Keep the background worker running, and give the journal's folder more room.",
            )
        )
    if loop.left_out:
        evidence = {f"of_{name}": count for name, count in loop.left_out.items()}
        found.append(
            Finding(
                "shipper",
                "warning",
                "events that no table of the lake takes",
                evidence,
                "Declare their streams in features.yaml.",
            )
        )
    return Seen("journals and event log", found)


def lake_days(facts: Facts) -> Seen:
    """Whole days are missing among those with recorded decisions."""
    traffic = facts.traffic
    if traffic.decided_first is None:
        raise CannotSay("no decision was recorded yet")
    if not traffic.days_missing:
        return Seen("days with recorded decisions, of the last 30")
    return Seen(
        "days with recorded decisions, of the last 30",
        [
            Finding(
                "lake_days",
                "warning",
                "days without any recorded decision, between days that have some",
                {"days": len(traffic.days_missing), "first": traffic.days_missing[0], "last": traffic.days_missing[-1]},
                "If the service ran, look at the logs of the server and of the background worker of those days.",
                traffic.days_missing[0],
            )
        ],
    )


CHECKS = (
    no_impressions,
    outcomes_without_decisions,
    outcomes_before_decisions,
    dead_letters,
    duplicates,
    clocks_of_clients,
    shipper,
    lake_days,
)
