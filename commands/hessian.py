"""`hessian`: eigenvalues, trace and spectral density at a run's weights."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isoloss.commands.console import Console
from isoloss.commands.errors import CommandError, UsageError, usage
from isoloss.commands.options import (
    DEFAULT_RESULTS,
    SAMPLE_SEED,
    BatchSizeOption,
    BnBatchOption,
    BnOption,
    CheckpointOption,
    DataDirOption,
    DatasetArgOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    DtypeOption,
    EstimateOption,
    FiguresOption,
    ForceOption,
    JsonOption,
    LossArgOption,
    LossOption,
    ModelArgOption,
    ModelOption,
    OutOption,
    ResultsOption,
    RunName,
    SamplesOption,
    SeedOption,
    check_out,
    peak_memory,
    resolve_device,
    resolve_dtype,
    sample_count,
)

if TYPE_CHECKING:
    from isoloss.commands.subject import Subject
    from isoloss.hessian import HessianOperator
    from isoloss.records.spectra import SpectrumData


@dataclasses.dataclass(frozen=True)
class HessianOptions:
    """What to compute: the defaults are those of the command line."""

    top: int = 5
    smallest: int = 0
    tol: float = 1e-4
    max_products: int = 300
    trace_error: float = 0.05
    trace_budget: int = 120
    probes: int = 6
    steps: int = 50
    split: str = "train"
    samples: str | None = None
    batch_size: int | None = None
    bn: str = "eval"
    bn_batch: int = 128
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"


def hessian(
    run: RunName = None,
    top: Annotated[
        int, typer.Option("--top", min=0, help="Largest eigenvalues to compute; 0 for none.")
    ] = 5,
    smallest: Annotated[
        int, typer.Option("--smallest", min=0, help="Algebraically smallest eigenvalues, as well.")
    ] = 0,
    tol: Annotated[
        float, typer.Option("--tol", help="Residual asked for, relative to the eigenvalue.")
    ] = 1e-4,
    max_products: Annotated[
        int, typer.Option("--max-products", min=1, help="Products to spend on eigenvalues.")
    ] = 300,
    trace_error: Annotated[
        float, typer.Option("--trace-error", help="Relative standard error asked for.")
    ] = 0.05,
    trace_budget: Annotated[
        int, typer.Option("--trace-budget", min=0, help="Products for the trace; 0 for none.")
    ] = 120,
    probes: Annotated[
        int, typer.Option("--probes", min=0, help="Random probes of the density; 0 for none.")
    ] = 6,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Lanczos steps for each probe.")
    ] = 50,
    operator: Annotated[
        str, typer.Option("--operator", help="Curvature matrix: hessian.")
    ] = "hessian",
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "train",
    samples: SamplesOption = None,
    loss: LossOption = None,
    loss_arg: LossArgOption = None,
    batch_size: BatchSizeOption = None,
    bn: BnOption = "eval",
    bn_batch: BnBatchOption = 128,
    checkpoint: CheckpointOption = None,
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    dataset: DatasetOption = None,
    dataset_arg: DatasetArgOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    data_dir: DataDirOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    download: DownloadOption = False,
    force: ForceOption = False,
    figures: FiguresOption = True,
    as_json: JsonOption = False,
    estimate: EstimateOption = False,
) -> None:
    """Compute the top eigenvalues, the trace and the spectral density of the loss's Hessian.

    Each of the three is kept once it is finished: after an interruption the same command goes on
    with the rest. For example: hessian mnist-sam --top 10 --samples 2000
    """
    from isoloss.commands.subject import Selection, load_subject

    console = Console(as_json)
    if operator != "hessian":
        raise UsageError(f"--operator: expected hessian, got {operator!r}")
    options = HessianOptions(
        top, smallest, tol, max_products, trace_error, trace_budget, probes, steps,
        split, samples, batch_size, bn, bn_batch, seed, device, dtype,
    )  # fmt: skip
    check_options(options)
    subject = load_subject(
        Selection(
            run, checkpoint, model, model_arg, dataset, dataset_arg, loss, loss_arg,
            data_dir, results, download,
        ),
        console,
    )  # fmt: skip
    hessian_of(subject, options, console, out=out, force=force, figures=figures, estimate=estimate)


def check_options(options: HessianOptions) -> None:
    """Refuse what can be seen to be wrong before anything is loaded."""
    from isoloss.landscape.batch_norm import check_policy

    for name, value in (("--tol", options.tol), ("--trace-error", options.trace_error)):
        if not value > 0:
            raise UsageError(f"{name}: expected a number above 0, got {value}")
    with usage():
        check_policy(options.bn, options.bn_batch)
    if options.smallest and not options.top:
        raise UsageError("--smallest: expected --top of 1 or more with it, got 0")
    if options.top + options.trace_budget + options.probes == 0:
        raise UsageError("nothing to compute: --top, --trace-budget and --probes are all 0")
    sample_count(options.samples, 1)
    resolve_dtype(options.dtype)


def hessian_of(
    subject: Subject,
    options: HessianOptions,
    console: Console,
    *,
    out: Path | None = None,
    force: bool = False,
    figures: bool = True,
    estimate: bool = False,
) -> Path:
    """Compute the curvature of a subject into its run's folder and return the file."""
    from isoloss.hessian import HessianOperator
    from isoloss.landscape import Plan
    from isoloss.landscape.vectors import digest
    from isoloss.records.files import FileError, refuse_other_kind
    from isoloss.records.identity import refuse_other_function, refuse_other_settings
    from isoloss.records.locks import locked_file
    from isoloss.records.spectra import read_spectrum

    path = out or subject.run.path / "hessian.h5"
    check_out(path)
    stored: SpectrumData | None = None
    if force and not estimate:
        refuse_other_kind(path, "hessian")
    if path.exists() and not force and not estimate:
        stored = read_spectrum(path)
        if "plan" not in stored.settings:
            raise FileError(
                f"expected a file that this command made, got {path} without its settings\n"
                "write to another file (--out FILE), or start over (--force)"
            )
    problem = subject.problem(
        options.split,
        sample_count(options.samples, len(subject.split(options.split))),
        device=resolve_device(options.device),
        dtype=resolve_dtype(options.dtype),
        bn=options.bn,
        bn_batch=options.bn_batch,
        plan=None if stored is None else Plan.from_json(stored.settings["plan"]),
    )
    if options.batch_size is not None:
        problem.plan = dataclasses.replace(problem.plan, product_batch=options.batch_size)
    size = sum(tensor.numel() for tensor in problem.parameters.values())
    if max(options.top, options.smallest) > size:
        raise UsageError(f"--top, --smallest: the network has {size} parameters, no more pairs")
    settings = {
        **subject.provenance,
        "label": subject.run.label,
        "optimizer": subject.run.config().get("optimizer"),
        "operator": "hessian",
        "split": options.split,
        "population": len(subject.split(options.split)),
        "sample_seed": SAMPLE_SEED,
        "samples": problem.count,
        "digest": problem.digest,
        "weights_sha256": digest(problem.parameters),
        "buffers_sha256": problem.buffers_digest,
        "loss_at_weights": problem.evaluate().loss,
        "bn": problem.bn,
        "bn_batch": problem.bn_batch if problem.bn != "eval" else None,
        "dtype": options.dtype,
        "device": problem.device.type,
        "parameters": size,
        "plan": problem.plan.to_json(),
        "options": {
            name: getattr(options, name)
            for name in ("top", "smallest", "tol", "max_products", "trace_error",
                         "trace_budget", "probes", "steps", "seed")
        },
    }  # fmt: skip
    if stored is not None:
        refuse_other_settings(path, stored.settings, settings)
        before = stored.settings.get("loss_at_weights", math.nan)
        refuse_other_function(path, "a loss of", [before], [settings["loss_at_weights"]])
        settings = stored.settings  # what may differ stays as it was when the file was begun
    with HessianOperator(problem) as operator:
        if estimate:
            _estimate(operator, options, console)
            return path
        began = time.monotonic()
        try:
            with locked_file(path):
                data = _stages(operator, options, path, settings, stored, console)
        except KeyboardInterrupt:
            kept = f"what was finished is kept in {path}" if path.exists() else "nothing finished"
            raise CommandError(
                f"interrupted; {kept}\nthe same command goes on with the rest"
            ) from None
    if operator.products:
        console.say(f"{operator.products} products in {time.monotonic() - began:.1f} s")
    else:
        console.say(f"{path} is complete, nothing to do")
    _say(data, console)
    written: list[Path] = []
    if figures:
        from isoloss.commands.drawing import draw_hessian

        written = draw_hessian(path)
        names = [p.name for p in written if p.suffix == ".png"]
        console.say(f"wrote {', '.join([str(path), path.with_suffix('.json').name, *names])}")
    from isoloss.records.summary import summary

    console.result({"file": path, **summary(data), "figures": written})
    return path


