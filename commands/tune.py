"""`tune`: a search over options of `train`, judged on the validation split."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, UsageError, usage
from isoloss.commands.options import (
    DEFAULT_RESULTS,
    DataDirOption,
    DeviceOption,
    DownloadOption,
    FiguresOption,
    ForceOption,
    JsonOption,
    ResultsOption,
    resolve_device,
)
from isoloss.commands.search_space import (
    NAMES,
    Dimension,
    parse_search,
    parse_settings,
    trial_options,
)
from isoloss.commands.study import (
    TrialTable,
    accuracy,
    ask,
    check_optuna,
    open_study,
    run_name,
    tell,
)
from isoloss.commands.train_options import TrainOptions, read_config
from isoloss.commands.trial_runs import Place, run_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from isoloss.records.runs import Run

# So many trials in a row that training refuses are a mistake in the search, not bad luck.
MOST_REFUSED = 3


def tune(
    name: Annotated[
        str, typer.Option("--name", help="Name of the search; the same name goes on with it.")
    ],
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="OPTION=RANGE",
            help="An option of train and its range: uniform:LOW:HIGH[:STEP], loguniform:LOW:HIGH, "
            "int:LOW:HIGH[:STEP], logint:LOW:HIGH or choice:A,B,..; model_arg.KEY for an argument.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Trials in all, those done before included.")
    ] = 20,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of train for all trials."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML or JSON file of options for all trials; --set wins."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trials run at the same time.")] = 1,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, help="Seed of what is drawn; that of the trainings is --set seed=N."
        ),
    ] = 0,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    download: DownloadOption = False,
    force: ForceOption = False,
    figures: FiguresOption = True,
    as_json: JsonOption = False,
) -> None:
    """Search over options of train for the best validation accuracy; look at test once, last.

    Trials are kept in RESULTS/tune/NAME: runs, trials.csv, trials.png, and best.json for train
    --config. An interrupted search goes on with the same command. For example: tune --name a
    --search lr=loguniform:1e-3:1 --search optimizer=choice:sgd,sam --set epochs=3 --trials 10
    """
    from isoloss.records.runs import RunError, check_name

    console = Console(as_json)
    space = parse_search(search or [])
    if not space:
        raise UsageError("--search: expected one range or more, such as lr=loguniform:1e-4:1e-1")
    options = _fixed_options(config, parse_settings(fixed or []), space)
    trial_options(options, space, _middle(space), "check")  # what is wrong shows before anything
    resolve_device(device)
    with usage("--name", (RunError,)):
        folder = results / "tune" / check_name(name)
    place = Place(folder, device, data_dir, download)
    _search(place, space, options, trials, jobs, seed, console, figures, force)


def _search(
    place: Place,
    space: Mapping[str, Dimension],
    fixed: Mapping[str, Any],
    trials: int,
    jobs: int,
    seed: int,
    console: Console,
    figures: bool,
    force: bool,
) -> None:
    settings = {
        "search": {option: dimension.text for option, dimension in space.items()},
        "fixed": dict(fixed),
        "seed": seed,
    }
    from isoloss.records.locks import locked
    from isoloss.records.replacing import set_aside, sweep

    check_optuna()
    with contextlib.ExitStack() as held:
        what = f"search {place.folder.name}"
        held.enter_context(locked(place.folder, what, "raise its `jobs` for more trials"))
        sweep(place.folder)
        give_up = held.enter_context(set_aside(place.folder)) if force else None
        place.folder.mkdir(exist_ok=True)
        study = open_study(place.folder, settings)
        done = sum(trial.state.is_finished() for trial in study.trials)
        if done:
            console.say(f"search {place.folder.name}: {done} of {trials} trials are done")
        _run(study, place, space, fixed, trials, jobs, seed, console, give_up)
        table = TrialTable(study, space, place.folder)
        table.write()
        best = table.best()
        if best is None:
            raise CommandError(
                f"expected one completed trial or more, all {len(table.rows)} failed; the last: "
                f"{table.rows[-1]['reason']}\nsee {place.folder / 'trials.csv'}"
            )
        _write_best(place.folder, trial_options(fixed, space, best.params, ""))
        summary = _summarise(table, best, place, settings, console, figures)
        if figures:
            console.say(f"wrote {table.draw()[0]}")
    console.result(summary)


def _run(
    study: Study,
    place: Place,
    space: Mapping[str, Dimension],
    fixed: Mapping[str, Any],
    trials: int,
    jobs: int,
    seed: int,
    console: Console,
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
        with console.progress(f"trials of {place.folder.name}") as progress:
            for number, result in run_trials(next_trial, place, jobs):
                if result.state == "interrupted":
                    raise KeyboardInterrupt
                if result.state == "broken":
                    raise CommandError(f"trial {number + 1}: {result.reason}")
                tell(study, number, result)
                if give_up is not None and result.state != "refused":
                    give_up()
                table = TrialTable(study, space, place.folder)
                table.write()
                console.say(table.line(number, trials))
                ended += 1
                if progress is not None:
                    progress(ended, trials)
                refused = refused + 1 if result.state == "refused" else 0
                if refused == MOST_REFUSED:
                    raise UsageError(f"--search: {refused} trials in a row: {result.reason}")
    except KeyboardInterrupt:
        command = "the same command" if give_up is None else "the same command without --force"
        raise CommandError(
            f"interrupted after {ended} of {trials} trials, which are kept in {place.folder}\n"
            f"{command} goes on from there"
        ) from None


def _summarise(
    table: TrialTable,
    best: FrozenTrial,
    place: Place,
    settings: dict[str, Any],
    console: Console,
    figures: bool,
) -> dict[str, Any]:
    """Look at the test split for the best trial, and write and say what came out."""
    from isoloss.records.runs import list_runs, write_json

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
    console.say(
        f"best: {run.name} of {len(states)} trials, validation {accuracy(splits['val'])} "
        "(the highest of many: optimistic)"
    )
    console.say(f"test split: {accuracy(splits['test'])}, {run.path}")
    if len(looks) > 1:
        console.say(
            f"the test split was looked at for {len(looks)} choices of this search: "
            f"{', '.join(looks)}"
        )
    console.say(f"train again with: --config {place.folder / 'best.json'}")
    return summary


def _tested(best: FrozenTrial, place: Place, figures: bool) -> Run:
    """Return the run of the best trial, evaluated on all splits, which is done once."""
    from isoloss.commands.evaluate import write_evaluation
    from isoloss.commands.subject import Selection, load_subject
    from isoloss.records.runs import Run

    run = Run(place.folder / "runs" / run_name(best.number))
    if "test" in _stored_splits(run):
        return run
    silent = Console(as_json=True)
    subject = load_subject(
        Selection(run.name, data_dir=place.data_dir, results=place.folder, download=place.download),
        silent,
    )
    facts = {key: subject.provenance[key] for key in ("checkpoint", "checkpoint_sha256", "loss")}
    write_evaluation(
        run,
        subject.model.to(resolve_device(place.device)),
        subject.loss,
        subject.data,
        silent,
        facts=facts,
        figures=figures,
    )
    return run


def _stored_splits(run: Run) -> Mapping[str, Any]:
    there = (run.path / "evaluation.json").is_file()
    return run.evaluation()["splits"] if there else {}


def _write_best(folder: Path, options: TrainOptions) -> None:
    """Write the options of the best trial as `train --config` reads them."""
    from isoloss.records.runs import write_json

    values = {k: v for k, v in dataclasses.asdict(options).items() if k not in NAMES}
    values["batch_size"] = values["batch_size"] or "full"
    write_json(folder / "best.json", values)


def _fixed_options(
    config: Path | None, settings: Mapping[str, Any], space: Mapping[str, Dimension]
) -> dict[str, Any]:
    """Return the options all trials share: those of the file, and those of `--set` over them."""
    stored = {} if config is None else read_config(config)
    merged = {k: v for k, v in stored.items() if k not in NAMES}
    for option, value in settings.items():
        inside = isinstance(value, dict) and isinstance(merged.get(option), dict)
        merged[option] = {**merged[option], **value} if inside else value
        both = set(space) & ({f"{option}.{key}" for key in value} if inside else {option})
        if both:
            raise UsageError(f"--set: {both.pop()} is searched, leave out one of the two")
    return merged


def _middle(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Some value of each searched option."""
    return {o: d.choices[0] if d.kind == "choice" else d.low for o, d in space.items()}


def _score(split: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("accuracy", "accuracy_standard_error", "loss", "count")
    return {key: split[key] for key in keys}
