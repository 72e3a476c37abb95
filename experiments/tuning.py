"""A search over options of a training, judged on the validation split."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.errors import UsageError
from isoloss.experiments.devices import resolve_device
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import OptionError
from isoloss.experiments.reporting import Reporter, announcing
from isoloss.experiments.scoring import evaluate
from isoloss.experiments.search_space import (
    NAMES,
    Dimension,
    parse_search,
    parse_settings,
    trial_options,
)
from isoloss.experiments.selection import select
from isoloss.experiments.settings import Selection
from isoloss.experiments.study import (
    TrialTable,
    accuracy,
    ask,
    check_optuna,
    open_study,
    run_name,
    tell,
)
from isoloss.experiments.train_options import TrainOptions, read_config
from isoloss.experiments.trial_runs import Place, run_trials
from isoloss.records.files import FileError
from isoloss.records.json_text import read_object
from isoloss.records.leftovers import sweep, sweep_locked
from isoloss.records.locks import locked
from isoloss.records.replacing import set_aside
from isoloss.records.runs import Run, check_name, list_runs, write_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

# So many trials in a row that training refuses are a mistake in the search, not bad luck.
MOST_REFUSED = 3


def tune(
    name: str,
    search: Sequence[str],
    fixed: Sequence[str] = (),
    reporter: Reporter | None = None,
    *,
    trials: int,
    config: Path | None = None,
    jobs: int = 1,
    seed: int = 0,
    results: Path | str = "results",
    data_dir: Path | None = None,
    device: str = "auto",
    download: bool = False,
    figures: bool = True,
    force: bool = False,
) -> dict[str, Any]:
    """Search for the best validation accuracy; the test split is looked at once, last.

    Args:
        name: Of the search; the same name goes on with it.
        search: `OPTION=RANGE` of each searched option, see `search_space`.
        fixed: `OPTION=VALUE` of options that all trials share.
        reporter: Told what happens.
        trials: Trials in all, those done before included.
        config: TOML or JSON file of further options that all trials share.
        jobs: Trials run at the same time.
        seed: Of what is drawn.
        results: Folder of all results; the search is `tune/NAME` in it.
        data_dir: Folder of the data.
        device: Where to train.
        download: Whether missing data may be fetched.
        figures: Whether to draw.
        force: Whether to start over.

    Returns:
        What `tune.json` holds: settings, the best trial and its scores.

    Raises:
        UsageError: For ranges or options that do not go together.
        ExperimentError: If no trial completed, or the search was begun with other settings.
    """
    space = parse_search(search)
    if not space:
        raise OptionError("search", "expected one range or more, such as lr=loguniform:1e-4:1e-1")
    shared = _fixed_options(config, parse_settings(fixed), space)
    trial_options(shared, space, _middle(space), "check")  # what is wrong shows before anything
    resolve_device(device)
    place = Place(Path(results) / "tune" / check_name(name, "name"), device, data_dir, download)
    return _search(place, space, shared, trials, jobs, seed, reporter or Reporter(), figures, force)


def _search(
    place: Place,
    space: Mapping[str, Dimension],
    fixed: Mapping[str, Any],
    trials: int,
    jobs: int,
    seed: int,
    reporter: Reporter,
    figures: bool,
    force: bool,
) -> dict[str, Any]:
    settings = {
        "search": {option: dimension.text for option, dimension in space.items()},
        "fixed": dict(fixed),
        "seed": seed,
    }
    check_optuna()
    with contextlib.ExitStack() as held:
        what = f"search {place.folder.name}"
        held.enter_context(locked(place.folder, what, "raise its `jobs` for more trials"))
        sweep_locked(place.folder)
        give_up = held.enter_context(set_aside(place.folder)) if force else None
        place.folder.mkdir(exist_ok=True)
        study = open_study(place.folder, settings)
        done = sum(trial.state.is_finished() for trial in study.trials)
        if done:
            reporter.say(f"search {place.folder.name}: {done} of {trials} trials are done")
        _run(study, place, space, fixed, trials, jobs, seed, reporter, give_up)
        sweep(place.folder)  # of trials whose processes were killed
        table = TrialTable(study, space, place.folder)
        table.write()
        best = table.best()
        if best is None:
            raise ExperimentError(
                f"expected one completed trial or more, all {len(table.rows)} failed; the last: "
                f"{table.rows[-1]['reason']}\nsee {place.folder / 'trials.csv'}"
            )
        _write_best(place.folder, trial_options(fixed, space, best.params, ""))
        summary = _summarise(table, best, place, settings, reporter, figures)
        if figures:
            reporter.say(f"wrote {table.draw()[0]}")
    return summary


def _run(
    study: Study,
    place: Place,
    space: Mapping[str, Dimension],
    fixed: Mapping[str, Any],
    trials: int,
    jobs: int,
    seed: int,
    reporter: Reporter,
    give_up: Callable[[], None] | None,
) -> None:
    """Run trials until there are as many as asked for, those of an interrupted search first.

    The first that ran gives up the search that this one takes the place of.
    """
    from optuna.trial import TrialState

    begun = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    again = [(trial.number, trial.params) for trial in begun]

    def next_trial() -> tuple[int, TrainOptions] | None:
        if again:
            number, drawn = again.pop(0)
        elif len(study.get_trials(deepcopy=False)) < trials:
            number, drawn = ask(study, space, seed)
        else:
            return None
        return number, trial_options(fixed, space, drawn, run_name(number))

    refused = 0
    ended = sum(trial.state.is_finished() for trial in study.trials)
    try:
        with reporter.progress(f"trials of {place.folder.name}") as progress:
            unit = "trials" if jobs == 1 else f"rounds of {jobs} trials"
            advice = "fewer with `trials`, or with fewer epochs of each"
            rounds = -(-(trials - ended) // jobs)
            report = announcing(reporter, progress, unit, advice, rounds)
            report(ended, trials)
            for number, result in run_trials(next_trial, place, jobs):
                if result.state == "interrupted":
                    raise KeyboardInterrupt
                if result.state == "broken":
                    raise ExperimentError(f"trial {number + 1}: {result.reason}")
                tell(study, number, result)
                if give_up is not None and result.state != "refused":
                    give_up()
                table = TrialTable(study, space, place.folder)
                table.write()
                reporter.say(table.line(number, trials))
                ended += 1
                report(ended, trials)
                refused = refused + 1 if result.state == "refused" else 0
                if refused == MOST_REFUSED:
                    raise UsageError(f"`search`: {refused} trials in a row: {result.reason}")
    except KeyboardInterrupt:
        command = "the same command" if give_up is None else "the same without `force`"
        raise ExperimentError(
            f"interrupted after {ended} of {trials} trials, which are kept in {place.folder}\n"
            f"{command} goes on from there"
        ) from None


def _summarise(
    table: TrialTable,
    best: FrozenTrial,
    place: Place,
    settings: dict[str, Any],
    reporter: Reporter,
    figures: bool,
) -> dict[str, Any]:
    """Look at the test split for the best trial, and write and say what came out."""
    run = _tested(best, place, figures)
    # A search that went on may have chosen twice: each look at the test split is on record.
    looks = [r.name for r in list_runs(place.folder) if "test" in _stored_splits(r)]
    splits = run.evaluation()["splits"]
    states = [result.state for result in table.results]
    summary = {
        "name": place.folder.name,
        **settings,
        "trials": len(states),
        "complete": states.count("complete"),
        "best": {
            "trial": best.number + 1,
            "run": run.name,
            "options": {o: d.value(best.params[o]) for o, d in table.space.items()},
            **{split: _score(splits[split]) for split in ("val", "test")},
        },
        "tested_runs": looks,
    }
    write_json(place.folder / "tune.json", summary)
    reporter.say(
        f"best: {run.name} of {len(states)} trials, validation {accuracy(splits['val'])} "
        "(the highest of many: optimistic)"
    )
    reporter.say(f"test split: {accuracy(splits['test'])}, {run.path}")
    if len(looks) > 1:
        reporter.say(
            f"the test split was looked at for {len(looks)} choices of this search: "
            f"{', '.join(looks)}"
        )
    reporter.say(f"train again with: --config {place.folder / 'best.json'}")
    return summary


def _tested(best: FrozenTrial, place: Place, figures: bool) -> Run:
    """Return the run of the best trial, evaluated on all splits, which is done once."""
    run = Run(place.folder / "runs" / run_name(best.number))
    drawn = not figures or (run.path / "confusion.png").is_file()
    if drawn and run.name in _tested_before(place.folder):  # all that goes with scores is there
        return run
    selection = Selection(
        run=run.name, data_dir=place.data_dir, results=place.folder, download=place.download
    )
    evaluate(select(selection), device=place.device, figures=figures)
    return run


def _stored_splits(run: Run) -> Mapping[str, Any]:
    there = (run.path / "evaluation.json").is_file()
    return run.evaluation()["splits"] if there else {}


def _tested_before(folder: Path) -> list[Any]:
    """Return the runs that `tune.json` names; it is made again where it is missing or damaged."""
    with contextlib.suppress(FileNotFoundError, FileError):
        runs = read_object(folder / "tune.json").get("tested_runs")
        return runs if isinstance(runs, list) else []
    return []


def _write_best(folder: Path, options: TrainOptions) -> None:
    """Write the options of the best trial as `train --config` reads them."""
    values = {k: v for k, v in dataclasses.asdict(options).items() if k not in NAMES}
    values["batch_size"] = values["batch_size"] or "full"
    write_json(folder / "best.json", values)


def _fixed_options(
    config: Path | None, settings: Mapping[str, Any], space: Mapping[str, Dimension]
) -> dict[str, Any]:
    """Return the options all trials share: those of the file, and those set over them."""
    stored = {} if config is None else read_config(config)
    merged = {k: v for k, v in stored.items() if k not in NAMES}
    for name, value in settings.items():
        inside = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if inside else value
        both = set(space) & ({f"{name}.{key}" for key in value} if inside else {name})
        if both:
            raise UsageError(f"`fixed`: {both.pop()} is searched, leave out one of the two")
    return merged


def _middle(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return some value of each searched option."""
    return {o: d.choices[0] if d.kind == "choice" else d.low for o, d in space.items()}


def _score(split: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("accuracy", "accuracy_standard_error", "loss", "count")
    return {key: split[key] for key in keys}
