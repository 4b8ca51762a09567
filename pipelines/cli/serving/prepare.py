"""Do what is missing before a service can run: import, features, rows, training, publishing; mend damaged stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from features.common.timestamps import now
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.output import console


def mend(workspace: Workspace) -> None:
    """Make stores again that were damaged or lost, before anything reads them."""
    if not steps.is_begun(workspace):
        return  # there are none yet

    from pipelines.materialize import rebuild

    rebuild.mend(workspace, done)


def prepare(workspace: Workspace, warm: Callable[[], None]) -> None:
    """Do the steps that are missing, each told of when it is done; `warm` waits for compiled code, before a model is
    rehearsed.
    """
    from pipelines.deploy.publish import publish, serving_version

    with console.progress(workspace.settings.name) as tell:
        if not steps.is_imported(workspace):
            from pipelines.importing.report import notes

            reports = steps.import_tables(workspace, now(), lambda table, part: tell(f"import {table}", part))
            done(f"imported {sum(report.stored for report in reports):,} rows of {len(reports)} tables")
            for report in reports:
                for note in notes(report):
                    console.err.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
        if not steps.is_computed(workspace):
            tell("windows at every moment that training needs", None)
            written = steps.compute_features(workspace, now())
            done(f"computed {sum(written.values()):,} rows of {len(written)} views")
        if not steps.is_materialized(workspace):
            tell("online store", None)
            done(f"filled the online store; {steps.materialize(workspace)} customers read back, all equal")
        if not steps.are_contacts_brought(workspace):
            brought = steps.bring_contacts(workspace, now(), tell)
            if brought is not None:
                done(f"wrote the contact ledger: {brought}")
        if serving_version(workspace) is None:
            _train_and_publish(workspace, tell, publish, warm)


def _train_and_publish(workspace: Workspace, tell: console.Told, publish: Any, warm: Callable[[], None]) -> None:
    tell("libraries and registry", None)
    from training.bundle import registry
    from training.bundle.bundle import BadBundle

    with steps.quiet_warnings():
        version = registry.version_of(workspace, registry.CHAMPION)
        tell("code that is compiled once a machine", None)
        warm()
        from training.fitting.train import train

        if version is not None:
            try:
                publish(workspace, version)
            except BadBundle as refused:
                done(f"version {version} cannot serve: {refused}")
                version = None
        if version is None:
            trained = train(workspace, now(), tell)
            mrr, rivals = trained.report["model"]["mrr"], trained.report["baselines"]
            done(
                f"trained version {trained.version}: MRR {mrr:.3f} (popularity {rivals['popularity']['mrr']:.3f},"
                f" random {rivals['random']['mrr']:.3f})"
            )
            for warning in trained.report["warnings"]:
                console.err.print(f"[yellow]warning[/yellow] {warning}", highlight=False, soft_wrap=True)
            if not trained.promoted:
                raise BadBundle(
                    f"the model did not pass its gates: {'; '.join(trained.report['gates'])}. Mend model.yaml, "
                    f"or serve it all the same: `opportune publish --version {trained.version}`."
                )
            version = trained.version
            tell("verify and publish", None)
            publish(workspace, version)
    done(f"published version {version}")


def done(text: str) -> None:
    """Say that a step is done."""
    console.err.print(f"[green]✓[/green] {text}", highlight=False)