def _stages(
    operator: HessianOperator,
    options: HessianOptions,
    path: Path,
    settings: dict[str, Any],
    stored: SpectrumData | None,
    console: Console,
) -> SpectrumData:
    """Compute the stages that are missing, keeping each as soon as it is finished."""
    from isoloss.hessian import spectral_density, top_eigenpairs, trace
    from isoloss.hessian.stored import stored_density, stored_eigenpairs, stored_trace
    from isoloss.landscape import Plan
    from isoloss.records.spectra import SpectrumData, write_spectrum
    from isoloss.records.summary import write_summary

    data = stored or SpectrumData(settings)
    wanted = {
        "eigenpairs": options.top,
        "trace": options.trace_budget,
        "density": options.probes,
    }
    if any(number and stage not in data.stages for stage, number in wanted.items()):
        Plan.from_json(settings["plan"]).apply()
    elif not path.with_suffix(".json").exists():
        write_summary(path.with_suffix(".json"), data)

    def keep(**stage: Any) -> SpectrumData:
        extended = dataclasses.replace(data, settings=settings, **stage)
        path.with_suffix(".json").unlink(missing_ok=True)  # it never outlives its file
        write_spectrum(path, extended)
        write_summary(path.with_suffix(".json"), extended)
        return extended

    if options.top and data.eigenpairs is None:
        with console.progress("eigenvalues") as progress:
            pairs = top_eigenpairs(
                operator,
                options.top,
                smallest=options.smallest,
                tol=options.tol,
                max_products=max(options.max_products, options.top + options.smallest),
                seed=options.seed,
                progress=progress,
            )
        data = keep(eigenpairs=stored_eigenpairs(pairs, operator.shapes))
    if options.trace_budget and data.trace is None:
        with console.progress("trace") as progress, usage("--trace-budget"):
            estimate = trace(
                operator,
                relative_error=options.trace_error,
                budget=options.trace_budget,
                seed=options.seed,
                progress=progress,
            )
        data = keep(trace=stored_trace(estimate))
    if options.probes and data.density is None:
        with console.progress("density") as progress:
            density = spectral_density(
                operator,
                probes=options.probes,
                steps=options.steps,
                seed=options.seed,
                progress=progress,
            )
        data = keep(density=stored_density(density))
    return data


def _say(data: SpectrumData, console: Console) -> None:
    pairs, estimate = data.eigenpairs, data.trace
    if pairs is not None:
        values = ", ".join(f"{value:.6g}" for value in pairs.eigenvalues)
        console.say(f"largest eigenvalues: {values} (residuals up to {pairs.residuals.max():.2g})")
        if pairs.smallest_eigenvalues is not None:
            values = ", ".join(f"{value:.6g}" for value in pairs.smallest_eigenvalues)
            console.say(f"smallest eigenvalues: {values}")
        if not pairs.account["converged"]:
            console.say(f"eigenvalues not converged: {pairs.account['reason']}")
    if estimate is not None:
        console.say(f"trace: {estimate.estimate:.6g} ± {estimate.standard_error:.2g} (s.e.)")
        if not estimate.account["converged"]:
            console.say(f"trace not converged: {estimate.account['reason']}")


def _estimate(operator: HessianOperator, options: HessianOptions, console: Console) -> None:
    import torch

    vector = torch.ones(operator.size, dtype=operator.dtype, device=operator.device)
    operator.matvec(vector)  # the first product builds the graphs
    began = time.perf_counter()
    repeats = 3
    for _ in range(repeats):
        operator.matvec(vector)
    product = (time.perf_counter() - began) / repeats
    # Eigenvalues take 4 to 6 products each on trained networks; the trace may spend its budget.
    products = 6 * (options.top + options.smallest) + options.trace_budget
    products += options.probes * options.steps
    stored = options.top + options.smallest
    size = operator.dtype.itemsize * operator.size * stored
    console.say(
        f"about {product * products:.0f} s for up to {products} products of "
        f"{1000 * product:.0f} ms; peak memory {peak_memory() / 2**20:.0f} MiB; "
        f"file {size / 2**20:.1f} MiB"
    )
    console.result(
        {
            "seconds": product * products,
            "products": products,
            "peak_memory_bytes": peak_memory(),
            "file_bytes": size,
        }
    )
